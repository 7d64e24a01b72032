"""A probe that shows whether a model really attends as a batch says: it changes one input and looks who noticed.

A mask that a kernel drops in silence (both-ways attention lost under eager, a window replaced by a 4-D mask) gives
plausible numbers and no error. So: change what goes in at one position; the outputs of exactly those positions that
see it, directly or through others, may change, and those that see it directly must. Takes a callable; knows no models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vertebra.errors import BackboneError, SequenceError
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed
from vertebra.sequence.visibility import Attend, allowed

Forward = Callable[[torch.Tensor], torch.Tensor]
"""Inputs [B, L, D] to outputs [B, L, …]: a model's forward from embeddings, with the batch's mask already in it."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one change did, in relation to the size of the outputs."""

    row: int
    changed: int
    """The index whose input was changed."""
    must: tuple[int, ...]
    """Other indices that see it directly."""
    least_seen: float
    """The smallest change among `must`; 1.0 where there are none."""
    most_leaked: float
    """The largest change where none may be; 0.0 where there are no such positions."""
    missed: tuple[int, ...]
    """Indices that see it and did not notice."""
    leaked: tuple[int, ...]
    """Indices that must not see it and noticed."""


@torch.no_grad()
def mask_takes_effect(
    forward: Forward,
    inputs: torch.Tensor,
    batch: Batch,
    *,
    attend: Attend | None = None,
    window: int | None = None,
    layers: int | None = None,
    positions: Sequence[tuple[int, int]] | None = None,
    tolerance: float = 1e-6,
) -> list[Effect]:
    """Change inputs one at a time; raise `BackboneError` unless exactly those that may see a change notice it.

    `positions` are (row, index) pairs; by default the last position of every both-ways block (its earlier ones must
    notice; under causal attention they would not) and of every branch (none outside may) and, in each row, the last real
    position (none before it may).
    `window` is that of a model whose every layer has it (None where some see everything). A change travels from layer
    to layer: with `layers` the probe knows how far, and so can tell a window that was lost.
    """
    if inputs.ndim != 3 or inputs.shape[:2] != batch["input_ids"].shape or not inputs.is_floating_point():
        raise SequenceError(
            f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; expected embeddings [{batch.rows}, "
            f"{batch.length}, D]"
        )
    direct = allowed(batch, attend=attend, window=window)
    through = _through(direct, layers)
    before = forward(inputs)
    if not bool(torch.isfinite(before[batch["attention_mask"].bool()]).all()):
        raise BackboneError("the outputs hold NaN or infinite values before anything was changed")
    effects = [
        _effect(forward, inputs, before, direct, through, row, index, batch, tolerance)
        for row, index in (_default_positions(batch) if positions is None else positions)
    ]
    faults = [_fault(effect) for effect in effects if effect.missed or effect.leaked]
    if faults:
        raise BackboneError(
            f"attention is not what the batch describes: {listed(faults)}. The kernel dropped or replaced the mask; load "
            'the model with another (attn="sdpa" or "eager"), and hand on all that the plan gives.'
        )
    return effects


def _effect(
    forward: Forward, inputs: torch.Tensor, before: torch.Tensor, direct: torch.Tensor, through: torch.Tensor,
    row: int, index: int, batch: Batch, tolerance: float,
) -> Effect:  # fmt: skip
    changed = inputs.clone()
    # Another direction of the same size: a mere scaling would vanish in the first norm layer.
    changed[row, index] = inputs[row, index].roll(1, -1).flip(-1) + inputs[row, index].std() + 1e-3
    after = forward(changed)
    scale = before[batch["attention_mask"].bool()].float().abs().mean().clamp_min(1e-12)
    moved = ((after - before).float().abs().flatten(2).amax(-1) / scale)[row]
    other = batch["attention_mask"][row].bool() & (torch.arange(batch.length, device=batch.device) != index)
    must, never = direct[row, :, index] & other, ~through[row, :, index] & other
    return Effect(
        row=row,
        changed=index,
        must=tuple(must.nonzero()[:, 0].tolist()),
        least_seen=float(moved[must].min()) if bool(must.any()) else 1.0,
        most_leaked=float(moved[never].max()) if bool(never.any()) else 0.0,
        missed=tuple((must & (moved <= tolerance)).nonzero()[:, 0].tolist()),
        leaked=tuple((never & (moved > tolerance)).nonzero()[:, 0].tolist()),
    )


def _default_positions(batch: Batch) -> list[tuple[int, int]]:
    """The last position of every both-ways block and of every branch, and the last real one of every row."""
    real, block, document = batch["attention_mask"].bool(), batch["block"], batch["document"]
    positions = set()
    for row in range(batch.rows):
        last: dict[tuple[int, int], int] = {}
        for index in real[row].nonzero()[:, 0].tolist():
            last[(-1, -1)] = index
            if block[row, index] != 0:
                last[int(document[row, index]), int(block[row, index])] = index
        positions |= {(row, index) for index in last.values()}
    return sorted(positions)


def _through(table: torch.Tensor, layers: int | None) -> torch.Tensor:
    """Who sees whom through so many layers (None: any number); each layer also hands on what it was given."""
    step = table.float() + torch.eye(table.shape[-1], device=table.device)
    reach = step
    for _ in range((layers or table.shape[-1]) - 1):
        further = ((reach @ step) > 0).float()
        if torch.equal(further, reach):
            break
        reach = further
    return reach > 0


def _fault(effect: Effect) -> str:
    text = f"row {effect.row}: index {effect.changed} was changed"
    if effect.missed:
        text += f", and {list(effect.missed[:8])}, which see it, did not notice"
    if effect.leaked:
        text += f", and {list(effect.leaked[:8])}, which must not see it, noticed (by {effect.most_leaked:.1e})"
    return text
