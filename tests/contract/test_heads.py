"""Action heads on every family: a batch is one by one, everything learns; families that keep no keys are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen3NextConfig

from tests.model import test_flow, test_heads
from tests.model.models import close
from vertebra.backbone.kept import keeping, kept, key_shape, rotary_theta
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY
from vertebra.decode.actions import predict
from vertebra.errors import BackboneError
from vertebra.training.learner import Learner


@pytest.mark.parametrize("made", [test_heads, test_flow], ids=["l1", "flow"])
@pytest.mark.parametrize("name", TINY)
def test_every_family_acts(name: str, made: Any):
    model = made.acting(name)
    Learner(model)(**made.batch_of(model, *made.ROWS))["loss"].backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    model.eval()
    rows = [made.row(length, length)[0] for length in (5, 12, 3)]  # longer than the window of those that have one
    together = predict(model, rows)
    for number, row in enumerate(rows):
        close(together[number], predict(model, row)[0])


@pytest.mark.parametrize("name", TINY)
def test_the_shape_of_keys_is_known_without_weights(name: str):
    backbone = load_backbone(name, dtype="float32")
    cache = keeping(backbone.llm)
    backbone.llm(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
    keys = kept(cache)
    count, heads, width = key_shape(backbone.llm.config)
    assert len(keys) == count
    assert {tuple(table.shape) for pair in keys for table in pair} == {(1, heads, 3, width)}
    theta = rotary_theta(backbone.llm.config)
    assert (theta is None) == (backbone.llm_family in ("opt", "gpt2") or name in ("tiny-phi2", "tiny-pythia"))


def test_running_states_are_no_keys():
    llm = SimpleNamespace(config=Qwen3NextConfig(num_hidden_layers=4))
    with pytest.raises(BackboneError, match="keep no keys and values of each position"):
        keeping(llm)


def test_a_pass_that_kept_nothing_is_noticed():
    with pytest.raises(BackboneError, match=r"layers \[0, 1\] kept nothing"):
        kept(keeping(load_backbone("tiny-llama2", dtype="float32").llm))
