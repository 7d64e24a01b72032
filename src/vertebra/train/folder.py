"""The folder of a run: new, resumed, or emptied because it was said.

It is looked at before anything loads, and claimed when the run can begin: a mistake in the data leaves no folder behind,
and takes no earlier run away.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from vertebra import config as configs
from vertebra import log
from vertebra.errors import ConfigError
from vertebra.train import checkpoint
from vertebra.train.config import RunConfig
from vertebra.train.watching.metrics import METRICS

RUN = "run.yaml"
"""The resolved config; what tells a run's folder from any other."""
SAMPLES = "samples.json"


def check_claim(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Whether a run may have this folder. Nothing is changed."""
    if resume and overwrite:
        raise ConfigError("--resume goes on and --overwrite starts anew; give one of them")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"`{folder}` is a file; name a folder with --out")
    if not _used(folder):
        return
    if not resume and not overwrite:
        raise ConfigError(
            f"`{folder}` exists and is not empty. Go on with --resume, start anew with --overwrite, or name another (--out)"
        )
    if overwrite and not (folder / RUN).is_file():
        raise ConfigError(f"`{folder}` holds no run (no {RUN}), so that --overwrite will not empty it")


def claim(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Make the folder ready: emptied where that was asked, else swept of what a kill left half-written."""
    if _never_began(folder) or (overwrite and _used(folder)):
        shutil.rmtree(folder)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    checkpoint.sweep(folder / "checkpoints")
    if (folder / RUN).is_file():
        changed = configs.differences(configs.read_mapping(folder / RUN), config)
        if changed:
            log.warn("settings that differ from those the run began with:\n  " + "\n  ".join(changed))
    configs.write(config, folder / RUN)


def _used(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir()) and not _never_began(folder)


def _never_began(folder: Path) -> bool:
    """Whether this is what a run left that failed before its first step: its record, and nothing that was trained. It
    must not stand in the way of the next try."""
    if not (folder / RUN).is_file():
        return False
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return all(path.name in (RUN, SAMPLES) or _is_empty(path) for path in found)


def _is_empty(path: Path) -> bool:
    if path.is_dir():
        return path.name == "checkpoints" and not any(path.iterdir())
    return path.name == METRICS and path.stat().st_size == 0
