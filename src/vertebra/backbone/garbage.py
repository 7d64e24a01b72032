"""No search for garbage while a model loads: what is made there stays, and each search walks through all of it again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_search() -> Iterator[None]:
    """Inside, Python frees what nobody refers to and looks for no circles; also a decorator, and one inside another."""
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            gc.enable()
