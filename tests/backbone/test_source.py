"""Every way in which a checkpoint can be wrong: one clear message each, nothing half-loaded, nothing written."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import write_tiny
from vertebra.errors import CheckpointError, NetworkError, UnknownNameError

BOTH_MODES = pytest.mark.parametrize("mode", [{}, {"inference_mode": True, "weights": True}], ids=["train", "infer"])


def listing(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture
def model(tmp_path) -> Path:
    return write_tiny("tiny-llama2", tmp_path / "model")


def refused(folder: Path | str, text: str, mode: dict, error=CheckpointError) -> str:
    before = listing(Path(folder)) if Path(folder).is_dir() else None
    with pytest.raises(error, match=text) as caught:
        load_backbone(folder, **mode)
    if before is not None:
        assert listing(Path(folder)) == before, "the input must not be written to"
    return str(caught.value)


def edit_json(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@BOTH_MODES
def test_missing_folder(tmp_path, mode):
    refused(tmp_path / "absent", "there is no folder", mode)
    refused("./absent", "there is no folder", mode)


@BOTH_MODES
def test_empty_folder_and_file(tmp_path, mode):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is empty", mode)
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is a file", mode)


@BOTH_MODES
def test_no_config(model, mode):
    (model / "config.json").unlink()
    refused(model, r"no config\.json", mode)


@BOTH_MODES
def test_damaged_config(model, mode):
    (model / "config.json").write_text('{"model_type": "lla')
    refused(model, "not valid JSON", mode)
    (model / "config.json").write_text("[1]")
    refused(model, "holds a list", mode)


@BOTH_MODES
def test_missing_tokenizer(model, mode):
    for file in model.glob("*token*"):
        file.unlink()
    refused(model, "has no tokenizer", mode)


@BOTH_MODES
def test_missing_weights(model, mode):
    (model / "model.safetensors").unlink()
    refused(model, "has no weights", mode)


@BOTH_MODES
@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_safetensors(model, mode, keep):
    file = model / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refused(model, "not a whole|truncated|damaged", mode)


def shard(model: Path) -> None:
    """Rewrite the weights as two shards and an index."""
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, model / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in halves.items() for name in part}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (model / "model.safetensors").unlink()


@BOTH_MODES
def test_shards_load_and_an_absent_one_is_named(model, mode, shared, ids):
    shard(model)
    expected = shared("tiny-llama2")
    with torch.no_grad():
        logits = load_backbone(model, dtype="float32", **mode).eval()(ids(expected)).logits[..., :960]
        assert torch.equal(logits, expected(ids(expected)).logits[..., :960])
    (model / "model-00002-of-00002.safetensors").unlink()
    refused(model, "lacks 1 of 2 shards: model-00002-of-00002", mode)


@BOTH_MODES
def test_wrong_shapes_and_missing_tensors(model, mode):
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, "model.norm.weight": torch.ones(3)}, model / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight" in refused(model, "norm", mode)
    tensors.pop("model.norm.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight" in refused(model, "norm", mode)


class Evil:
    """Unpickling this would write a file."""

    def __reduce__(self):
        return (open, ("evil-was-here", "w"))


@BOTH_MODES
def test_bin_that_is_not_plain_weights(model, mode, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (model / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Evil()}, model / "pytorch_model.bin")
    refused(model, "(?i)plain tensors|weights_only|cannot be loaded", mode)
    assert not (tmp_path / "evil-was-here").exists()


def test_plain_bin_is_mapped(model, shared, ids):
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(tensors, model / "pytorch_model.bin")
    expected = shared("tiny-llama2")
    backbone = load_backbone(model, inference_mode=True, weights=True, dtype="float32")
    with torch.no_grad():
        assert torch.equal(backbone(ids(expected)).logits[..., :960], expected(ids(expected)).logits[..., :960])


@BOTH_MODES
def test_unsupported_classes(model, mode):
    edit_json(model / "config.json", model_type="lama")
    assert "`llama`" in refused(model, "no causal language model", mode)
    edit_json(model / "config.json", model_type="t5")
    refused(model, "no causal language model", mode)


@BOTH_MODES
def test_remote_code_is_never_run(model, mode):
    edit_json(model / "config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.MineLM"})
    (model / "modeling_mine.py").write_text("raise SystemExit('ran')")
    assert "modeling_mine.MineLM" in refused(model, "remote code is never run", mode)


def test_a_class_that_is_not_the_checkpoints(model):
    from transformers import MistralForCausalLM

    from vertebra import HFCausalLLMBackbone

    with pytest.raises(CheckpointError, match="`llama`, but MistralForCausalLM loads `mistral`"):
        HFCausalLLMBackbone("x", "mistral", MistralForCausalLM, model)


@BOTH_MODES
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": 65}, "multiple of the number of attention heads"),
        ({"hidden_act": "foo"}, "foo"),
        ({"rope_parameters": {"rope_type": "foo", "rope_theta": 1e4}}, "foo"),
        ({"dtype": "foo"}, "foo"),
        ({"model_type": ["llama"]}, r"model_type \['llama'\]"),
        ({"model_type": None}, "model_type None"),
    ],
    ids=["type", "shape", "activation", "rope", "dtype", "list", "none"],
)
def test_values_that_no_model_can_be_made_of(model, mode, values, text):
    edit_json(model / "config.json", **values)
    refused(model, text, mode, (CheckpointError, UnknownNameError))


@BOTH_MODES
def test_an_encoder_is_no_causal_model(model, mode):
    """Its class for causal models exists and runs, both ways."""
    edit_json(model / "config.json", model_type="roberta")
    refused(model, "is an encoder of type `roberta`", mode)


@BOTH_MODES
@pytest.mark.parametrize("text", ["{}", "[]", '{"version": "1.0", "model": {"type": "Foo"}}'])
def test_a_tokenizer_file_that_is_none(model, mode, text):
    (model / "tokenizer.json").write_text(text)
    refused(model, "tokenizer of .* cannot be loaded", mode)


def test_an_empty_name_is_no_folder():
    with pytest.raises(UnknownNameError, match="unknown model id"):
        load_backbone("")


def test_an_empty_list_of_ends_is_the_tokenizers(model):
    edit_json(model / "generation_config.json", eos_token_id=[])
    assert load_backbone(model).llm.generation_config.eos_token_id == 2


def test_an_id_with_a_typo_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="`llama2-7b-pure`"):
        load_backbone("lama2-7b-pure")


def test_no_network():
    with pytest.raises(NetworkError, match="cannot be reached"):
        load_backbone("someone/not-cached")


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for repositories that one may not see."""

    def do_HEAD(self):
        code, error = {"gated": (403, "GatedRepo"), "absent": (401, "RepoNotFound")}[self.path.split("/")[1]]
        self.send_response(code)
        self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


def test_a_repository_that_needs_a_token():
    """A real request against a server that answers as the hub does; no token, and one that does not help."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "from vertebra.backbone.source import find\nfrom vertebra.errors import VertebraError\n"
        "for name, token in (('gated/model', None), ('absent/model', None), ('absent/model', 'hf_x')):\n"
        "    try: find(name, token=token)\n    except VertebraError as error: print(type(error).__name__, error)\n"
    )
    endpoint = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    server.shutdown()
    server.server_close()
    gated, absent, with_token = out.stdout.strip().splitlines()
    assert gated.startswith("CheckpointError `gated/model` is gated")
    assert "pass `hf_token=`" in absent
    assert "the token given cannot see it" in with_token


@BOTH_MODES
def test_an_index_names_files_of_its_own_folder_alone(model, mode):
    """What lies beside the folder is sound, so that whoever obeys the index loads it."""
    os.rename(model / "model.safetensors", model.parent / "outside.safetensors")
    names = list(load_file(model.parent / "outside.safetensors"))
    for name in ("../outside.safetensors", str(model.parent / "outside.safetensors"), "x/../../outside.safetensors"):
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(model, "lies outside its folder; it is not read", mode)
    for damaged in (None, [], {"a": None}, {"a": 1}, {"a": ["b"]}, {}):
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": damaged}))
        refused(model, "weight_map` of|names a file|names no shards", mode)


@BOTH_MODES
@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [1]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}',
        b'{"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [' + b"7" * 5000 + b'], "data_offsets": [0, 4]}}',
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=["list", "number", "no offsets", "one offset", "text", "backwards", "digits", "deep"],
)
def test_headers_whose_entries_are_no_tensors(model, mode, header):
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    refused(model, "damaged header|the header of", mode)


@BOTH_MODES
@pytest.mark.parametrize("ends", ["a", {"a": 1}, [[1]], [None, "2"], -1, 10**12, True, 0.5])
def test_ends_that_are_no_ids(model, mode, ends):
    edit_json(model / "generation_config.json", eos_token_id=ends)
    refused(model, "expected an id, or a list of ids", mode)


@BOTH_MODES
@pytest.mark.parametrize("name", ["tiny-gemma3", "tiny-gemma2", "tiny-gpt2", "tiny-qwen3", "tiny-llama2"])
def test_a_tokenizer_without_its_vocabulary_is_none(tmp_path, name, mode):
    """Of Gemma, five special tokens are left, and every text is id 3."""
    model = write_tiny(name, tmp_path / "model")
    (model / "tokenizer.json").unlink()
    refused(model, "has no tokenizer|has no vocabulary|cannot be loaded|has no fast tokenizer", mode)


@BOTH_MODES
@pytest.mark.parametrize("values", [{"num_hidden_layers": 10**9}, {"num_labels": 10**12}, {"num_hidden_layers": -1}])
def test_counts_that_nobody_could_build(model, mode, values):
    with pytest.raises(CheckpointError, match="expected 0 to"):
        load_backbone(model, config_overrides=values, **mode)
    edit_json(model / "config.json", **values)
    refused(model, "expected 0 to", mode)
