"""`Queries`: embeddings for slots that no outside item fills, such as the action slots of parallel decoding.

One row a slot of a chunk, learned or fixed. Rows that hold several chunks (packing) use them again from the first.
It knows no model.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from vertebra.errors import ConfigError, UnknownNameError
from vertebra.model.inject import Encoded
from vertebra.sequence.batch import Batch

Start = Literal["normal", "zeros"]
STARTS: tuple[Start, ...] = ("normal", "zeros")


class Queries(nn.Module):
    """`count` embeddings of the model's width; slot i of a segment takes row i, modulo `count`."""

    kind = "queries"
    place = "slots"
    added = False
    weight: torch.Tensor

    def __init__(self, count: int, width: int, *, start: Start = "normal", learned: bool = True) -> None:
        super().__init__()
        if count < 1 or width < 1:
            raise ConfigError(f"{count} queries of width {width}; both must be 1 or more")
        if start not in STARTS:
            raise UnknownNameError("start of queries", start, STARTS)
        self.count, self.width, self.start, self.learned = count, width, start, learned
        first = torch.zeros(count, width) if start == "zeros" else torch.randn(count, width)
        # what is fixed is no parameter, so that no stage can unfreeze it
        if learned:
            self.weight = nn.Parameter(first)
        else:
            self.register_buffer("weight", first)

    @property
    def slots(self) -> int:
        return self.count

    def settings(self) -> dict[str, Any]:
        return {"count": self.count, "width": self.width, "start": self.start, "learned": self.learned}

    @torch.no_grad()
    def bring_to_size(self, size: float) -> None:
        """Random queries get the RMS of token embeddings; zeros stay zeros."""
        if self.start == "normal":
            self.weight.mul_(size / self.weight.float().square().mean().sqrt())

    def fill(self, batch: Batch, segment: int) -> Encoded:
        """One embedding for every slot of the segment."""
        counts = (batch["slot"][..., 0] == segment).sum(1)
        rows = torch.arange(batch.rows, device=batch.device).repeat_interleave(counts)
        index = torch.arange(len(rows), device=batch.device) - (counts.cumsum(0) - counts)[rows]
        return Encoded(values=self.weight[index % self.count].unsqueeze(1), rows=rows)
