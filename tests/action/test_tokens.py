"""Tokens for actions: names, the free ones of a vocabulary, and those that are in use."""

from __future__ import annotations

import pytest

from vertebra.action.bins import uniform_bins
from vertebra.action.tokens import action_tokens, reserved_ids, token_ids
from vertebra.backbone.registry import load_backbone
from vertebra.errors import VocabularyError


def test_names():
    assert action_tokens(2) == ("<ACT>", "<ACT:0>", "<ACT:1>")
    assert action_tokens(2, opens=False) == ("<ACT:0>", "<ACT:1>")


@pytest.mark.parametrize(
    "spelled",
    ["<|reserved_special_token_{}|>", "<unused{}>", "[unused{}]", "<SPECIAL_{}>", "<|extra_{}|>", "<extra_id_{}>"],
)
def test_reserved_ones_of_every_spelling(spelled):
    vocabulary = {"</s>": 2, "cup": 3, **{spelled.format(n): 10 + n for n in range(8)}}
    assert reserved_ids(vocabulary, 3) == (15, 16, 17)
    assert reserved_ids(vocabulary, 3, special={16}) == (14, 15, 17)


@pytest.mark.parametrize(("name", "count"), [("tiny-llama3", 16), ("tiny-gemma2", 8), ("tiny-smollm3", 4)])
def test_those_that_families_keep(name, count):
    backbone = load_backbone(name)
    special = {backbone.pad_token_id, *backbone.eos_token_ids}
    ids = reserved_ids(backbone.tokenizer.get_vocab(), count, special=special)
    bins = uniform_bins(ids, special=special)
    assert len(bins) == count
    assert max(bins.allowed) < backbone.num_rows


def test_too_few():
    with pytest.raises(VocabularyError, match="4 reserved tokens are needed, and this vocabulary keeps 1 free"):
        reserved_ids({"<unused1>": 4, "word": 5}, 4)


def test_absent_names():
    with pytest.raises(VocabularyError, match="has no <ACT:1>"):
        token_ids({"<ACT>": 1, "<ACT:0>": 2}, action_tokens(2))
    assert token_ids({"<ACT>": 1, "<ACT:0>": 2}, action_tokens(1)) == (1, 2)
