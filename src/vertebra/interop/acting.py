"""`policy`: the policy of a name, ready to act, with its golden action computed again before it is given out.

A name is whatever `load` takes. It knows folders; how a policy acts is the business of `vertebra.policies`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vertebra import log
from vertebra.backbone.registry import row_of
from vertebra.backbone.source import left_by_run
from vertebra.errors import CheckpointError, UnknownNameError
from vertebra.interop.load import load
from vertebra.model.model import Model
from vertebra.policies.golden import check_golden
from vertebra.policies.golden_files import read_golden
from vertebra.policies.policy import Policy
from vertebra.policies.settings import PolicySettings

Golden = Literal["warn", "require", "skip"]
GOLDEN = ("warn", "require", "skip")


def policy(model: Any, *, settings: PolicySettings | None = None, golden: Golden = "warn", **options: Any) -> Policy:
    """The policy in a folder: `policy(folder).act(observation, instruction)` gives the next actions.

    `model`: a name (a folder, a run), loaded with `options` (those of `load`), or a `Model`. `golden`: what becomes of
    a golden pair in the folder that does not hold here: `warn`, `require` (an error), or `skip` (it is not computed).
    """
    if golden not in GOLDEN:
        raise UnknownNameError("value of `golden`", golden, GOLDEN)
    if isinstance(model, Model):
        return Policy(model.eval(), settings=settings)
    made = Policy(load(model, **options), settings=settings)
    hold(made, model, golden=golden)
    return made


def hold(made: Policy, model: Any, *, golden: Golden = "warn") -> None:
    """Compute the golden pair in the folder of a name again, where there is one."""
    folder = Path(model if row_of(str(model)) else left_by_run(model)).expanduser()
    kept = read_golden(folder) if golden != "skip" and folder.is_dir() else None
    if kept is None:
        return
    report = check_golden(made, kept)
    if not report.holds and golden == "require":
        raise CheckpointError(f"`{model}`: {report}")
    if not report.holds:
        log.warn(f"`{model}`: {report}")
