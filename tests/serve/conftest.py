"""One server for a module's tests."""

from __future__ import annotations

import pytest

from tests.serve.serving import policy
from vertebra.serve import Server, ServeSettings


@pytest.fixture(scope="module")
def served():
    with Server(
        policy(chunk=2, cameras=("image", "wrist"), proprio=True, settings={"missing_camera": "mask"}),
        ServeSettings(port=0),
    ) as server:
        yield server
