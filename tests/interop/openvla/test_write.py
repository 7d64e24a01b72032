"""Written back: every tensor under its old name, bit for bit, and every small file; also by way of a folder of ours."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.interop.openvla.made import CLIP, DINO, SIGLIP, made_folder
from vertebra import grow_vocabulary, load
from vertebra.backbone.weights import mapped_tensors
from vertebra.cli.main import app
from vertebra.errors import CheckpointError, ConfigError
from vertebra.interop import write_openvla
from vertebra.interop.openvla.hub import PATTERNS, openvla_folder
from vertebra.model.model import Model
from vertebra.tune.adapter import save_adapter
from vertebra.tune.lora import LoraConfig
from vertebra.tune.merge import merge
from vertebra.tune.stages import TuneConfig, choose


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_folder(tmp_path_factory.mktemp("folders") / "openvla")


def same(found: Path, expected: Path, *, files: bool = True) -> None:
    """Tensors bit for bit and by type; small files byte for byte."""
    ours, theirs = mapped_tensors(found), mapped_tensors(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name
    kept = [file for file in expected.iterdir() if file.suffix in (".json", ".model") and "index" not in file.name]
    assert kept
    for file in kept if files else ():
        assert (found / file.name).read_bytes() == file.read_bytes(), file.name
    assert not list(found.glob("*.py"))


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_key_for_key(folder: Path, dtype: str | None, tmp_path: Path):
    model = load(folder, **({"dtype": dtype} if dtype else {}))
    same(write_openvla(model, tmp_path / "out"), folder)


@pytest.mark.parametrize("timm_ids", [(SIGLIP,), (DINO, CLIP)], ids=len)
def test_other_towers(timm_ids: tuple[str, ...], tmp_path: Path):
    where = made_folder(tmp_path / "in", timm_ids, shards=1, seed=4)
    same(write_openvla(load(where), tmp_path / "out"), where)


def test_a_tied_head_is_written_once(tmp_path: Path):
    where = made_folder(tmp_path / "in", llm="tiny-qwen2.5")
    same(write_openvla(load(where), tmp_path / "out"), where)


def test_what_vla_adapter_adds_is_kept(folder: Path, tmp_path: Path):
    """Its queries belong to an action head of its own, which is not read; they are on the allow-list."""
    where = tmp_path / "in"
    shutil.copytree(folder, where)
    index = json.loads((where / "model.safetensors.index.json").read_text())
    save_file({"action_queries.weight": torch.ones(64, 64, dtype=torch.bfloat16)}, where / "queries.safetensors")
    index["weight_map"]["action_queries.weight"] = "queries.safetensors"
    (where / "model.safetensors.index.json").write_text(json.dumps(index))
    model = load(where)
    assert "action_queries.weight" in model.aside.tensors
    same(write_openvla(model, tmp_path / "out"), where)


def test_by_way_of_a_folder_of_ours(folder: Path, tmp_path: Path):
    load(folder).save(tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again.aside.tensors.keys() == load(folder).aside.tensors.keys()
    again.save(tmp_path / "twice")
    same(write_openvla(load(tmp_path / "twice"), tmp_path / "out", largest=100_000), folder)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 3


def test_on_the_command_line(folder: Path, tmp_path: Path):
    def run(*words: Any) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    assert "draws it" in run("import-openvla", folder, tmp_path / "ours", "--cameras", "image", "--heads", "16,16")
    drawn = run("info", tmp_path / "ours")
    assert "dinov2_with_registers, block 2 of 3" in drawn
    assert "gelu3" in drawn
    run("export", tmp_path / "ours", tmp_path / "out", "--format", "openvla")
    same(tmp_path / "out", folder)


def test_the_command_line_never_replaces_what_it_reads(tmp_path: Path):
    """Neither way, with or without --overwrite: "the input is not touched"."""
    where = made_folder(tmp_path / "up" / "in")
    load(where).save(tmp_path / "up" / "ours")

    def seen() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = seen()
    for words in (["import-openvla", where], ["export", "--format", "openvla", tmp_path / "up" / "ours"]):
        for out in (words[-1], tmp_path / "up"):
            result = CliRunner().invoke(app, [str(word) for word in (*words, out, "--overwrite")])
            assert isinstance(result.exception, CheckpointError), result.output
            assert "would be lost by being replaced" in str(result.exception)
    assert seen() == before


def test_a_class_position_that_was_trained_goes_into_the_class_token(folder: Path, tmp_path: Path):
    model = load(folder, dtype="float32")
    images = model.parts["image"].encoder.sample(2, torch.Generator().manual_seed(0))
    embeddings = model.parts["image"].encoder.towers[0].embeddings
    with torch.no_grad():
        embeddings.position_embeddings[:, :1] = 0.25
        expected = model.parts["image"](images)
        again = load(write_openvla(model, tmp_path / "out"), dtype="float32")
        found = again.parts["image"](images)
    assert not again.parts["image"].encoder.towers[0].embeddings.position_embeddings[:, 0].any()
    assert float((found - expected).abs().max()) < 0.02  # the token was rounded to bf16 again


def test_statistics_that_were_changed_since(folder: Path, tmp_path: Path):
    model = load(folder)
    model.record["policy"]["statistics"].pop("fractal")
    out = write_openvla(model, tmp_path / "out")
    config, before = (json.loads((place / "config.json").read_text()) for place in (out, folder))
    assert list(config["norm_stats"]) == ["bridge"]
    assert {**config, "norm_stats": 0} == {**before, "norm_stats": 0}


def test_what_the_form_has_no_place_for(folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match="did not come from an OpenVLA folder"):
        write_openvla(load("tiny-llama2"), out)
    grown = load(folder, dtype="float32")
    grow_vocabulary(grown.backbone, ["<ACT>"])
    with pytest.raises(ConfigError, match="1 tokens that were added"):
        write_openvla(grown, out)
    adapted: Model = load(folder, inference_mode=False)
    choose(adapted, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    with pytest.raises(ConfigError, match="merge it first"):
        write_openvla(adapted, out)
    with pytest.raises(CheckpointError, match="not empty"):
        write_openvla(load(folder), folder)
    assert not out.exists()


def test_info_draws_a_folder_of_theirs_as_it_is(folder: Path, tmp_path: Path):
    result = CliRunner().invoke(app, ["info", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.output)["multimodal"]
    assert [part["name"] for part in printed["parts"]] == ["image"]
    assert printed["dtypes"] == ["bfloat16"]
    drawn = CliRunner().invoke(app, ["info", str(folder)]).output
    assert "siglip_vision_model, block 2 of 3" in drawn
    load(folder).save(tmp_path / "ours")
    ours = CliRunner().invoke(app, ["info", str(tmp_path / "ours"), "--json"]).output
    again = json.loads(ours)["multimodal"]
    for name in ("parts", "heads", "embedding", "bytes", "backbone_parameters"):
        assert again[name] == printed[name]


def test_an_adapter_of_ours_is_trained_merged_and_written_in_their_form(folder: Path, tmp_path: Path):
    base = load(folder).save(tmp_path / "ours")
    model = load(base, inference_mode=False)
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    assert adapter is not None
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapter(model, adapter, tmp_path / "adapter")
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    with torch.inference_mode():
        expected = model.eval().backbone(input_ids=ids).logits
    merge(base, tmp_path / "adapter", tmp_path / "merged", dtype="float32", bound=1e-3)
    out = write_openvla(load(tmp_path / "merged"), tmp_path / "out")
    with torch.inference_mode():
        found = load(tmp_path / "merged", dtype="float32").backbone(input_ids=ids).logits
        theirs = load(out, dtype="float32").backbone(input_ids=ids).logits
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert float((theirs - expected).abs().max()) < 0.1 * float(expected.abs().max())  # bf16 again
    assert mapped_tensors(out).keys() == mapped_tensors(folder).keys()
    with pytest.raises(CheckpointError, match="merged"):
        merge(tmp_path / "merged", tmp_path / "adapter", tmp_path / "twice")


def test_from_the_hub_without_its_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache as the hub's client lays it out; the code that lies in it is not among what is asked for."""
    cache = tmp_path / "hub"
    snapshot = cache / "models--org--vla" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    (cache / "models--org--vla" / "refs").mkdir()
    (cache / "models--org--vla" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for place in ("file_download", "_snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{place}.constants.HF_HUB_CACHE", str(cache), raising=False)
    assert openvla_folder("org/vla") == snapshot
    assert load("org/vla").record["openvla"]["kinds"] == ["dinov2", "siglip"]
    assert openvla_folder("org/other") is None
    assert openvla_folder("tiny-llama2") is None
    assert not any(fnmatch("modeling_prismatic.py", pattern) for pattern in PATTERNS)
