"""What every test shares: no network, caches of its own, and messages that are said anew."""

from __future__ import annotations

import gc
import getpass
import os
import shutil
import tempfile
from pathlib import Path

# Kept between runs, so that tiny checkpoints are made once; their names hold a hash of all that makes them.
_CACHE = Path(tempfile.gettempdir()) / f"vertebra-tests-{getpass.getuser()}"
# Real models are looked for where the user keeps them.
_USER = os.environ.get("VERTEBRA_CACHE") or str(Path.home() / ".cache" / "vertebra")
os.environ.setdefault("VERTEBRA_USER_CACHE", _USER)
os.environ["VERTEBRA_CACHE"] = str(_CACHE / "tiny")
os.environ["HF_HUB_CACHE"] = str(_CACHE / f"hub-{os.getpid()}")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A test runner of several processes sets 80 columns for each, and tables would wrap where a pipe's would not.
os.environ.pop("COLUMNS", None)
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

from vertebra import log

# An example that takes long on a busy machine is no failure: no test asserts a time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _say_messages_anew():
    log.forget_warned()


@pytest.fixture(scope="session")
def draws():
    """Tests that draw need a library that draws without a screen; where none is installed they are skipped with the reason."""
    from vertebra.errors import ConfigError
    from vertebra.simulate.gl import require_drawing

    try:
        require_drawing()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture
def hub():
    """`hub({"org/name": "tiny-llama2"})`: lay tiny checkpoints out as a hub cache, under real hub names.

    They are gone after the test: another one, in whatever order, finds a cache that holds nothing.
    """
    from vertebra.backbone.tiny import write_hub_cache

    folder = Path(os.environ["HF_HUB_CACHE"])
    yield lambda names: write_hub_cache(folder, names)
    shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_finish():
    """What is imported by now stays: searches for garbage, of which every training makes some, need not look through it."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    shutil.rmtree(os.environ["HF_HUB_CACHE"], ignore_errors=True)
