"""OFT's adapter: merged at the names of its base, exactly; what is merged is not merged again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.interop.openvla import plain
from tests.interop.openvla.made import made_adapter, made_folder, made_oft
from tests.interop.openvla.test_oft import asked, close, states_of
from vertebra import load
from vertebra.backbone.weights import mapped_tensors
from vertebra.errors import CheckpointError, ConfigError
from vertebra.interop import write_openvla
from vertebra.interop.openvla.lora import merged, read_lora
from vertebra.tune.lora import LoraConfig
from vertebra.tune.stages import TuneConfig, choose


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_folder(tmp_path_factory.mktemp("folders") / "base")


@pytest.fixture(scope="module")
def bare(base: Path) -> Path:
    """What OFT leaves while it trains: no weights of the model, an adapter over its base."""
    where = made_oft(base.parent / "oft--50_chkpt")
    for file in [*where.glob("*.safetensors"), where / "config.json", where / "model.safetensors.index.json"]:
        file.unlink()
    made_adapter(where / "lora_adapter", base)
    return where


def by_hand(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """Every weight with its share of the adapter, one product after the other, in fp32."""
    tensors = {name: tensor.float() for name, tensor in mapped_tensors(base).items()}
    matrices = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    for key, a in matrices.items():
        if not key.endswith("lora_A.weight"):
            continue
        b = matrices[key.replace("lora_A", "lora_B")]
        name = key.removeprefix("base_model.model.").replace(".lora_A", "")
        if a.ndim == 4:
            delta = torch.einsum("or,rchw->ochw", b[:, :, 0, 0], a)
        else:
            delta = b @ a
        tensors[name] = tensors[name] + config["lora_alpha"] / config["r"] * delta
    return tensors


@torch.inference_mode()
def test_over_its_base(base: Path, bare: Path):
    model = load(bare, base=base, dtype="float32")
    sequence, items = asked(model)
    original = plain.Original(base, by_hand(base, bare / "lora_adapter"))
    token = plain.proprio_token(torch.linspace(-1, 1, 8), plain.part_file(bare, "proprio_projector"))
    from tests.interop.openvla.test_read import ids_of

    images = [items["image"][0], items["image:wrist"][0]]
    states, _ = original.chunk(ids_of(model), images, token, 56)
    close(states_of(model, [sequence], [items])[0], states)


def test_the_base_that_it_names(base: Path, bare: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no weights, only what goes on a base"):
        load(bare)
    where = tmp_path / "oft"
    shutil.copytree(bare, where)
    config = json.loads((where / "lora_adapter" / "adapter_config.json").read_text())
    for named in (str(base), "base"):
        (where / "lora_adapter" / "adapter_config.json").write_text(
            json.dumps({**config, "base_model_name_or_path": named})
        )
        if named == "base":  # a name alone: the folder of that name beside it
            (tmp_path / "base").symlink_to(base)
        model = load(where, dtype="float32")
        assert model.record["openvla"]["merged"] == load(bare, base=base).record["openvla"]["merged"]


def test_to_train_over_its_base(base: Path, bare: Path):
    """In fp32, so that nothing of the adapter is rounded away."""
    model = load(bare, base=base, inference_mode=False)
    expected = by_hand(base, bare / "lora_adapter")["language_model.lm_head.weight"]
    assert model.training
    assert torch.equal(model.backbone.llm.get_output_embeddings().weight, expected)


def test_merged_weights_are_those_by_hand(base: Path, bare: Path, tmp_path: Path):
    out = write_openvla(load(bare, base=base), tmp_path / "out")
    expected = by_hand(base, bare / "lora_adapter")
    found = mapped_tensors(out)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.bfloat16()), name


def test_nothing_is_merged_twice(base: Path, bare: Path, tmp_path: Path):
    merged_once = write_openvla(load(bare, base=base), tmp_path / "merged")
    with pytest.raises(CheckpointError, match=r"not what the adapter .* was trained on.*lm_head"):
        load(bare, base=merged_once)
    adapter = bare / "lora_adapter"
    tensors = load_file(adapter / "adapter_model.safetensors")
    blind = tmp_path / "blind" / "lora_adapter"  # an adapter that brings nothing of its base
    shutil.copytree(bare, blind.parent)
    save_file({n: t for n, t in tensors.items() if ".base_layer" not in n}, blind / "adapter_model.safetensors")
    again = write_openvla(load(blind.parent, base=base), tmp_path / "again")
    shutil.copytree(blind, again / "lora_adapter")  # as OFT leaves a folder whose weights are merged
    with pytest.raises(CheckpointError, match=r"merged into .* already"):
        load(blind.parent, base=again)
    whole = load(again)  # by itself it is whole
    assert "taken to be merged" in " ".join(whole.record["openvla"]["guesses"])


def test_inputs_are_not_changed(base: Path, bare: Path):
    tensors = mapped_tensors(base)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    lora = read_lora(bare / "lora_adapter")
    made = merged(tensors, lora, dtype=None, base=str(base))
    assert all(torch.equal(tensors[name], before[name]) for name in before)
    assert all(made[name] is tensors[name] for name in tensors if name not in lora.pairs)
    assert all(not torch.equal(made[name], tensors[name]) for name in lora.pairs)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("another rank", "rank 4 in its tensors"),
        ("half", "only one of lora_A and lora_B"),
        ("stranger", "is no part of a LoRA adapter"),
        ("nowhere", "does not have"),
        ("other width", "name the base that it was trained on"),
        ("dora", "use_dora"),
        ("damaged", "cannot be loaded"),
        ("not json", "adapter_config"),
    ],
)
def test_adapters_that_do_not_fit(fault: str, says: str, base: Path, bare: Path, tmp_path: Path):
    where = tmp_path / "oft"
    shutil.copytree(bare, where)
    adapter = where / "lora_adapter"
    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    name = next(name for name in tensors if name.endswith("q_proj.lora_A.weight"))
    match fault:
        case "another rank":
            config["r"] = 3
        case "half":
            del tensors[name]
        case "stranger":
            tensors["base_model.model.foo"] = torch.zeros(2)
        case "nowhere":
            tensors["base_model.model.language_model.no.lora_A.weight"] = torch.zeros(4, 2)
            tensors["base_model.model.language_model.no.lora_B.weight"] = torch.zeros(2, 4)
        case "other width":
            tensors[name] = torch.zeros(4, 3)
        case "dora":
            config["use_dora"] = True
    save_file(tensors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text("{" if fault == "not json" else json.dumps(config))
    if fault == "damaged":
        (adapter / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=says):
        load(where, base=base)


def test_a_base_without_an_adapter_has_no_effect(base: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="has none; leave it out"):
        load(base, base=base)
    with pytest.raises(CheckpointError, match="give the folder of its base"):
        load(made_oft(tmp_path / "whole"), base=tmp_path / "absent")


def test_our_own_adapter_on_top(base: Path):
    model = load(base, inference_mode=False)
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    assert adapter is not None
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert any("backbone.llm" in name for name in trained)
