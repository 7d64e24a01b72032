"""Recipes: small YAML files, found by path or by the name of a file in `recipes/`, with their paths made whole.

YAML and not Python: a recipe can be checked, compared, overridden and saved beside the weights without running it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vertebra import config as configs
from vertebra.errors import ConfigError, did_you_mean
from vertebra.train.config import RunConfig

FOLDER = "recipes"


def read_recipe(name: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The config of a recipe, overrides applied."""
    path = find_recipe(name)
    tree = configs.apply(RunConfig, _with_whole_paths(configs.read_mapping(path), path.parent), overrides)
    return configs.build(RunConfig, tree, where=str(path))


def find_recipe(name: str | Path) -> Path:
    """The file that a name or path means."""
    given = Path(name)
    for path in (given, Path(FOLDER) / given, Path(FOLDER) / f"{given}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.stem for path in Path(FOLDER).glob("*.yaml"))
    hint = did_you_mean(given.stem, known)
    listed = f" Recipes in `{FOLDER}/`: {', '.join(known)}." if known else ""
    raise ConfigError(f"there is no recipe `{name}`.{hint}{listed} Give a path to a YAML file, or one of their names")


def _with_whole_paths(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Data that stands beside the recipe is meant, wherever the command is started from."""
    data = tree.get("data")
    if not isinstance(data, dict):
        return tree
    found = dict(data)
    for key in ("path", "eval_path"):
        value = found.get(key)
        if isinstance(value, str) and not Path(value).exists() and (folder / value).exists():
            found[key] = str(folder / value)
    return {**tree, "data": found}
