"""Which OpenGL library draws without a screen, found before MuJoCo is imported: MuJoCo decides at its import."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from typing import Any

from vertebra import log
from vertebra.errors import ConfigError, MissingPartError, UnknownNameError

LIBRARIES = {"osmesa": "OSMesa", "egl": "EGL"}
"""What MUJOCO_GL calls them, and the library of each; the first that is found is taken."""
INSTALL = "apt-get install libosmesa6"


def require_simulator() -> None:
    """MuJoCo and Meta-World, imported with a library that draws; one message names all that is missing."""
    choose_library()
    for package in ("mujoco", "metaworld", "gymnasium"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingPartError("simulating Meta-World", package, "sim") from error
    # its warnings would go to a file in the current folder; a simulation that leaves all bounds is reported by the task
    sys.modules["mujoco"].set_mju_user_warning(log.logger.debug)


def choose_library() -> str | None:
    """The value of MUJOCO_GL, set where it was not; None where the system has a way of its own (not Linux)."""
    asked = os.environ.get("MUJOCO_GL")
    if asked is not None and asked not in LIBRARIES:
        raise UnknownNameError("value of MUJOCO_GL for drawing without a screen", asked, LIBRARIES)
    if asked is None and sys.platform != "linux":
        return None
    found = [name for name in ([asked] if asked else LIBRARIES) if ctypes.util.find_library(LIBRARIES[name])]
    if not found:
        library = f"lib{LIBRARIES[asked]}" if asked else "libOSMesa or libEGL"
        raise ConfigError(
            f"no library that draws without a screen ({library}) is installed; a simulator's cameras need one. Install it "
            f"with: {INSTALL}"
        )
    _name(found[0])
    return found[0]


def _name(library: str) -> None:
    os.environ["MUJOCO_GL"] = library
    os.environ.setdefault("PYOPENGL_PLATFORM", library)


def new_context(width: int, height: int) -> Any:
    """A context of the chosen library, made current."""
    library = choose_library()
    name = "mujoco" if library is None else f"mujoco.{library}"
    try:
        context = importlib.import_module(name).GLContext(width, height)
        context.make_current()
    except Exception as error:  # PyOpenGL, the driver and MuJoCo each raise errors of their own
        raise ConfigError(
            f"drawing without a screen failed ({library}: {type(error).__name__}: {error}). Install OSMesa, which needs no "
            f"driver: {INSTALL}; and run with MUJOCO_GL=osmesa"
        ) from error
    return context


def require_drawing() -> None:
    """Draw nothing, once: whether it is possible here, or what to install."""
    require_simulator()
    new_context(64, 64).free()


if __name__ == "__main__":
    require_drawing()
