"""The folder of a run: new, resumed, or emptied because that was asked for.

It has one writer from the first look at it on (`lock`), and nothing in it changes before the run can begin: a mistake in
the data or a refused resume leaves no folder behind, takes no earlier run away, and leaves every record as it was.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from vertebra import config as configs
from vertebra import log
from vertebra.backbone.source import RUN
from vertebra.errors import ConfigError
from vertebra.folders import PART
from vertebra.training import checkpoint
from vertebra.training.config import RunConfig
from vertebra.training.lock import LOCK
from vertebra.training.watching.metrics import METRICS
from vertebra.training.watching.samples import SAMPLES

_FREE = ("out:", "watch.", "save.", "data.workers:", "data.path:")
"""Settings that change nothing of what was trained; that the data is the same, its fingerprint says."""
_LEFT = (".adapter.", ".model.", ".overwritten.")
"""How the names of folders begin that a kill left half-written, or half-removed."""


def check_claim(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Whether a run may have this folder. Nothing is changed."""
    if resume and overwrite:
        raise ConfigError("--resume goes on and --overwrite starts anew; give one of them")
    if not _used(folder):
        return
    if not resume and not overwrite:
        raise ConfigError(
            f"`{folder}` exists and is not empty. Go on with --resume, start anew with --overwrite, or name another (--out)"
        )
    if overwrite and not (folder / RUN).is_file():
        raise ConfigError(f"`{folder}` holds no run (no {RUN}), so that --overwrite will not empty it")


def check_finished(folder: Path, config: RunConfig, step: int) -> None:
    """A run that has ended keeps the settings that it was trained with: nothing would be done by others."""
    if not (folder / RUN).is_file():
        return
    changed = configs.differences(configs.read_mapping(folder / RUN), config)
    # a setting that the record lacks came with a later version
    changed = [line for line in changed if not line.startswith(_FREE) and ": – → " not in line]
    if changed:
        raise ConfigError(
            f"`{folder}` is finished (step {step}), and was trained with other settings:\n  "
            + "\n  ".join(changed)
            + "\nNothing would be trained with these. Leave them as they were, train further with more steps, start anew "
            "(--overwrite), or write the model elsewhere with `vertebra export`"
        )


def claim(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Make the folder ready: emptied where that was asked, else swept of what a kill left half-written."""
    if overwrite or _never_began(folder):
        _empty(folder)
    _sweep(folder)
    if (folder / RUN).is_file():
        changed = configs.differences(configs.read_mapping(folder / RUN), config)
        if changed:
            log.warn("settings that differ from those the run began with:\n  " + "\n  ".join(changed))
    configs.write(config, folder / RUN)
    (folder / "checkpoints").mkdir(exist_ok=True)
    checkpoint.sweep(folder / "checkpoints")


def _empty(folder: Path) -> None:
    """All at once, the record last: after a kill in between it is still a run's folder, or an empty one."""
    gone = Path(tempfile.mkdtemp(prefix=".overwritten.", dir=folder))
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RUN):
        if path.name != LOCK and path != gone:
            path.rename(gone / path.name)
    shutil.rmtree(gone)


def _sweep(folder: Path) -> None:
    for path in folder.iterdir():
        if not _is_left(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_left(name: str) -> bool:
    return name.startswith(_LEFT) or (name.startswith(".") and name.endswith(PART))


def _used(folder: Path) -> bool:
    kept = folder.is_dir() and any(path.name != LOCK and not _is_left(path.name) for path in folder.iterdir())
    return kept and not _never_began(folder)


def _never_began(folder: Path) -> bool:
    """Whether this is what a run left that failed before its first step: its record, and nothing that was trained. It
    must not stand in the way of the next try."""
    if not (folder / RUN).is_file():
        return False
    found = [path for path in folder.iterdir() if path.name != LOCK and not path.name.startswith(".")]
    return all(path.name in (RUN, SAMPLES) or _is_empty(path) for path in found)


def _is_empty(path: Path) -> bool:
    if path.is_dir():
        return path.name == "checkpoints" and not any(path.iterdir())
    return path.name == METRICS and path.stat().st_size == 0
