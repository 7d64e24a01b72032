"""What each kind of head makes of rows: numbers in −1…1, and for those that say tokens, ids and how sure it was.

    tokens      decoding under the constraint that nothing but an id of a bin can follow, so many steps, no end before
    parallel    all slots in one pass, the same ids allowed
    l1, flow    the model's own head

A row whose numbers are none comes out as NaN, and is the policy's to judge. B rows, C actions in a chunk, D numbers in an
action, N bins. It knows no robots and no units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vertebra.action.bins import Bins
from vertebra.action.record import ActionRecord
from vertebra.decode.actions import predict as by_head
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedSteps
from vertebra.decode.parallel import fill
from vertebra.errors import TooLongError
from vertebra.model.model import Model
from vertebra.policies.prefix import Prefixes
from vertebra.policies.prompts import SLOTS, PolicyPrompt


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What a head predicted for B rows."""

    values: np.ndarray
    """[B, C, D] in −1…1."""
    ids: np.ndarray | None = None
    """[B, C, D]; −1 where a row broke."""
    probabilities: np.ndarray | None = None
    """[B, C, D, N], in the order of the bins; where they were asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedModel:
    """A model and how it is asked."""

    model: Model
    record: ActionRecord
    bins: Bins | None
    prefixes: Prefixes | None = None
    """What is kept of instructions between calls."""

    @cached_property
    def constraint(self) -> AllowedSteps:
        """Nothing but ids of bins, as many steps as a chunk has numbers."""
        assert self.bins is not None
        return AllowedSteps([self.bins.allowed] * self.numbers)

    @property
    def numbers(self) -> int:
        """Numbers in a chunk."""
        return self.record.chunk * self.record.dims

    def slots(self) -> int:
        """Places that the head fills in a sequence."""
        if self.record.head == "tokens":
            return 0
        if self.record.head == "parallel":
            return self.numbers
        head: Any = self.model.heads[SLOTS]
        return int(head.slots)

    def early(self) -> int:
        """How many of these places stand before the text."""
        heads: dict[str, Any] = dict(self.model.heads.items())
        return int(heads[SLOTS].early) if SLOTS in heads else 0

    def collated(self, rows: Sequence[PolicyPrompt]) -> Any:
        return self.model.collate([row.sequence for row in rows], [row.features for row in rows], side="left")


def predict(
    asking: AskedModel, rows: Sequence[PolicyPrompt], *, sure: bool = False, options: Mapping[str, Any] | None = None
) -> Predicted:
    """The chunks of these rows, in one batch. `sure`: with probabilities; `options`: a continuous head's own."""
    _require_room(asking, rows)
    return HEADS[asking.record.head](asking, rows, sure, dict(options or {}))


def _require_room(asking: AskedModel, rows: Sequence[PolicyPrompt]) -> None:
    longest = max(len(row.sequence) for row in rows)
    behind = asking.numbers if asking.record.head == "tokens" else 0
    limit = asking.model.context
    if limit is not None and longest + behind > limit:
        raise TooLongError(
            f"the prompt has {longest} positions and an action {behind} more; `{asking.model.identifier}` has {limit}. "
            "Shorten the instruction"
        )


def _tokens(asking: AskedModel, rows: Sequence[PolicyPrompt], sure: bool, options: Mapping[str, Any]) -> Predicted:
    bins = asking.bins
    assert bins is not None
    steps = asking.numbers
    prompt = asking.prefixes.state(asking.model, rows) if asking.prefixes is not None else None
    made = generate(
        asking.model,
        asking.collated(rows) if prompt is None else prompt,
        max_new_tokens=steps,
        constraint=asking.constraint,
        output_logits=sure,
    )
    ids = np.full((len(rows), steps), -1, np.int64)
    for row, tokens in enumerate(made.tokens):
        if len(tokens) == steps:  # a row whose logits are no numbers ends early
            ids[row] = tokens
    logits = None
    if sure and made.logits is not None:
        seen = [step.float().cpu().numpy()[:, bins.ids] for step in made.logits]
        seen += [np.full_like(seen[0], np.nan)] * (steps - len(seen))
        logits = np.stack(seen, axis=1)
    return _actions(asking, ids, logits)


def _parallel(asking: AskedModel, rows: Sequence[PolicyPrompt], sure: bool, options: Mapping[str, Any]) -> Predicted:
    bins = asking.bins
    assert bins is not None
    made = fill(asking.model, **_prompt(asking, rows), at=SLOTS, allowed=bins.allowed)
    ids = np.array(made.tokens, np.int64)
    ids[made.failed] = -1
    logits = None
    if sure:
        order = np.argsort(np.argsort(bins.ids))  # fill's columns are the ids, ascending
        logits = made.logits.float().cpu().numpy()[..., order]
    return _actions(asking, ids, logits)


def _numbers(asking: AskedModel, rows: Sequence[PolicyPrompt], sure: bool, options: Mapping[str, Any]) -> Predicted:
    made = by_head(asking.model, **_prompt(asking, rows), segment=SLOTS, **options)
    return Predicted(values=made.double().cpu().numpy())


def _prompt(asking: AskedModel, rows: Sequence[PolicyPrompt]) -> dict[str, Any]:
    """The rows as a batch, or behind what is kept of their instruction."""
    shared = asking.prefixes.shared(asking.model, rows) if asking.prefixes is not None else None
    if shared is None:
        return {"prompt": asking.collated(rows)}
    state, rest = shared
    sequences = [row.sequence for row in rest]
    return {"prompt": sequences, "state": state, "features": [row.features for row in rest]}


def _actions(asking: AskedModel, ids: np.ndarray, logits: np.ndarray | None) -> Predicted:
    """Ids [B, C · D] and the logits of their bins as actions."""
    bins, shape = asking.bins, (len(ids), asking.record.chunk, asking.record.dims)
    assert bins is not None
    broken = np.asarray((ids < 0).any(1))
    table = np.where(broken[:, None], bins.ids[0], ids).reshape(shape)
    values = np.where(broken[:, None, None], np.nan, bins.decode(table))
    probabilities = None
    if logits is not None:
        with np.errstate(invalid="ignore"):
            raised = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
            probabilities = (raised / raised.sum(-1, keepdims=True)).reshape(*shape, len(bins))
    return Predicted(values=values, ids=np.where(broken[:, None, None], -1, table), probabilities=probabilities)


HEADS: dict[str, Callable[[AskedModel, Sequence[PolicyPrompt], bool, Mapping[str, Any]], Predicted]] = {
    "tokens": _tokens,
    "parallel": _parallel,
    "l1": _numbers,
    "flow": _numbers,
    "ddim": _numbers,
}
"""How each kind of head is asked."""
