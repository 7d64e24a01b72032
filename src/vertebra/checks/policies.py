"""The checks that a policy has besides those of its backbone: its golden action, and whether it looks at its cameras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vertebra.checks.results import Measure, Skip
from vertebra.policies.drawn import drawn_observation
from vertebra.policies.golden import LOOKS, check_golden, looks_at
from vertebra.policies.golden_files import read_golden
from vertebra.policies.policy import Policy

_ASKED = "move to the object"


@dataclass(frozen=True, kw_only=True)
class PolicyCheck:
    """One check of a policy and the folder that it came from, if it came from one."""

    name: str
    run: Callable[[Policy, Path | None], Measure | Skip]
    shows: str
    breaks_on: str
    mend: str


def golden(policy: Policy, folder: Path | None) -> Measure | Skip:
    """The pair in the folder, computed again."""
    kept = None if folder is None else read_golden(folder)
    if kept is None:
        return Skip("the folder has no golden pair; keep one: vertebra act MODEL --image … --instruction … --golden")
    report = check_golden(policy, kept)
    message = "the largest difference of the golden action, in −1…1"
    if report.changed:
        message += f"; changed since: {'; '.join(report.changed)}"
    # tokens that fell otherwise at a toss-up differ by whole bins, and hold
    number = min(report.difference, report.bound) if report.holds else report.difference
    return Measure(number=number, relation="<=", bound=report.bound, message=message, faults=report.faults)


def looks(policy: Policy, folder: Path | None) -> Measure | Skip:
    """Whether other images lead to other actions."""
    if not policy.record.cameras:
        return Skip("this policy has no cameras")
    keys = policy.keys
    if not keys:
        return Skip("this policy has no statistics")
    seen = drawn_observation(policy, unnorm_key=keys[0])
    predicted, _ = policy.predicted(seen, _ASKED, keys[0])
    changed = looks_at(policy, seen, _ASKED, keys[0], predicted)
    return Measure(number=changed, relation=">=", bound=LOOKS, message="how much of its action other images change")


_ROWS = (
    PolicyCheck(
        name="golden",
        run=golden,
        shows="the golden pair in the folder leads to the same action here and now",
        breaks_on="statistics, a template, a preparation or weights that are not those of the pair",
        mend="See what changed since; use the libraries and the files that the pair was made with, or make the pair anew.",
    ),
    PolicyCheck(
        name="looks",
        run=looks,
        shows="other images lead to other actions",
        breaks_on="a projector that gives the same for every image",
        mend="The images do not reach the action: look at the projector's weights, and at the training data's images.",
    ),
)

OF_POLICIES: dict[str, PolicyCheck] = {check.name: check for check in _ROWS}
"""Every check of policies by name, in the order in which they run, after those of the backbone."""
