"""Ray on this machine, for tests: a loaded one may need a second try."""

from __future__ import annotations

from typing import Any


def begun(ray: Any, cores: int, tries: int = 4) -> None:
    for attempt in range(tries):
        try:
            ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
            return
        except Exception:  # "the node timed out during startup", of no type of its own
            ray.shutdown()
            if attempt == tries - 1:
                raise
