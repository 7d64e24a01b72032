"""Recipes: small YAML files, found by path or by name, with their paths made whole.

A name is looked for in `recipes/` where the command is started, then among those that come with the library.

YAML and not Python: a recipe can be checked, compared, overridden and saved beside the weights without running it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vertebra import config as configs
from vertebra.errors import CheckpointError, ConfigError, did_you_mean, shortened
from vertebra.train.config import RunConfig

FOLDERS = (
    Path("recipes"),
    Path(__file__).parents[3] / "recipes",  # of a checkout
    Path(sys.prefix) / "share" / "vertebra" / "recipes",  # of an installed wheel
)


def read_recipe(name: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The config of a recipe, overrides applied."""
    path = find_recipe(name)
    tree = _with_whole_paths(configs.read_mapping(path), path.parent)
    return configs.resolve(RunConfig, tree, overrides, where=str(path))


def read_run(folder: str | Path) -> RunConfig:
    """The config of a run that is there, from its folder."""
    path = Path(folder) / "run.yaml"
    if not path.is_file():
        raise CheckpointError(f"`{folder}` holds no run (no {path.name}); name the folder that `vertebra train` wrote")
    return configs.read(RunConfig, path)


def find_recipe(name: str | Path) -> Path:
    """The file that a name or path means."""
    given = Path(name)
    try:
        for path in (given, *(folder / file for folder in FOLDERS for file in (given, f"{given}.yaml"))):
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
