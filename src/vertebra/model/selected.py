"""Logits at chosen positions only: the model's own head, run on those and on no others.

Training on answers needs the logits of a third of the positions, actions of a few; the head is the most expensive
layer of a small model and its output the largest tensor of any. The model's own forward is used, so that whatever it
does to logits (a cap, a scale, a bias) is done. It knows no outside embeddings.

Legend: B rows, n positions of one forward, N chosen positions, V rows of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vertebra.backbone.head import entering_head
from vertebra.errors import SequenceError
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed


@dataclass(frozen=True, kw_only=True, eq=False)
class Positions:
    """N chosen positions of a forward: `rows[i]`, `columns[i]`."""

    rows: torch.Tensor
    columns: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, pair: tuple[torch.Tensor, torch.Tensor], batch: Batch, start: int) -> Positions:
        """(rows, columns) of a batch whose first `start` columns are cached, checked."""
        rows, columns = (torch.as_tensor(part, device=batch.device) for part in pair)
        if rows.ndim != 1 or rows.shape != columns.shape or rows.dtype != torch.long or columns.dtype != torch.long:
            raise SequenceError(
                f"positions are rows {rows.dtype} {tuple(rows.shape)} and columns {columns.dtype} {tuple(columns.shape)}; "
                "expected two lists of as many whole numbers, such as `mask.nonzero(as_tuple=True)`"
            )
        wrong = (rows < 0) | (rows >= batch.rows) | (columns < start) | (columns >= batch.length)
        if bool(wrong.any()):
            faults = [
                f"({row}, {column})" for row, column in zip(rows[wrong].tolist(), columns[wrong].tolist(), strict=True)
            ]
            raise SequenceError(
                f"positions {listed(faults)} lie outside of rows 0..{batch.rows - 1} and columns {start}..{batch.length - 1}"
            )
        return cls(rows=rows, columns=columns - start)

    @classmethod
    def last(cls, keep: int | torch.Tensor, rows: int, length: int, device: torch.device) -> Positions:
        """The columns that `logits_to_keep` names, in every row."""
        index = torch.arange(length, device=device)[-keep:] if isinstance(keep, int) else keep.to(device)
        return cls(rows=torch.arange(rows, device=device).repeat_interleave(len(index)), columns=index.repeat(rows))


def head_outputs(
    run: Callable[..., Any],
    llm: Any,
    *,
    supervised: Positions | None,
    positions: Positions | None,
    keep: int | torch.Tensor | None,
    shape: tuple[int, int],
) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
    """One forward: (its output, the logits that were asked for, the logits of the supervised positions).

    `run(keep)` is the forward with `logits_to_keep`. The head runs once, on the union of what is needed.
    """
    if positions is not None and keep is not None:
        raise SequenceError("`positions` and `logits_to_keep` both say which logits to make; give one of them")
    if supervised is None and positions is None:
        out = run(0 if keep is None else keep)
        return out, out.logits, None
    if isinstance(keep, int) and keep == 0:
        out = run(0)
        return out, out.logits, None if supervised is None else out.logits[supervised.rows, supervised.columns]
    asked = positions
    if asked is None and keep is not None:
        asked = Positions.last(keep, *shape, llm.device)
    groups = [group for group in (supervised, asked) if group is not None]
    rows, columns = (torch.cat([getattr(group, name) for group in groups]) for name in ("rows", "columns"))
    with entering_head(llm, lambda hidden: hidden[rows, columns].unsqueeze(0)):
        out = run(0)
    made = list(out.logits[0].split([len(group) for group in groups]))
    losing = made.pop(0) if supervised is not None else None
    logits = made.pop() if made else None
    if logits is not None and keep is not None:
        logits = logits.unflatten(0, (shape[0], -1))
    return out, logits, losing
