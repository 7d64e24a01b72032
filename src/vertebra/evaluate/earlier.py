"""An arm that was already run: `NAME=FOLDER` of an evaluation takes its episodes from there, and none is run again.

A blind twin, or a policy of last month, is evaluated once and stands beside every policy that is evaluated as it was.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from vertebra.errors import ConfigError
from vertebra.evaluate.arms import POLICY, Arm
from vertebra.evaluate.records import EpisodeRecord, read_record
from vertebra.evaluate.settings import EvaluationSettings
from vertebra.reading import read_json
from vertebra.simulate.suites import evaluation_seed

SETTINGS = "evaluation.json"
"""What says which evaluation a folder holds."""
_ALIKE = ("seed", "robots", "outside", "options")
"""Settings that decide how an episode goes, whatever the policy."""


def is_evaluation(name: str) -> bool:
    """Whether it is the folder of an evaluation, and not that of a policy."""
    return (Path(name) / SETTINGS).is_file()


def settings_there(folder: Path) -> dict[str, Any]:
    """{settings, policies}, as the folder of an evaluation has them."""
    path, parts = folder / SETTINGS, ("settings", "policies")
    theirs = read_json(path)
    if not all(isinstance(theirs.get(name), dict) for name in parts):
        raise ConfigError(
            f"`{path}` is not what an evaluation leaves ({', '.join(parts)}). Name another folder, or delete that one"
        )
    return theirs


def identity(folder: Path) -> str:
    """What tells whether the policies that were evaluated there are those of before."""
    return json.dumps(settings_there(folder)["policies"], sort_keys=True)


def episodes_of(arm: Arm, settings: EvaluationSettings) -> dict[tuple[str, str, int], EpisodeRecord]:
    """The episodes that an arm has from an earlier evaluation, as if they had been run in this one."""
    if arm.model is None or not is_evaluation(arm.model):
        return {}
    folder = Path(arm.model)
    theirs, mine = settings_there(folder)["settings"], json.loads(json.dumps(settings.to_json()))
    differ = [
        f"{name}: there {theirs.get(name)!r}, here {mine[name]!r}" for name in _ALIKE if theirs.get(name) != mine[name]
    ]
    if differ:
        raise ConfigError(
            f"the arm `{arm.name}={arm.model}`: its episodes went otherwise ({'; '.join(differ)}). Give the policy's own "
            "folder, and it is run as this one"
        )
    found, missing = {}, []
    for task in settings.tasks:
        for number in range(settings.episodes):
            seed = evaluation_seed(task, settings.seed, number)
            record = read_record(folder, POLICY, task, number, seed=seed)
            if record is None:
                missing.append(f"{task} {number}")
            else:
                found[arm.name, task, number] = replace(record, arm=arm.name)
    if missing:
        raise ConfigError(
            f"the arm `{arm.name}={arm.model}`: {len(missing)} of {len(found) + len(missing)} episodes were not run there "
            f"(first: {missing[0]}). Run that evaluation with these tasks and episodes, or give the policy's own folder"
        )
    return found
