"""Which base an adapter belongs to: the same in any type, another when a weight changed, known even when packed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.tune.models import backbone
from vertebra.backbone.tiny import TINY
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.errors import CheckpointError
from vertebra.tune.fingerprint import base_print, check_base
from vertebra.tune.parts import parts_of


def test_an_adapter_of_a_packed_base_knows_the_base_unpacked():
    """What bitsandbytes leaves alone tells; the packed matrices cannot."""
    whole = base_print(parts_of(backbone()))
    packed = replace(whole, digest="packed", quantized=True)
    assert check_base(parts_of(backbone()), packed, who="a").light == whole.light
    for other in ("tiny-mistral", "tiny-llama3"):
        with pytest.raises(CheckpointError, match="this is another base"):
            check_base(parts_of(backbone(other)), packed, who="a")


@pytest.mark.parametrize("name", TINY)
def test_a_base_is_the_same_in_whichever_type_it_is_loaded(name: str):
    wide, narrow = (base_print(parts_of(backbone(name, dtype=dtype))) for dtype in ("float32", "bfloat16"))
    assert wide == narrow


def test_rows_of_added_tokens_are_not_the_bases():
    model = backbone()
    before = base_print(parts_of(model))
    grow_vocabulary(model, ["<ACT>"])
    assert base_print(parts_of(model)) == before


def test_one_changed_weight_is_another_base():
    model = backbone()
    before = base_print(parts_of(model))
    with torch.no_grad():
        model.llm.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    assert base_print(parts_of(model)).digest != before.digest
