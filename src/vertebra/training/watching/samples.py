"""`samples.json`: what the model answered before its training and after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vertebra import log
from vertebra.folders import write_file

SAMPLES = "samples.json"


def read_samples(folder: Path) -> dict[str, Any]:
    """`before` and `after`, as far as they are known. A file that cannot be read is none: it is no reason to lose a run."""
    path = folder / SAMPLES
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        log.warn(f"`{path}` is damaged and passed over: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def write_samples(folder: Path, samples: dict[str, Any]) -> None:
    write_file(folder / SAMPLES, json.dumps(samples, ensure_ascii=False))
