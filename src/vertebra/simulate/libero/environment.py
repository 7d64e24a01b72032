"""LIBERO's own environment, imported without its words: nothing is printed, no file of warnings is left behind."""

from __future__ import annotations

import logging
import sys
from typing import Any

from vertebra import log
from vertebra.errors import MissingPartError
from vertebra.simulate.gl import choose_library
from vertebra.simulate.libero.files import PACKAGE, require_package


def environment() -> Any:
    """The class of LIBERO's environments; MuJoCo is imported here, with a library that draws."""
    require_package()
    choose_library()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # robosuite's, on a file of settings that nobody needs
    try:
        from libero.libero.envs.env_wrapper import ControlEnv
    except ImportError as error:
        raise MissingPartError(f"simulating LIBERO ({error})", PACKAGE, "libero") from error
    finally:
        logging.disable(before)
    sys.modules["mujoco"].set_mju_user_warning(log.logger.debug)
    return ControlEnv
