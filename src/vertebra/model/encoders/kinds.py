"""Which encoders a model folder can name, and a part as plain data and back. It knows no weights and no files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vertebra.errors import CheckpointError, ConfigError, did_you_mean
from vertebra.model.encoders.boxes import BoxTables, BoxWaves
from vertebra.model.encoders.part import ItemEncoder, Part
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.queries import Queries
from vertebra.model.encoders.stem import StemEncoder
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.encoders.vision import FusedTowers, VisionTower
from vertebra.model.projectors import Projector
from vertebra.reading import reading

ENCODERS: dict[str, type[ItemEncoder]] = {
    encoder.kind: encoder
    for encoder in (VisionTower, FusedTowers, PatchEncoder, StemEncoder, BoxTables, BoxWaves, VectorEncoder)
}
"""Encoders by the names that model folders use."""


def register_encoder(encoder: type[ItemEncoder]) -> type[ItemEncoder]:
    """Let model folders name an encoder of your own; usable as a decorator. Its `kind` must be new."""
    if encoder.kind in ENCODERS:
        raise ConfigError(f"an encoder of kind `{encoder.kind}` exists already. Kinds: {', '.join(ENCODERS)}")
    ENCODERS[encoder.kind] = encoder
    return encoder


def part_record(part: Part | Queries) -> dict[str, Any]:
    """What it takes to build a part again, and what `vertebra info` shows of it."""
    if isinstance(part, Queries):
        return {"queries": part.settings(), "place": part.place, "slots": part.slots}
    return {
        "encoder": {
            "kind": part.encoder.kind,
            "about": part.encoder.about(),
            "width": part.encoder.width,
            "settings": part.encoder.settings(),
        },
        "projector": part.projector.settings(),
        "place": part.place,
        "slots": part.slots,
        **({"drawn": part.drawn} if part.untrained else {}),
    }


def part_from(record: Mapping[str, Any], *, where: str) -> Part | Queries:
    """A part as its record says, with fresh weights."""
    with reading(f"{where} is described in a way that cannot be built", "save the model again"):
        if "queries" in record:
            return Queries(**record["queries"])
        kind = record["encoder"]["kind"]
        if kind not in ENCODERS:
            raise CheckpointError(
                f"{where} has an encoder of kind `{kind}`, which is not known here.{did_you_mean(kind, ENCODERS)} Known: "
                f"{', '.join(ENCODERS)}. One of your own is made known with `register_encoder` before loading"
            )
        encoder = ENCODERS[kind](**record["encoder"]["settings"])
        part = Part(encoder, Projector(**record["projector"]), place=record["place"])
        part.drawn = record.get("drawn")
        return part
