"""Every tensor of an OpenVLA folder under its name in our model, each used once; and the way back.

    vision_backbone.featurizer.*          parts.image.encoder.towers.0.*     (`parts.image.encoder.*` where there is one)
    vision_backbone.fused_featurizer.*    parts.image.encoder.towers.1.*
    projector.fc{1,2,3}.*                 parts.image.projector.fc{1,2,3}.*
    language_model.*                      backbone.llm.*

What is neither used nor on the allow-list of what is never run is an error that names it, and so is what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from vertebra.errors import CheckpointError, did_you_mean
from vertebra.interop.openvla import towers as timm
from vertebra.sequence.length import listed

FEATURIZERS = ("vision_backbone.featurizer.", "vision_backbone.fused_featurizer.")
PROJECTOR = "projector."
LANGUAGE = "language_model."
QUERIES = "action_queries."
"""VLA-Adapter's: they belong to its own action head, which is not read here, and are kept."""
IMAGE = "image"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sorted:
    """Tensors by whom they belong to, under our names; `aside` under theirs."""

    language: dict[str, torch.Tensor]
    image: dict[str, torch.Tensor]
    """Encoder and projector."""
    aside: dict[str, torch.Tensor] = field(default_factory=dict)


def tower_shapes(shapes: Mapping[str, tuple[int, ...]], number: int) -> dict[str, tuple[int, ...]]:
    """The shapes of one tower, without what its names begin with."""
    prefix = FEATURIZERS[number]
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def sort(tensors: Mapping[str, torch.Tensor], kinds: tuple[str, ...], image: Any, *, where: str) -> Sorted:
    """Every tensor to where it belongs. `image`: our part, on meta or not, which says what there must be."""
    rows = _rows(kinds, image)
    expected, found = image.state_dict(), {}
    faults: list[str] = []
    for theirs, row in rows.items():
        if theirs not in tensors:
            faults.append(f"`{theirs}` is missing")
            continue
        try:
            made = row.read(tensors[theirs])
        except (RuntimeError, IndexError) as error:
            faults.append(f"`{theirs}` is {tuple(tensors[theirs].shape)}, which cannot be: {error}")
            continue
        for ours, tensor in zip(row.ours, made, strict=False):
            if tensor.shape != expected[ours].shape:
                shape = tuple(tensors[theirs].shape)
                faults.append(f"`{theirs}` is {shape}; `{ours}` of it would be {tuple(expected[ours].shape)}")
            found[ours] = tensor
    aside = {name: tensor for name, tensor in tensors.items() if is_aside(name, kinds, image)}
    language = {name.removeprefix(LANGUAGE): tensor for name, tensor in tensors.items() if name.startswith(LANGUAGE)}
    unused = [n for n in tensors if n not in rows and n not in aside and not n.startswith(LANGUAGE)]
    faults += [f"`{name}` belongs to nothing.{did_you_mean(name, rows, count=1)}" for name in unused]
    if faults:
        raise CheckpointError(f"the tensors in `{where}` do not fit: {listed(faults)}")
    return Sorted(language=language, image=found, aside=aside)


def is_aside(name: str, kinds: tuple[str, ...], image: Any) -> bool:
    """Whether a tensor is on the allow-list of what is never run."""
    for number, tower in enumerate(towers_of(image)):
        if name.startswith(FEATURIZERS[number]):
            return timm.is_behind(kinds[number], name.removeprefix(FEATURIZERS[number]), tower.blocks)
    return name.startswith(QUERIES)


def is_film(name: str) -> bool:
    """Whether a tensor is FiLM's."""
    return name.startswith(FEATURIZERS) and name.rsplit(".", 2)[-2] in ("scale", "shift")


def written(model: Any, kinds: tuple[str, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    """The model's tensors under their names, one after the other."""
    for name, tensor in model.backbone.llm.state_dict().items():
        yield LANGUAGE + name, tensor
    part = model.parts[IMAGE]
    state = _folded(part, kinds)
    for theirs, row in _rows(kinds, part).items():
        yield theirs, row.write([state[ours] for ours in row.ours])


def _folded(part: Any, kinds: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The part's tensors, with what timm has no place for folded into what it has."""
    state = dict(part.state_dict())
    for number, kind in enumerate(kinds):
        if kind == "dinov2":
            stem = _stem(part, number)
            own = {name.removeprefix(stem): value for name, value in state.items() if name.startswith(stem)}
            state.update({stem + name: value for name, value in timm.fold_class_position(own).items()})
    return state


def _rows(kinds: tuple[str, ...], image: Any) -> dict[str, timm.Rename]:
    """One row a tensor of towers and projector: their name, with ours inside of our part."""
    found = {}
    for number, (kind, tower) in enumerate(zip(kinds, towers_of(image), strict=True)):
        stem = _stem(image, number)
        film = timm.film_renames(tower.blocks) if tower.reads_text else []
        for row in [*timm.renames(kind, tower.blocks), *film]:
            ours = tuple(stem + one for one in row.ours)
            theirs = FEATURIZERS[number] + row.theirs
            found[theirs] = timm.Rename(theirs=theirs, ours=ours, read=row.read, write=row.write)
    for name in image.projector.state_dict():
        found[PROJECTOR + name] = timm.Rename(theirs=PROJECTOR + name, ours=(f"projector.{name}",))
    return found


def towers_of(image: Any) -> list[Any]:
    """The towers of a part, one or two."""
    encoder = image.encoder
    return list(encoder.towers) if hasattr(encoder, "towers") else [encoder]


def _stem(image: Any, number: int) -> str:
    return f"encoder.towers.{number}." if hasattr(image.encoder, "towers") else "encoder."
