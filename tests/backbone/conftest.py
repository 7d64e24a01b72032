"""Tiny backbones for these tests, loaded once a session; a test that changes one loads its own."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from vertebra.backbone.causal import HFCausalLLMBackbone
from vertebra.backbone.registry import load_backbone


@cache
def _shared(name: str, inference_mode: bool) -> HFCausalLLMBackbone:
    options = {"inference_mode": True, "weights": True} if inference_mode else {}
    return load_backbone(name, dtype="float32", **options).eval()


@pytest.fixture
def shared():
    """`shared("tiny-gpt2")`: a backbone that a test may read and run, and must leave as it was."""
    return lambda name, inference_mode=False: _shared(name, inference_mode)


@pytest.fixture
def ids():
    """Ids of a short text, one row."""

    def encode(backbone: HFCausalLLMBackbone, text: str = "Pick up the red block, then stop.") -> torch.Tensor:
        return torch.tensor([backbone.tokenizer(text).input_ids])

    return encode
