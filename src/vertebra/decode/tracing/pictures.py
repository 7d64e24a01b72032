"""Pictures of attention masks: who saw whom in one pass, read off what was handed to the model. Data, no drawing.

A mask that is given as nothing (`None`), or by padding alone, is drawn as the model itself understands it: causal, within
its window. Large ones are drawn coarser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from vertebra.sequence.masks import SLIDING, AttentionFacts

MOST = 64
"""Cells a side, at most."""


@dataclass
class MaskPicture:
    """One layer type's mask, for one row of the batch."""

    layers: str
    told: str
    """How the mask was given to the model."""
    shape: list[int]
    """Of what was handed over; [] for nothing."""
    queries: int
    keys: int
    first_key: int
    """The column of the first key: a window's cache has dropped those before."""
    cells: list[str]
    """A digit a cell: 0 nothing is seen, 9 all of it."""
    visible: int
    """How many (query, key) pairs see each other."""

    @property
    def caption(self) -> str:
        """In a line."""
        of = f"{self.queries} × {self.keys}"
        handed = f" {self.shape}" if self.shape else ""
        return f"{of}, {self.visible} of {self.queries * self.keys} pairs open; {self.told}{handed}"


def pictures(mask: Any, facts: AttentionFacts, *, cached: int, queries: int, row: int) -> list[MaskPicture]:
    """One picture a layer type."""
    made = []
    for name in facts.types:
        given = mask[name] if isinstance(mask, dict) else mask
        window = facts.window if name == SLIDING else None
        table, first, how = _table(given, window, facts, cached=cached, queries=queries, row=row)
        made.append(
            MaskPicture(
                layers=name.replace("_attention", ""),
                told=how,
                shape=[] if given is None else list(given.shape),
                queries=table.shape[0],
                keys=table.shape[1],
                first_key=first,
                cells=_cells(table),
                visible=int(table.sum()),
            )
        )
    return made


def _table(
    given: torch.Tensor | None, window: int | None, facts: AttentionFacts, *, cached: int, queries: int, row: int
) -> tuple[torch.Tensor, int, str]:
    """(who sees whom [Q, K], the column of the first key, how it was given)"""
    keys = cached + queries
    if given is not None and given.dim() == 4:
        one = given[row if given.shape[0] > 1 else 0, 0] == 0
        first = max(keys - one.shape[1], 0)
        return one.cpu(), first, "handed over as a mask of 0 and −max,"
    key, query = torch.arange(keys), torch.arange(cached, keys)[:, None]
    table = key <= query if facts.causal else torch.ones(queries, keys, dtype=torch.bool)
    if window is not None:
        table = table & (key > query - window)
    how = "no mask was handed over: looking back alone is what the model does by itself"
    if given is not None:
        table = table & given[row, :keys].bool().cpu()
        how = "handed over as a mask of padding,"
    return table, 0, how


def _cells(table: torch.Tensor) -> list[str]:
    rows, columns = table.shape
    shown = table.float()[None, None]
    if rows > MOST or columns > MOST:
        shown = F.adaptive_avg_pool2d(shown, (min(rows, MOST), min(columns, MOST)))
    digits = (shown[0, 0] * 9).ceil().int().tolist()
    return ["".join(map(str, line)) for line in digits]
