"""How a simulator drew a set's images (`meta/view.json`): a policy that learned from them must be shown the same.

LeRobot's format has no place for it; other readers pass the file over. Sets of real robots have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vertebra.episodes.facts import read_object
from vertebra.errors import DataError

VIEW = "meta/view.json"


def read_view(folder: Path) -> dict[str, Any]:
    """Options of the simulation by name; none where nothing is recorded."""
    path = folder / VIEW
    return dict(read_object(path)) if path.is_file() else {}


def write_view(folder: Path, view: Mapping[str, Any]) -> None:
    path = folder / VIEW
    path.unlink(missing_ok=True)  # a link to the file of the set that is appended to
    path.write_text(json.dumps(view, indent=4, allow_nan=False, sort_keys=True) + "\n", encoding="utf-8")


def require_same_view(folder: Path, view: Mapping[str, Any]) -> None:
    """Whether images drawn so may join a set."""
    there = read_view(folder)
    if there and view and there != view:
        raise DataError(
            f"`{folder}` cannot be appended to: its images were drawn with {there}, these with {dict(view)}"
        )
