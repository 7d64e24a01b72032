"""What every test shares: no network, one thread, messages said anew, and tiny checkpoints made once a session."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from vertebra import log


@pytest.fixture(autouse=True)
def _say_messages_anew():
    log.forget_said()
