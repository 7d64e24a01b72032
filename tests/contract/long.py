"""Long answers: checkpoints with room for them, and the one full pass that a long answer is held against.

A plain loop without a cache takes a thousand passes of a thousand columns. One pass over what was said, a row at a
time, without padding, mask or cache, gives the logits before every token at once, and knows as little of decoding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from tests.decode.plain import MIXED, WINDOW
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY, write_tiny
from vertebra.decode.choose.sampling import drawn

POSITIONS = 2048
# One layer of each kind that the family has: what is wrong at a boundary is wrong in the first.
_TWO_KINDS = {
    "tiny-gemma2": {},
    "tiny-gemma3": {},
    "tiny-smollm3": {"no_rope_layers": [1, 0]},
    **{name: {"use_sliding_window": True, "sliding_window": WINDOW, **MIXED[name]} for name in MIXED},
    "tiny-smollm3+window": {
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "layer_types": ["full_attention", "sliding_attention"],
        "no_rope_layers": [1, 0],
    },
}
LONG = (*TINY, *MIXED)


@cache
def long_model(name: str, positions: int = POSITIONS):
    """A family with positions for long answers, in fp32."""
    overrides = {"max_position_embeddings": positions, "num_hidden_layers": 1 + (name in _TWO_KINDS)}
    with tempfile.TemporaryDirectory() as folder:
        made = write_tiny(name.partition("+")[0], Path(folder) / name, **{**overrides, **_TWO_KINDS.get(name, {})})
        return load_backbone(str(made), inference_mode=True, weights=True, dtype="float32")


@torch.inference_mode()
def taught(model, prompt: Sequence[int], generated: Sequence[int]) -> torch.Tensor:
    """[T, V] before each token that was said."""
    ids = torch.tensor([[*prompt, *generated]])
    return model.llm(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()


def near(made: torch.Tensor, plain: torch.Tensor) -> None:
    """Logits of every step; the first that differs is named."""
    gap = (made - plain).abs().amax(-1) / plain.abs().amax(-1)
    wrong = (~(gap < 2e-5)).nonzero()[:, 0].tolist()
    assert not wrong, f"{len(wrong)} of {len(gap)} steps differ, the first at {wrong[0]}: {gap[wrong[0]]:.2e}"


def is_greedy(generated: Sequence[int], plain: torch.Tensor) -> None:
    """Every token is the likeliest, or equal to it but for rounding."""
    best = plain.max(-1).values
    own = plain.gather(1, torch.tensor(generated)[:, None])[:, 0]
    assert bool((own >= best - 2e-5 * plain.abs().amax(-1)).all())


def is_drawn(generated: Sequence[int], plain: torch.Tensor, seed: int) -> None:
    """Every token is the one that its number points to, or the number lies within rounding of the edge between two."""
    numbers = torch.rand(len(generated), generator=torch.Generator().manual_seed(seed))[:, None]
    tokens = torch.tensor(generated)
    low, high = (drawn(plain, (numbers + shift).clamp(0, 1 - 1e-7))[0] for shift in (-1e-4, 1e-4))
    assert bool(((low <= tokens) & (tokens <= high)).all())
    exact = drawn(plain, numbers)[0]
    assert float((exact == tokens).float().mean()) > 0.99
