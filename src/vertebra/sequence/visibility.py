"""Who may see whom: the exact rule, as one boolean table a batch.

    query i sees key j  when  both are real, of the same document, and
                              j <= i   or   both carry the same block > 0            (both ways inside a block)
                        and   key j is in no branch (block < 0), or in that of query i
                        and   attend(query, key) agrees, where a free rule is given
                        and   position[j] > position[i] - window, where a layer has a window

    blocks  0 1 1 0 2 2        a prefix that sees itself is block 1, a chunk of action slots block 2
            ■ · · · · ·
            ■ ■ ■ · · ·        The window hides what is too far behind; it never hides what lies ahead in the
            ■ ■ ■ · · ·        same block. This is how transformers itself treats image blocks in windowed layers.
            ■ ■ ■ ■ · ·
            ■ ■ ■ ■ ■ ■        Padding sees itself alone, so that no row of the table is empty.
            ■ ■ ■ ■ ■ ■

    blocks  0 0 -1 -1 -2 -2    two questions about one page: branches, none of which sees another (`branches`)
            ■ · · · · ·
            ■ ■ · · · ·
            ■ ■ ■ · · ·
            ■ ■ ■ ■ · ·
            ■ ■ · · ■ ·
            ■ ■ · · ■ ■

Legend: B rows, Q queries, K keys. Knows no models; `masks` brings the rule into the form that a model takes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vertebra.errors import SequenceError, did_you_mean
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed

_VIEWS = {
    "id": "input_ids",
    "role": "role",
    "type": "type",
    "block": "block",
    "document": "document",
    "position": "position_ids",
    "target": "targets",
    "weight": "weights",
}
"""What a free rule can ask a position, and the batch key that answers; `segment`, `slot` and `index` come on top."""


class VisibilitySide:
    """One side of the rule: a batch's vectors, shaped so that query and key broadcast against each other."""

    def __init__(self, batch: Batch, start: int, stop: int, dim: int) -> None:
        self._batch, self._start, self._stop, self._dim = batch, start, stop, dim

    def _shaped(self, vector: torch.Tensor) -> torch.Tensor:
        return vector[:, self._start : self._stop].unsqueeze(self._dim)

    def __getattr__(self, name: str) -> torch.Tensor:
        if name not in _VIEWS:
            known = [*_VIEWS, "segment", "slot", "index"]
            raise AttributeError(f"a position has no `{name}`; it has {', '.join(known)}.{did_you_mean(name, known)}")
        return self._shaped(self._batch[_VIEWS[name]])

    @property
    def segment(self) -> torch.Tensor:
        """Which segment's embedding fills the position (an index into `batch.segments`); -1: none."""
        return self._shaped(self._batch["slot"][..., 0])

    @property
    def slot(self) -> torch.Tensor:
        """The index inside its segment; -1 where no slot is."""
        return self._shaped(self._batch["slot"][..., 1])

    @property
    def index(self) -> torch.Tensor:
        """The place in the row, padding counted."""
        return self._shaped(torch.arange(self._batch.length, device=self._batch.device)[None])

    def fills(self, segment: str) -> torch.Tensor:
        """Whether an outside embedding of this name goes here."""
        names = tuple(self._batch["segments"])
        if segment not in names:
            return torch.zeros_like(self.segment, dtype=torch.bool)
        return self.segment == names.index(segment)


Attend = Callable[[VisibilitySide, VisibilitySide], torch.Tensor]
"""A free rule: `attend(query, key)` says for every pair whether the query may see the key."""


def allowed(
    batch: Batch, *, attend: Attend | None = None, window: int | None = None, first_query: int = 0
) -> torch.Tensor:
    """The table [B, Q, K] of who sees whom; queries begin at `first_query` (what lies before is cached)."""
    _check_window(window)
    query, key = VisibilitySide(batch, first_query, batch.length, 2), VisibilitySide(batch, 0, batch.length, 1)
    real = batch["attention_mask"].bool()
    real_q, real_k = real[:, first_query:, None], real[:, None, :]
    same_block = (query.block == key.block) & (query.block > 0)
    table = ((key.index <= query.index) | same_block) & (query.document == key.document) & real_q & real_k
    table &= (key.block >= 0) | (key.block == query.block)
    if attend is not None:
        table &= _free(attend, query, key, table)
    if window is not None:
        table &= key.position > query.position - window
    if attend is not None:
        _refuse_blind(table, real_q[..., 0], first_query)
    return table | ((query.index == key.index) & ~real_q)


def looks_ahead(batch: Batch, *, first_query: int = 0) -> torch.Tensor:
    """Whether any query of the batch sees a later key: a boolean scalar, on the batch's device.

    It does exactly where two of the queries share document and block: equal neighbors once these are sorted.
    """
    block, document = batch["block"][:, first_query:], batch["document"][:, first_query:]
    in_block = (block > 0) & batch["attention_mask"][:, first_query:].bool()
    alone = -1 - torch.arange(block.shape[1], device=batch.device)
    shared = torch.where(in_block, document.long() * (1 << 32) + block, alone).sort(1).values
    return (shared.diff(dim=1) == 0).any()


def _free(attend: Attend, query: VisibilitySide, key: VisibilitySide, table: torch.Tensor) -> torch.Tensor:
    answer = attend(query, key)
    if not isinstance(answer, torch.Tensor) or answer.dtype != torch.bool:
        came = f"{answer.dtype} tensor" if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise SequenceError(f"attend(query, key) returned a {came}; expected a boolean tensor [B, Q, K]")
    try:
        return answer.expand(table.shape)
    except RuntimeError:
        raise SequenceError(
            f"attend(query, key) returned shape {tuple(answer.shape)}; expected one that broadcasts to "
            f"{tuple(table.shape)} (rows, queries, keys)"
        ) from None


def _refuse_blind(table: torch.Tensor, real_q: torch.Tensor, first_query: int) -> None:
    """A query that sees nothing would attend to everything evenly, the future included: refuse it."""
    blind = real_q & ~table.any(-1)
    if bool(blind.any()):
        faults = [f"row {row}, index {column + first_query}" for row, column in blind.nonzero().tolist()]
        raise SequenceError(
            f"the rule leaves positions that see nothing, not even themselves: {listed(faults)}. Let each see at "
            "least itself: `… | (query.index == key.index)`."
        )


def _check_window(window: int | None) -> None:
    if window is not None and window < 1:
        raise SequenceError(f"a window of {window} positions; it must be at least 1, or None for no window")
