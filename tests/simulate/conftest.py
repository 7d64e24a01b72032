"""Tests that draw need a library that draws without a screen; where none is installed they are skipped with the reason."""

from __future__ import annotations

import pytest

from vertebra.errors import ConfigError
from vertebra.simulate.gl import choose_library


@pytest.fixture(scope="session")
def draws():
    try:
        choose_library()
    except ConfigError as error:
        pytest.skip(str(error))
