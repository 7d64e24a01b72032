"""Objects that a config names as `package.module:name`: found in the current folder too, or what stands in the way."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from vertebra.errors import ConfigError, did_you_mean


def object_named(name: str, *, setting: str, what: str = "function") -> Any:
    """The object, taken from the current folder or from what is installed. `setting`: which one names it."""
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ConfigError(f"{setting} is `{name}`; expected `package.module:{what}`")
    found = getattr(_imported(module, f"{setting} `{name}`"), attribute, None)
    if found is None:
        known = [known for known, value in vars(sys.modules[module]).items() if callable(value)]
        where = getattr(sys.modules[module], "__file__", None) or "a folder without code of its own"
        raise ConfigError(
            f"{setting} `{name}`: `{module}` ({where}) has no `{attribute}`.{did_you_mean(attribute, known)}"
        )
    return found


def _imported(module: str, named: str) -> ModuleType:
    # `python -m` looks into the current folder; a console script looks into its own instead
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{named}: there is no module `{error.name}`, neither in the current folder ({here}) nor installed"
            ) from error
        raise ConfigError(f"{named}: `{module}` imports `{error.name}`, which is not there") from error
    except Exception as error:  # whatever a module of the user's does when it is imported
        raise ConfigError(f"{named} cannot be imported: {as_text(error)}") from error


def as_text(error: BaseException) -> str:
    """An error of the user's own code, and the last line on its way that the user can mend."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "site-packages" not in frame.filename]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"
