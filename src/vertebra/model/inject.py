"""The only place where outside embeddings enter a sequence, as a pure function of (row, absolute position).

    batch.slot          -   image 0  image 1   -     -   boxes 0   -        `place` turns what the encoders made into
    where              -1      0        1     -1    -1      2     -1        one table a row: which value goes where
                       ───────────────────────────────────────────
    first forward      [ 0 : 5 )      start 0, what it covers is injected
    second                              [ 5 : 7 )   start 5: the slice that begins at the cache's length
    every later step                            beyond the table: nothing to do, by nature and not by a flag

So cutting a prompt in two, decoding on, expanding rows to beams or going back to ask again cannot inject anything
twice or in another row. Nothing is remembered on a module, and no tensor is changed in place.

Legend: B rows, L positions of the table, n positions of one forward, N values, D width of the embedding matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from vertebra.errors import InjectionError, UnknownNameError
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What one segment's encoder and projector made of its items."""

    values: torch.Tensor
    """[M, k, D]: M items, k embeddings each."""
    rows: torch.Tensor
    """[M] the batch row of each item."""
    added: bool = False
    """Added to the tokens that they belong to, instead of standing in their place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Injection:
    """The table: which outside embedding goes to which position. Made by `place`, used by `inject`."""

    where: torch.Tensor
    """[B, L] an index into `values`; -1: the token's own embedding stays."""
    values: torch.Tensor
    """[N, D] all outside embeddings of the batch; rows without any have none here."""
    added: torch.Tensor | None = None
    """[N] which values are added to the token's own embedding; None: all stand in its place."""

    @property
    def rows(self) -> int:
        return self.where.shape[0]

    @property
    def length(self) -> int:
        """Positions that the table covers; whatever lies beyond is left as it is."""
        return self.where.shape[1]

    def select(self, rows: Sequence[int] | torch.Tensor) -> Injection:
        """These rows in this order, repeated where named twice (beams, forks); the values are shared, not copied."""
        return Injection(
            where=self.where[torch.as_tensor(rows, device=self.where.device)], values=self.values, added=self.added
        )

    def dense(self) -> tuple[torch.Tensor, torch.Tensor]:
        """mask [B, L] and embeddings [B, L, D] (zero where the mask is): for code that wants one tensor a row."""
        mask = self.where >= 0
        embeds = self.values.new_zeros((*self.where.shape, self.values.shape[1]))
        return mask, embeds.index_put((mask,), self.values[self.where[mask]])


def inject(embeds: torch.Tensor, injection: Injection | None, *, start: int = 0) -> torch.Tensor:
    """Token embeddings [B, n, D] of positions `start:start + n`, with what the table says of them put in.

    Returns `embeds` itself where the table says nothing of this stretch; otherwise a new tensor, never a changed one.
    """
    if injection is None or start >= injection.length or not len(injection.values):
        return embeds
    if start < 0:
        raise InjectionError(f"start is {start}; it is the cache's length, 0 or more")
    _check_fit(embeds, injection)
    where = injection.where[:, start : start + embeds.shape[1]]
    rows, columns = (where >= 0).nonzero(as_tuple=True)
    chosen = where[rows, columns]
    values = injection.values[chosen].to(embeds.dtype)
    if injection.added is not None:
        own = embeds[rows, columns]
        values = torch.where(injection.added[chosen, None], own + values, values)
    return embeds.index_put((rows, columns), values)


def place(batch: Batch, encoded: Mapping[str, Encoded], *, width: int) -> Injection:
    """The table of a batch from what its segments' encoders made. One error lists every row that does not fit.

    A row's slots of a segment are filled by its own items in order: slot (segment, i) takes the i-th embedding of
    the row. A segment whose slots nobody fills keeps the embeddings of its reserved tokens (`encoded` lacks it).
    """
    names = tuple(batch["segments"])
    for name in encoded:
        if name not in names:
            raise UnknownNameError("segment", name, names, hint="The batch has no slots of it.")
    where = torch.full_like(batch["input_ids"], -1)
    faults: list[str] = []
    flat: list[torch.Tensor] = []
    total = 0
    for name, made in encoded.items():
        _check_values(name, made, batch, width)
        faults += _count_faults(name, made, batch, names.index(name))
        if faults:
            continue
        values, index = _aligned(made, batch, names.index(name))
        where = torch.where(index >= 0, index + total, where)
        flat.append(values)
        total += len(values)
    if faults:
        raise InjectionError(f"outside embeddings do not fit their slots: {listed(faults)}")
    if not flat:
        return Injection(where=where, values=torch.empty(0, width, device=where.device))
    return Injection(where=where, values=torch.cat(flat), added=_added(encoded, flat))


def _added(encoded: Mapping[str, Encoded], flat: Sequence[torch.Tensor]) -> torch.Tensor | None:
    if not any(made.added for made in encoded.values()):
        return None
    flags = [
        torch.full((len(values),), made.added, device=values.device)
        for made, values in zip(encoded.values(), flat, strict=True)
    ]
    return torch.cat(flags)


def _aligned(made: Encoded, batch: Batch, segment: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values in row order [N, D], and for every position its index into them (-1: no slot of this segment)."""
    order = made.rows.argsort(stable=True)
    values = made.values[order].flatten(0, 1)
    per_row = torch.bincount(made.rows, minlength=batch.rows) * made.values.shape[1]
    base = per_row.cumsum(0) - per_row
    slot = batch["slot"]
    return values, torch.where(slot[..., 0] == segment, slot[..., 1] + base[:, None], -1)


def _check_values(name: str, made: Encoded, batch: Batch, width: int) -> None:
    values, rows, device = made.values, made.rows, batch["input_ids"].device
    if values.device != device or rows.device != device:
        raise InjectionError(
            f"`{name}` is on {values.device} (its rows on {rows.device}) and the batch on {device}; move the whole batch "
            "with `batch.to(device)`, and the model with `model.to(device)`"
        )
    if values.ndim != 3 or rows.shape != values.shape[:1] or rows.dtype != torch.long:
        raise InjectionError(
            f"`{name}` has values of shape {tuple(values.shape)} and rows {rows.dtype} of shape {tuple(rows.shape)}; "
            f"expected [items, embeddings of one item, {width}] and one whole number an item"
        )
    if not values.is_floating_point():
        raise InjectionError(f"`{name}` has embeddings of {values.dtype}; expected a floating-point type")
    if values.shape[-1] != width:
        raise InjectionError(
            f"`{name}` has embeddings of width {values.shape[-1]}; the embedding matrix has {width} columns. Give the "
            f"projector width_out={width}"
        )


def _count_faults(name: str, made: Encoded, batch: Batch, segment: int) -> list[str]:
    """Every row that has more or fewer embeddings than slots, or whose slots do not name each of them once."""
    here = batch["slot"][..., 0] == segment
    inside = (made.rows >= 0) & (made.rows < batch.rows)
    slots = here.sum(1)
    items = torch.bincount(torch.where(inside, made.rows, batch.rows), minlength=batch.rows + 1)[: batch.rows]
    of_one = made.values.shape[1]
    index = torch.where(here, batch["slot"][..., 1], batch.length).sort(1).values
    expected = torch.arange(batch.length, device=index.device)
    each_once = ((index == expected) | (expected >= slots[:, None])).all(1)
    # one look for the whole batch; what exactly is wrong is found out only where something is
    if bool(inside.all() & (slots == items * of_one).all() & each_once.all()):
        return []
    faults = [
        f"`{name}` has an item of row {row} in a batch of {batch.rows} rows" for row in made.rows[~inside].tolist()
    ]
    for row, (have, needed, once) in enumerate(zip(items.tolist(), slots.tolist(), each_once.tolist(), strict=True)):
        if have * of_one != needed:
            count = f"{have} items of `{name}`, {of_one} embeddings each," if have else f"no item of `{name}`"
            faults.append(f"row {row} has {count} for {needed} slots")
        elif not once:
            found = sorted(batch["slot"][row, here[row], 1].tolist())
            faults.append(
                f"row {row}: the {needed} slots of `{name}` name {found[:8]} …, not each of 0..{needed - 1} once"
            )
    return faults


def _check_fit(embeds: torch.Tensor, injection: Injection) -> None:
    values = injection.values
    if embeds.ndim != 3 or embeds.shape[0] != injection.rows or embeds.shape[2] != values.shape[1]:
        raise InjectionError(
            f"token embeddings of shape {tuple(embeds.shape)} for a table of {injection.rows} rows and width "
            f"{values.shape[1]}. Rows that were repeated or reordered need `injection.select(rows)`"
        )
    if embeds.device != values.device:
        raise InjectionError(
            f"token embeddings are on {embeds.device} and outside embeddings on {values.device}; move batch and model "
            "to one device"
        )
