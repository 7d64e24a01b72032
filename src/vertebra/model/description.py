"""What a multimodal folder is made of, read from its records and headers alone: no weight is loaded.

    image     siglip_vision_model, block 26 of 27, from 224 × 224 pixels
              256 × 1152 ──gelu2──► 256 × 4096     256 slots an item, right after BOS        412.4 M, 4.7 M
    backbone  llama2-7b-pure (llama2) …
    action    8 × 7 numbers by L1 regression …
              56 hidden states ──l1──► 8 × 7     151.1 M parameters

`vertebra info` prints it. It knows files, not models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from vertebra.backbone.source import RECORD, find, read_header, weight_files
from vertebra.errors import CheckpointError
from vertebra.reading import read_json, reading

PLACES = {"slots": "in its slots", "anchored": "right after BOS", "added": "added to its tokens"}


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """One part of a model folder."""

    name: str
    kind: str
    about: str
    """What it is and what it reads."""
    slots: int
    """Slots that one item fills."""
    encoder_width: int | None
    """Columns of what the encoder makes; None for queries, which have none."""
    projector: str | None
    width: int
    """Columns of what enters the model."""
    place: str
    encoder_parameters: int
    projector_parameters: int


@dataclass(frozen=True, kw_only=True)
class HeadFacts:
    """One action head of a model folder."""

    name: str
    kind: str
    about: str
    reads: str
    slots: int
    """Slots that one chunk takes."""
    chunk: int
    dims: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class MultimodalFacts:
    """A multimodal folder."""

    folder: str
    backbone: str
    family: str
    builder: str | None
    layers: int | None
    embedding: tuple[int, ...]
    """Rows and columns of the embedding matrix."""
    backbone_parameters: int
    parts: tuple[PartFacts, ...]
    heads: tuple[HeadFacts, ...]
    dtypes: tuple[str, ...]
    bytes: int
    versions: Mapping[str, str]
    record: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        parts = sum(p.encoder_parameters + p.projector_parameters for p in self.parts)
        return self.backbone_parameters + parts + sum(head.parameters for head in self.heads)

    def draw(self) -> str:
        """The parts and heads, their widths, parameters and slots, as text."""
        names = [*(part.name for part in self.parts), *(head.name for head in self.heads), "backbone"]
        wide = max(len(name) for name in names) + 2
        lines = []
        for part in self.parts:
            lines += [f"{part.name:<{wide}}{part.about}", " " * wide + _flow(part)]
        rows, columns = self.embedding
        layers = f", {self.layers} layers" if self.layers else ""
        lines += [
            f"{'backbone':<{wide}}{self.backbone} ({self.family}), prompts in the form `{self.builder}`",
            f"{'':<{wide}}embedding {rows} × {columns}{layers}     {counted(self.backbone_parameters)} parameters",
            *(f"{head.name:<{wide}}{head.about}\n" + " " * wide + _answer(head) for head in self.heads),
            f"{'in all':<{wide}}{counted(self.parameters)} parameters, {', '.join(self.dtypes)}, {self.bytes / 2**20:.1f} MiB",
        ]
        return "\n".join(lines)


def describe(folder: str | Path) -> MultimodalFacts:
    """The facts of a multimodal folder; a damaged or other folder is an error that names the fault."""
    source = find(folder)
    described, backbone = source.record.get("parts"), source.record.get("backbone")
    if described is None or backbone is None:
        raise CheckpointError(f"`{source.name}` has no record of parts; expected a folder of `Model.save`")
    headers: dict[str, Any] = {}
    for file in weight_files(source.folder):
        headers.update(read_header(file))
    with reading(f"the record of parts in `{source.name}` is damaged", "save the model again"):
        return facts_of(source.name, source.record, headers, layers=source.config.get("num_hidden_layers"))


def facts_of(
    name: str, record: Mapping[str, Any], headers: Mapping[str, Any], *, layers: int | None = None
) -> MultimodalFacts:
    """The facts that a record and the headers of tensors say."""
    backbone = record["backbone"]
    facts = MultimodalFacts(
        folder=name,
        backbone=backbone["id"],
        family=backbone["family"],
        builder=backbone.get("prompt_builder"),
        layers=layers,
        embedding=tuple(record.get("embedding", (0, 0))),
        backbone_parameters=_count(headers, "backbone."),
        parts=tuple(_part(part, entry, headers) for part, entry in record["parts"].items()),
        heads=tuple(_head(head, entry, headers) for head, entry in (record.get("heads") or {}).items()),
        dtypes=tuple(sorted({entry["dtype"] for entry in headers.values()})),
        bytes=sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in headers.values()),
        versions=record.get("versions", {}),
        record=record.get("record", {}),
    )
    facts.draw()  # numbers that are none show here
    return facts


def holds_parts(where: str | Path) -> bool:
    """Whether this is a multimodal folder at all."""
    file = Path(where).expanduser() / RECORD
    return file.is_file() and "parts" in read_json(file)


def counted(number: int) -> str:
    """1.2 B, 3.4 M, 5.6 k, 789."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f} {letter}"
    return str(number)


def _part(name: str, entry: Mapping[str, Any], headers: Mapping[str, Any]) -> PartFacts:
    if "queries" in entry:
        queries = entry["queries"]
        return PartFacts(
            name=name, kind="queries", about="learned queries" if queries["learned"] else f"fixed {queries['start']}",
            slots=entry["slots"], encoder_width=None, projector=None, width=queries["width"], place=entry["place"],
            encoder_parameters=_count(headers, f"parts.{name}."), projector_parameters=0,
        )  # fmt: skip
    encoder, projector = entry["encoder"], entry["projector"]
    return PartFacts(
        name=name, kind=encoder["kind"], about=encoder["about"], slots=entry["slots"], encoder_width=encoder["width"],
        projector=projector["kind"], width=projector["width_out"], place=entry["place"],
        encoder_parameters=_count(headers, f"parts.{name}.encoder."),
        projector_parameters=_count(headers, f"parts.{name}.projector."),
    )  # fmt: skip


def _head(name: str, entry: Mapping[str, Any], headers: Mapping[str, Any]) -> HeadFacts:
    return HeadFacts(
        name=name, kind=entry["kind"], about=entry["about"], reads=entry["reads"], slots=entry["slots"],
        chunk=entry["chunk"], dims=entry["dims"], parameters=_count(headers, f"heads.{name}."),
    )  # fmt: skip


def _count(headers: Mapping[str, Any], prefix: str) -> int:
    return sum(prod(entry["shape"]) for name, entry in headers.items() if name.startswith(prefix))


def _flow(part: PartFacts) -> str:
    slots = f"{part.slots} slot{'s' if part.slots > 1 else ''} an item, {PLACES.get(part.place, part.place)}"
    if part.projector is None:
        return f"{part.slots} × {part.width}     {slots}     {counted(part.encoder_parameters)} parameters"
    sizes = f"{counted(part.encoder_parameters)} + {counted(part.projector_parameters)} parameters"
    return (
        f"{part.slots} × {part.encoder_width} ──{part.projector}──► {part.slots} × {part.width}     {slots}     {sizes}"
    )


def _answer(head: HeadFacts) -> str:
    read = f"{head.slots} hidden states" if head.reads == "hidden" else "the keys of its layers"
    return f"{read} ──{head.kind}──► {head.chunk} × {head.dims}     {counted(head.parameters)} parameters"
