"""The golden pair: an observation with the action it led to, kept in the model's folder and computed again at load.

    made = golden_pair(policy, observation, "pick up the cup")      after training, or after an import
    report = check_golden(policy, made)                             anywhere, later

A published checkpoint that moves otherwise elsewhere, for a library, a preprocessing, a mask that is not what it was, is
found before the robot moves, and the report says what changed. Part of it: another image must change the action at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.model.encoders.images import read_image
from vertebra.policies.facts import changes, facts_of
from vertebra.policies.heads import Predicted
from vertebra.policies.observation import Observation
from vertebra.policies.policy import Policy

BOUNDS = {"float64": 1e-6, "float32": 1e-3, "float16": 0.03, "bfloat16": 0.1}
"""How far numbers of −1…1 may move, by the type of either machine; for tokens, how near a second choice may have been."""
LOOKS = 1e-3
"""How much another image must change, at least: of the probabilities of the bins, or of the numbers themselves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """What is kept."""

    images: Mapping[str, np.ndarray]
    """8-bit pixels [H, W, 3] by camera."""
    proprio: np.ndarray | None
    instruction: str
    key: str
    values: np.ndarray
    """[C, D] what the head predicted, in −1…1."""
    actions: np.ndarray
    """[C, D] in the robot's units."""
    ids: np.ndarray | None
    margins: np.ndarray | None
    """[C, D] of heads that say tokens: how much likelier the chosen bin was than the next, in nats."""
    looks: float
    """How much other images changed."""
    facts: Mapping[str, Any]

    @property
    def observation(self) -> Observation:
        return Observation(images=self.images, proprio=self.proprio)


@dataclass(frozen=True, kw_only=True)
class GoldenReport:
    """What came of it when it was computed again."""

    difference: float
    """The largest, in −1…1; infinite where something could not be compared."""
    bound: float
    faults: tuple[str, ...]
    """Why it does not hold; none: it does."""
    changed: tuple[str, ...]
    """Everything about the decision that is not as it was."""
    looks: float

    @property
    def holds(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        if self.holds:
            return f"the golden action holds (largest difference {self.difference:.1e}, bound {self.bound:.0e})"
        changed = "".join(f"\n  changed: {one}" for one in self.changed) or "\n  nothing else that is known has changed"
        return "the golden action does not hold: " + "; ".join(self.faults) + changed


def golden_pair(policy: Policy, observation: Any, instruction: str, unnorm_key: str | None = None) -> Golden:
    """The action of this policy on an observation, with everything that it depends on. It remembers nothing of it."""
    given = Observation.of(observation, policy.record.cameras)
    key = policy.known_key(unnorm_key)
    images = {name: np.asarray(read_image(image)) for name, image in given.images.items() if image is not None}
    kept = Observation(images=images, proprio=given.proprio)
    predicted, row = policy.predicted(kept, instruction, key)
    values = predicted.values[0]
    if not np.isfinite(values).all():
        raise DataError("this policy's action is not a number, and no golden pair; are the weights damaged?")
    return Golden(
        images=images,
        proprio=None if given.proprio is None else np.asarray(given.proprio, np.float64),
        instruction=instruction,
        key=key,
        values=values,
        actions=policy.settled(predicted, kept, key),
        ids=None if predicted.ids is None else predicted.ids[0],
        margins=_margins(predicted),
        looks=looks_at(policy, kept, instruction, key, predicted),
        facts=facts_of(policy.model, policy.record, row, key),
    )


def check_golden(policy: Policy, golden: Golden) -> GoldenReport:
    """Compute the pair again, here and now. Nothing of it is remembered, nor counted."""
    predicted, row = policy.predicted(golden.observation, golden.instruction, golden.key)
    facts = facts_of(policy.model, policy.record, row, golden.key)
    bound = max(BOUNDS.get(str(dtype), BOUNDS["float32"]) for dtype in (facts["dtype"], golden.facts.get("dtype")))
    difference, faults = _compared(golden, predicted, bound)
    if not faults:
        actions = policy.settled(predicted, golden.observation, golden.key)
        faults += _same_units(golden, actions, difference, facts)
    looks = looks_at(policy, golden.observation, golden.instruction, golden.key, predicted)
    if looks <= LOOKS:
        faults.append(f"other images change nothing (by {looks:.1e}; expected more than {LOOKS:.0e}): it does not look")
    elif looks < 0.1 * golden.looks:
        faults.append(f"other images change {looks:.1e}, and changed {golden.looks:.1e}: it hardly looks any more")
    return GoldenReport(
        difference=difference,
        bound=bound,
        faults=tuple(faults),
        changed=tuple(changes(golden.facts, facts)),
        looks=looks,
    )


def looks_at(policy: Policy, observation: Observation, instruction: str, key: str, predicted: Predicted) -> float:
    """How much the first prediction changes when all cameras show something else (the negative, upside down)."""
    if not observation.images:
        return float("inf")
    other = {name: 255 - np.asarray(image)[::-1] for name, image in observation.images.items()}
    changed, _ = policy.predicted(Observation(images=other, proprio=observation.proprio), instruction, key)
    if predicted.probabilities is not None and changed.probabilities is not None:
        # of tokens one after the other the first alone is comparable: the next ones read what was predicted before
        first, second = predicted.probabilities[0], changed.probabilities[0]
        if policy.record.head == "tokens":
            first, second = first[0, 0], second[0, 0]
        return float(0.5 * np.abs(first - second).sum(-1).max())
    return float(np.abs(predicted.values - changed.values).max())


def _margins(predicted: Predicted) -> np.ndarray | None:
    if predicted.probabilities is None:
        return None
    ordered = np.sort(predicted.probabilities[0], axis=-1)
    with np.errstate(divide="ignore"):
        return np.log(ordered[..., -1]) - np.log(ordered[..., -2])


def _compared(golden: Golden, predicted: Predicted, bound: float) -> tuple[float, list[str]]:
    """(largest difference, faults) of what the head predicted."""
    values = predicted.values[0]
    if values.shape != golden.values.shape:
        return float("inf"), [f"a chunk is {values.shape} and was {golden.values.shape}"]
    if not np.isfinite(values).all():
        return float("inf"), ["the action is NaN"]
    difference = float(np.abs(values - golden.values).max())
    if golden.ids is None or predicted.ids is None or golden.margins is None:
        return difference, [] if difference <= bound else [f"numbers differ by {difference:.2e} (bound {bound:.0e})"]
    wrong = np.flatnonzero((predicted.ids[0] != golden.ids).ravel())
    if not len(wrong):
        return difference, []
    # what was a toss-up may fall otherwise where rounding differs; what follows read another token
    at = int(wrong[0])
    margin = float(golden.margins.ravel()[at])
    if margin <= bound:
        return difference, []
    return difference, [
        f"{len(wrong)} of {golden.ids.size} tokens differ, first number {at}: {predicted.ids[0].ravel()[at]} in place of "
        f"{golden.ids.ravel()[at]}, which was {margin:.2g} nats likelier than any other"
    ]


def _same_units(golden: Golden, actions: np.ndarray, difference: float, facts: Mapping[str, Any]) -> list[str]:
    """The same numbers of −1…1 must be the same in the robot's units: else statistics or transforms are others."""
    if difference > 0:
        same = facts["statistics"] == golden.facts.get("statistics") and facts["record"] == golden.facts.get("record")
        return [] if same else ["the statistics or the record are others"]
    apart = float(np.abs(actions - golden.actions).max())
    room = 1e-9 * (1 + float(np.abs(golden.actions).max()))
    return (
        []
        if apart <= room
        else [f"the same tokens or numbers mean another action (by {apart:.2e} in the robot's units)"]
    )
