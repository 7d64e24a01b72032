"""Recipes: small YAML files, found by path or by name, with the paths of their data made whole.

A name is looked for in `recipes/` where the command is started, then among those that come with the library. A path
that a recipe names is relative to the recipe, one that an override names to where the command is started; so the same
command reads the same data wherever it is started, or fails.

YAML and not Python: a recipe can be checked, compared, overridden and saved beside the weights without running it.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vertebra import config as configs
from vertebra.data.read.open import looks_like_path
from vertebra.data.reading import CORPUS
from vertebra.errors import CheckpointError, ConfigError, did_you_mean, shortened
from vertebra.training.config import RunConfig

FOLDERS = (
    Path("recipes"),
    Path(__file__).parents[3] / "recipes",  # of a checkout
    Path(sys.prefix) / "share" / "vertebra" / "recipes",  # of an installed wheel
)


PATHS = ("path", "eval_path", "images")
"""Settings of a reading that name files or folders."""
OPTION_PATHS = ("wordings",)
"""Such settings of a kind of task, in `options`."""
RECIPE = "run.yaml"
"""In the folder of a run: what it was trained by."""


def read_recipe(name: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The config of a recipe, overrides applied. The folder of a run is one too, and it goes on there."""
    path = find_recipe(name)
    tree = _with_whole_paths(configs.read_mapping(path), path)
    if path == Path(name) / RECIPE:
        tree["out"] = str(name)
    configs.resolve(RunConfig, tree, overrides, where=str(path))  # every fault of both, at once
    return configs.build(RunConfig, _started_here(configs.apply(RunConfig, tree, overrides)), where=str(path))


def read_run(folder: str | Path) -> RunConfig:
    """The config of a run that is there, from its folder."""
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise CheckpointError(f"`{folder}` holds no run (no {path.name}); name the folder that `vertebra train` wrote")
    return configs.read(RunConfig, path)


def find_recipe(name: str | Path) -> Path:
    """The file that a name or path means; of a run's folder, the recipe that it was trained by."""
    if not isinstance(name, str | Path):
        raise ConfigError(
            f"a recipe of type {type(name).__name__}; expected a YAML file, the name of one, or a run's folder"
        )
    given = Path(name)
    try:
        for path in (
            given,
            given / RECIPE,
            *(folder / file for folder in FOLDERS for file in (given, f"{given}.yaml")),
        ):
            if path.is_file():
                return path
    except OSError as error:
        raise ConfigError(
            f"`{shortened(str(name))}` cannot be a recipe: {error.strerror}. Give a path, or a name"
        ) from error
    known = sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})
    hint = did_you_mean(given.stem, known)
    listed = f" Recipes: {', '.join(known)}." if known else ""
    raise ConfigError(
        f"there is no recipe `{shortened(str(name))}`.{hint}{listed} Give a path to a YAML file, or one of their names"
    )


def _with_whole_paths(tree: dict[str, Any], recipe: Path) -> dict[str, Any]:
    """Data that stands beside the recipe is meant, wherever the command is started from."""
    return _each_path(tree, lambda key, value: _beside(recipe, key, value))


def _started_here(tree: dict[str, Any]) -> dict[str, Any]:
    """What is not whole by now was named by an override; the run's own record must say where that was."""
    return _each_path(tree, lambda key, value: os.path.abspath(value) if _is_there(value) else value)


def _each_path(tree: dict[str, Any], made: Callable[[str, str], str]) -> dict[str, Any]:
    """The tree with every path of its data made anew; those of its mixture too."""
    data = tree.get("data")
    if not isinstance(data, dict):
        return tree

    def whole(key: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [whole(key, one) for one in value]
        return made(key, value) if isinstance(value, str) and not _is_name(value) else value

    def reading(given: dict[str, Any], within: str = "") -> dict[str, Any]:
        found = {key: whole(within + key, value) if key in PATHS else value for key, value in given.items()}
        if isinstance(found.get("options"), dict):
            options = found["options"].items()
            found["options"] = {
                key: whole(f"{within}options.{key}", value) if key in OPTION_PATHS else value for key, value in options
            }
        if isinstance(found.get("mix"), dict):
            parts = found["mix"].items()
            found["mix"] = {name: reading(p, f"mix.{name}.") if isinstance(p, dict) else p for name, p in parts}
        return found

    return {**tree, "data": reading(data)}


def _beside(recipe: Path, key: str, value: str) -> str:
    """The path that a recipe means; a name of the hub stays one."""
    path = os.path.join(os.path.abspath(recipe.parent), value)
    if _is_there(path) or os.path.isabs(value):
        return path
    if _is_there(value):
        raise ConfigError(
            f"{recipe}: data.{key} is `{value}`, and a recipe's paths are relative to the recipe: there is no `{path}`. The "
            f"one in the current folder is not taken for it; if it is meant, give --set data.{key}={value}"
        )
    return path if looks_like_path(value) or glob.has_magic(value) else value


def _is_there(path: str) -> bool:
    return os.path.exists(path) or (glob.has_magic(path) and bool(glob.glob(path, recursive=True)))


def _is_name(value: str) -> bool:
    """What is no path whatever lies where: the corpus of Python, or a name of the hub called so."""
    return value in CORPUS or value.startswith("hub:")
