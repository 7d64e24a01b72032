"""Public names, each resolved on first use, so that importing a package imports nothing of what it offers.

    __getattr__, __dir__, __all__ = offer(__name__, {"state.prefill": "prefill", "result": "Generation Step"})

A name has one spelling: one that is asked for in the wrong place is answered with the right one.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

from vertebra.errors import did_you_mean

_ROOT = __name__.partition(".")[0]


def offer(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], tuple[str, ...]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from modules inside it and the names that each is home to.

    A home of "" are the package's own rooms. Any other room is reached by its name too, and is not listed. A home that
    begins with a dot stands in another package.
    """
    home = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if home.get(name):
            place = _ROOT if home[name].startswith(".") else f"{package}."
            value = getattr(importlib.import_module(place + home[name]), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module `{package}` has no `{name}`.{_elsewhere(name) or did_you_mean(name, home)}")
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(home), tuple(home)


def _elsewhere(name: str) -> str:
    """The spelling of a name that another package offers."""
    rooms = pkgutil.iter_modules(sys.modules[_ROOT].__path__)
    places = [_ROOT, *(f"{_ROOT}.{one.name}" for one in rooms if one.ispkg)]
    for place in places:
        if name in getattr(importlib.import_module(place), "__all__", ()):
            return f" It is `{place}.{name}`."
    return ""
