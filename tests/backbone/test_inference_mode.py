"""Inference mode: a structure without weights, then weights that are mapped in; nothing is left on meta."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY, tiny_checkpoint, write_tiny
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.backbone.weights import left_on_meta, parameters_on_meta
from vertebra.errors import BackboneError, CheckpointError, FingerprintError


def digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.mark.parametrize("name", list(TINY))
def test_mapped_weights_equal_pretrained_ones(shared, ids, name):
    pretrained = shared(name)
    mapped = load_backbone(name, inference_mode=True, dtype="float32")
    assert left_on_meta(mapped.llm)
    report = mapped.load_weights()
    assert not left_on_meta(mapped.llm)
    assert report.rows == "base"
    row = ids(pretrained)
    with torch.no_grad():
        torch.testing.assert_close(mapped(row).logits, pretrained(row).logits, atol=0, rtol=0)
    for (label, one), (_, other) in zip(
        pretrained.llm.named_buffers(), mapped.llm.named_buffers(), strict=True
    ):  # rotary tables, embedding scales
        assert torch.equal(one, other), label


def test_a_forward_before_the_weights_is_a_clear_error(ids):
    backbone = load_backbone("tiny-llama2", inference_mode=True)
    for call in (backbone, backbone.embed_input_ids):
        with pytest.raises(BackboneError, match="load_weights"):
            call(ids(backbone))
    with pytest.raises(BackboneError, match="no weights yet"):
        backbone.save("nowhere")


def test_weights_assigned_by_a_state_dict_count_too(shared, ids):
    backbone = load_backbone("tiny-llama2", inference_mode=True, dtype="float32")
    backbone.llm.load_state_dict(shared("tiny-llama2").llm.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(backbone(ids(backbone)).logits, shared("tiny-llama2")(ids(backbone)).logits)


def test_grown_rows_are_taken_and_base_rows_grown_again(shared, tmp_path):
    """The same structure takes a checkpoint from before and from after the growth, and says which it was."""
    trained = load_backbone("tiny-llama2", dtype="float32")
    with torch.no_grad():  # as if it had been trained: now the new rows are not what a replay would write
        trained.llm.get_input_embeddings().weight[960] += 1.0
    trained.save(tmp_path / "grown")
    reloaded = load_backbone(tmp_path / "grown", inference_mode=True, dtype="float32")
    report = reloaded.load_weights()
    assert (report.rows, report.replayed, report.rows_in_file) == ("grown", 0, 1024)
    assert "grown rows" in str(report)
    assert torch.equal(reloaded.llm.lm_head.weight, trained.llm.lm_head.weight)
    assert torch.equal(reloaded.llm.get_input_embeddings().weight, trained.llm.get_input_embeddings().weight)

    again = load_backbone(tmp_path / "grown", inference_mode=True, dtype="float32")
    report = again.load_weights(tiny_checkpoint("tiny-llama2"))
    assert (report.rows, report.replayed, report.rows_in_file) == ("base", 1, 960)
    fresh = load_backbone("tiny-llama2", dtype="float32")
    assert torch.equal(again.llm.get_input_embeddings().weight, fresh.llm.get_input_embeddings().weight)
    assert torch.equal(again.llm.lm_head.weight, fresh.llm.lm_head.weight)


@pytest.mark.parametrize("name", ["tiny-qwen2.5", "tiny-gemma2"])
def test_growth_into_spare_rows_or_tied_rows_is_replayed_the_same(name, tmp_path):
    """Qwen has spare rows: the number of rows cannot tell whether a file has seen the growth; the folder does."""
    trained = load_backbone(name, dtype="float32")
    grow_vocabulary(trained, ["<ACT>", "<GRIP>"])
    trained.save(tmp_path / "grown")
    structure = load_backbone(tmp_path / "grown", inference_mode=True, dtype="float32")
    assert structure.load_weights(tiny_checkpoint(name)).rows == "base"
    assert torch.equal(structure.llm.get_input_embeddings().weight, trained.llm.get_input_embeddings().weight)
    assert torch.equal(structure.llm.lm_head.weight, trained.llm.lm_head.weight)
    assert structure.load_weights(tmp_path / "grown").rows == "grown"


def test_training_a_mapped_model_leaves_the_file_alone(tmp_path):
    folder = write_tiny("tiny-llama2", tmp_path / "m")
    before = digest(folder)
    backbone = load_backbone(folder, inference_mode=True, weights=True, dtype="float32")
    with torch.no_grad():
        for parameter in backbone.llm.parameters():
            parameter.add_(1.0)
    assert digest(folder) == before


def test_a_cast_while_loading(shared, ids):
    backbone = load_backbone("tiny-llama2", inference_mode=True, weights=True, dtype="bfloat16")
    assert {p.dtype for p in backbone.llm.parameters()} == {torch.bfloat16}


def test_other_spellings_of_the_same_tensors(shared, ids, tmp_path):
    """A checkpoint of a larger model: OpenVLA's `language_model.`, prismatic's `llm_backbone.llm.`."""
    folder = write_tiny("tiny-llama2", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    expected = shared("tiny-llama2")
    for prefix in ("language_model.", "llm_backbone.llm.", "llm."):
        renamed = {prefix + name: value for name, value in tensors.items()} | {"projector.fc1.weight": torch.ones(2, 2)}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        backbone = load_backbone(folder, inference_mode=True, weights=True, dtype="float32")
        with torch.no_grad():
            logits = backbone(ids(expected)).logits[..., :960]
            assert torch.equal(logits, expected(ids(expected)).logits[..., :960]), prefix


def test_missing_and_misshapen_tensors_are_all_named_and_nothing_is_loaded(tmp_path):
    folder = write_tiny("tiny-llama2", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    backbone = load_backbone(folder, inference_mode=True)
    rows = backbone.num_rows
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight") as caught:
        backbone.load_weights()
    assert "model.layers.0.mlp.up_proj.weight is (3, 3)" in str(caught.value)
    assert len(left_on_meta(backbone.llm)) == len(list(backbone.llm.parameters()))
    assert backbone.num_rows == rows


def test_weights_that_were_there_survive_a_load_that_fails(tmp_path, ids):
    backbone = load_backbone("tiny-llama2", inference_mode=True, weights=True, dtype="float32")
    row = ids(backbone)
    broken = write_tiny("tiny-llama2", tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(1, 64)
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with torch.no_grad():
        before = backbone(row).logits
        with pytest.raises(CheckpointError, match="nothing was loaded"):
            backbone.load_weights(broken)
        assert torch.equal(backbone(row).logits, before)
    assert backbone.num_rows == backbone.llm.config.vocab_size == before.shape[-1]


def test_rows_that_fit_no_growth(tmp_path):
    backbone = load_backbone("tiny-llama2", inference_mode=True)
    with pytest.raises(CheckpointError, match="960 or 1024"):
        backbone.load_weights(write_tiny("tiny-llama2", tmp_path / "m", vocab_size=1000))


def test_another_tokenizer_is_refused_with_the_probes_that_differ(tmp_path):
    load_backbone("tiny-qwen2", dtype="float32").save(tmp_path / "other")
    backbone = load_backbone("tiny-qwen3", inference_mode=True)
    with pytest.raises(FingerprintError, match="probes differ"):
        backbone.load_weights(tmp_path / "other")


def test_parameters_on_meta_restores_the_constructor():
    before = torch.nn.Module.register_parameter
    with parameters_on_meta():
        assert torch.nn.Linear(2, 2).weight.is_meta
    with pytest.raises(TypeError), parameters_on_meta():
        torch.nn.Linear("not", "sizes")
    assert torch.nn.Module.register_parameter is before
    assert not torch.nn.Linear(2, 2).weight.is_meta
