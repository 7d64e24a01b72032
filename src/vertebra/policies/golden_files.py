"""A golden pair as files beside the weights: `golden/golden.json`, and each camera's image as a PNG.

It is written whole or not at all; a damaged one is an error that names the fault.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.backbone.source import RECORD
from vertebra.errors import CheckpointError, DataError
from vertebra.folders import write_whole
from vertebra.model.encoders.images import read_image
from vertebra.policies.golden import Golden
from vertebra.reading import inside, read_json, reading

FOLDER, FILE, FORMAT = "golden", "golden.json", 1


def write_golden(golden: Golden, folder: str | Path) -> Path:
    """Keep it in a model's folder; an older one is replaced."""
    where = Path(folder)
    if not any((where / file).is_file() for file in ("config.json", RECORD)):
        raise CheckpointError(
            f"`{folder}` is no folder of a model or an adapter; a golden pair belongs beside the weights"
        )

    def fill(part: Path) -> None:
        files = {}
        for number, (name, image) in enumerate(golden.images.items()):
            files[name] = f"{number}.png"
            Image.fromarray(image).save(part / files[name])
        (part / FILE).write_text(json.dumps(_tree(golden, files), indent=1, ensure_ascii=False), encoding="utf-8")

    return write_whole(where / FOLDER, fill, replace=True)


def read_golden(folder: str | Path) -> Golden | None:
    """The golden pair of a model's folder; None where it has none."""
    file = Path(folder) / FOLDER / FILE
    if not file.is_file():
        return None
    tree = read_json(file)
    if tree.get("format") != FORMAT:
        raise CheckpointError(
            f"`{file}` has the format {tree.get('format')!r}; this version reads {FORMAT}. Upgrade vertebra"
        )
    with reading(f"`{file}` is damaged", "make the golden pair anew: vertebra act MODEL … --golden"):
        images = {str(name): _image(file, path) for name, path in tree["images"].items()}
        numbers = {name: _numbers(tree[name]) for name in ("values", "actions", "ids", "margins", "proprio")}
        golden = Golden(
            images=images, instruction=str(tree["instruction"]), key=str(tree["key"]), looks=_looks(tree["looks"]),
            facts=dict(tree["facts"]), **numbers,  # type: ignore[arg-type]
        )  # fmt: skip
        _require_shapes(golden)
        return golden


def _tree(golden: Golden, files: dict[str, str]) -> dict[str, Any]:
    numbers = {name: getattr(golden, name) for name in ("values", "actions", "ids", "margins", "proprio")}
    return {
        "format": FORMAT,
        "instruction": golden.instruction,
        "key": golden.key,
        "images": files,
        **{name: None if value is None else value.tolist() for name, value in numbers.items()},
        "looks": golden.looks if np.isfinite(golden.looks) else None,
        "facts": dict(golden.facts),
    }


def _image(file: Path, name: Any) -> np.ndarray:
    try:
        return np.asarray(read_image(file.parent / inside(name, file)))
    except DataError as error:
        raise CheckpointError(f"an image of `{file}` cannot be read: {error}") from error


def _numbers(given: Any) -> np.ndarray | None:
    return None if given is None else np.asarray(given)


def _require_shapes(golden: Golden) -> None:
    shape = golden.values.shape
    if golden.values.ndim != 2 or (golden.ids is None) != (golden.margins is None):
        raise ValueError(f"values have the shape {shape}, and ids without margins mean nothing")
    for name in ("values", "actions", "ids", "margins", "proprio"):
        table = getattr(golden, name)
        if table is None and name not in ("values", "actions"):
            continue
        expected = table.shape[:1] if name == "proprio" else shape
        if table.dtype.kind not in ("i" if name == "ids" else "fi") or table.shape != expected:
            raise ValueError(f"`{name}` is {table.dtype} of the shape {table.shape}; expected numbers {expected}")


def _looks(given: Any) -> float:
    return float("inf") if given is None else float(given)
