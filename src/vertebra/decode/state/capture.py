"""Which steps and layers of hidden states or attentions to keep: chosen ones are kept, all others freed at once.

    Capture(steps=[0, 5], layers=[-1])       the prompt's pass and the sixth, the last layer of each

Step 0 is the pass over the prompt, (B, its length, width); later ones see one position each, (B, 1, width). Layer 0 of
hidden states is the embeddings, the last one stands after the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vertebra.errors import GenerationError


@dataclass(frozen=True, kw_only=True)
class Capture:
    """What to keep; None: every step, every layer. Layers may count from the end, as -1."""

    steps: Sequence[int] | None = None
    layers: Sequence[int] | None = None

    def at(self, step: int) -> bool:
        return self.steps is None or step in self.steps

    def pick(self, layers: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The chosen layers of one pass."""
        if self.layers is None:
            return tuple(layers)
        wrong = [layer for layer in self.layers if not -len(layers) <= layer < len(layers)]
        if wrong:
            raise GenerationError(f"layers {wrong} are asked for; this pass has the layers 0 to {len(layers) - 1}")
        return tuple(layers[layer] for layer in self.layers)


def capture_of(asked: bool | Capture) -> Capture | None:
    """None: keep nothing; True: everything."""
    if isinstance(asked, Capture):
        return asked
    return Capture() if asked else None
