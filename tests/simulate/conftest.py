"""Tests that draw need a library that draws without a screen; where none is installed they are skipped with the reason."""

from __future__ import annotations

import pytest

from vertebra.errors import ConfigError
from vertebra.simulate.gl import require_drawing


@pytest.fixture(scope="session")
def draws():
    try:
        require_drawing()
    except ConfigError as error:
        pytest.skip(str(error))
