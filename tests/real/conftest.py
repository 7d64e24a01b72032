"""Real models, where `vertebra get` has put them into the user's own cache; `make test-real` fetches them first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vertebra import load_backbone
from vertebra.backbone.real import REAL


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)


def _folder(name: str) -> Path:
    row = REAL[name]
    folder = Path(os.environ["VERTEBRA_USER_CACHE"]) / "models" / row.folder.name
    if not folder.is_dir():
        pytest.skip(f"`{name}` is not in the cache: `make test-real` fetches it (vertebra get {name})")
    return folder


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    return _folder("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def smollm2(smollm2_folder):
    return load_backbone(smollm2_folder, inference_mode=True, weights=True, builder="chatml")


@pytest.fixture(scope="session")
def dinov2_folder() -> Path:
    return _folder("dinov2-small")
