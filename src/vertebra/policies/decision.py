"""`Decision`: what a policy decided, and how sure it was of it. Data, and the arithmetic of sureness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra.action.bins import Bins
from vertebra.policies.heads import Predicted


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """One chunk. C actions, D numbers in each."""

    chunk: np.ndarray
    """[k, D] what is to be carried out now, in the robot's units."""
    actions: np.ndarray
    """[C, D] the whole chunk in the robot's units."""
    values: np.ndarray
    """[C, D] the same as the head predicted it, in −1…1."""
    ids: np.ndarray | None
    """[C, D] the tokens, of heads that predict tokens."""
    entropy: np.ndarray | None
    """[C, D] in nats, over the bins; where it was asked for, of heads that predict tokens."""
    confidence: np.ndarray | None
    """[C, D] the probability of the bin that was chosen, among the bins."""
    outside: int
    """Numbers beyond everything that the data had."""
    not_a_number: int
    key: str
    """The statistics that were used."""


def sureness(predicted: Predicted, row: int, bins: Bins | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(entropy, confidence) [C, D] of a row; None where the head gave no probabilities."""
    if predicted.probabilities is None or predicted.ids is None or bins is None or (predicted.ids[row] < 0).any():
        return None, None
    chances = predicted.probabilities[row]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(chances > 0, chances * np.log(chances), 0.0).sum(-1)
    chosen = np.take_along_axis(chances, bins.bins_of(predicted.ids[row])[..., None], axis=-1)[..., 0]
    return entropy, chosen
