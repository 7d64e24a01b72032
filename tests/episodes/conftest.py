"""A small set that is in order, and a copy of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .made import write_set


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "set"
    write_set(folder, (5, 8, 6))
    return folder


@pytest.fixture
def damaged(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "set"))
