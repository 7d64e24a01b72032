"""An adapter is a detour with the same end: it begins as the model that it stands on, and merges into what it was."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tune.models import backbone, some_ids, train_a_little
from vertebra.backbone.head import head_of
from vertebra.backbone.tiny import TINY
from vertebra.backbone.vocabulary import grow_vocabulary, new_row_ids
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.lora import LoraConfig
from vertebra.tune.merge import merge, merge_in_place, probe_logits
from vertebra.tune.stages import TuneConfig, choose


def grown(name: str, *, tied: bool = False) -> Any:
    """A model with new tokens; where its head has a bias (Phi), one of numbers that count."""
    model = backbone(name)
    head = model.llm.get_output_embeddings()
    if tied:
        model.llm.config.tie_word_embeddings = True
        head.weight = model.llm.get_input_embeddings().weight
    if getattr(head, "bias", None) is not None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            head.bias.copy_(torch.randn(head.bias.shape, generator=generator))
    grow_vocabulary(model, ["<ACT>", "<B>"])
    return model


def furthest(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference, as a share of the largest logit."""
    pairs = list(zip(found, expected, strict=True))
    return max(float((a - b).abs().max()) for a, b in pairs) / max(float(b.abs().max()) for _, b in pairs)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("new_tokens", [True, False], ids=["rows", "no rows"])
def test_before_training_it_moves_no_logit_and_merges_into_what_it_was(name: str, new_tokens: bool):
    model = grown(name).eval()
    expected = probe_logits(model)
    choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2, new_tokens=new_tokens)))
    assert furthest(probe_logits(model.eval()), expected) < 1e-6
    train_a_little(model)
    model.double()  # these steps are large: some models amplify every rounding in fp32
    trained = probe_logits(model)
    assert furthest(trained, expected) > 1e-4, "the steps changed nothing, so that the merge would show nothing"
    merge_in_place(model)
    assert furthest(probe_logits(model), trained) < 1e-6


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_biased_head_keeps_its_bias(tied: bool):
    model = grown("tiny-phi2", tied=tied)
    expected = probe_logits(model.eval())
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    assert furthest(probe_logits(model.eval()), expected) < 1e-6
    with adapter.language.disable_adapter():
        assert furthest(probe_logits(model), expected) < 1e-6
    assert head_of(model.llm).plain, "the trainer would run the head whole, and slowly"
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert furthest(probe_logits(twin), expected) < 1e-6


def test_the_bias_is_there_in_training_too():
    """The gradients of an untrained adapter beside a plain model's, row by row: the twin trains whole tables."""
    plain, model = grown("tiny-phi2"), grown("tiny-phi2")
    choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    ids = some_ids(model, "Pick up <ACT> the red block, <B> then stop.")
    for one in (plain, model):
        one.eval()(input_ids=ids, labels=ids).loss.backward()
    delta = model.llm.get_output_embeddings().token_adapter.trainable_tokens_delta["default"]
    expected = plain.llm.get_output_embeddings().weight.grad[new_row_ids(model)]
    assert torch.allclose(delta.grad, expected, atol=1e-6 * float(expected.abs().max()))


def test_a_biased_head_comes_back_and_merges(tmp_path: Path):
    model = backbone("tiny-phi2")
    assert bool(model.llm.lm_head.bias.any())
    grow_vocabulary(model, ["<ACT>"])
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    train_a_little(model)
    expected = probe_logits(model)
    folder = save_adapter(model, adapter, tmp_path / "adapter")
    again, _ = load_adapter("tiny-phi2", folder, dtype="float32")
    assert all(torch.equal(a, b) for a, b in zip(probe_logits(again.eval()), expected, strict=True))
    assert merge("tiny-phi2", folder, tmp_path / "merged", dtype="float32").good
    assert furthest(probe_logits(backbone(str(tmp_path / "merged")).eval()), expected) < 1e-4


def test_one_that_was_trained_without_the_bias_stays_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A folder that does not tell of the bias is older, or PEFT's: its twin is a model whose bias is zero."""
    twin, model = backbone("tiny-phi2"), backbone("tiny-phi2")
    for one in (twin, model):
        grow_vocabulary(one, ["<ACT>"])
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    folder = save_adapter(model, adapter, tmp_path / "adapter")
    record = json.loads((folder / "vertebra.json").read_text())
    assert record["adapter"].pop("head_bias")
    (folder / "vertebra.json").write_text(json.dumps(record))
    with torch.no_grad():
        twin.llm.lm_head.bias.zero_()
    caplog.set_level("WARNING", "vertebra")
    found, loaded = load_adapter("tiny-phi2", folder, dtype="float32")
    assert "without the head's bias" in caplog.text
    expected = probe_logits(twin.eval())
    assert furthest(probe_logits(found.eval()), expected) < 1e-6
    again = json.loads((save_adapter(found, loaded, tmp_path / "again") / "vertebra.json").read_text())
    assert again["adapter"]["head_bias"] is False
    merge_in_place(found)
    assert furthest(probe_logits(found), expected) < 1e-5
