"""From a batch's raw items to embeddings: which part serves which segment, what is wrong with whose items, one call each.

Two cameras that share an encoder are encoded in one call. All faults of all rows are reported in one error, before any
encoder runs. It does not know where embeddings go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vertebra.errors import InjectionError, UnknownNameError
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.queries import Queries
from vertebra.model.inject import Encoded
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed

AnyPart = Part | Queries


def serving(parts: Mapping[str, Any], segment: str) -> AnyPart | None:
    """The part of a segment: its own (`image:wrist`), else that of the name before the colon."""
    for name in (segment, segment.split(":")[0]):
        if name in parts:
            return parts[name]
    return None


def encode_items(
    parts: Mapping[str, Any], batch: Batch, device: torch.device, embed: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, Encoded]:
    """Embeddings of everything outside that the batch brings or asks for, by segment. `embed`: ids to token embeddings,
    for encoders that read text."""
    # a segment without a single item is as good as absent: no encoder runs on nothing
    features: Mapping[str, Any] = {name: block for name, block in batch["features"].items() if len(block["rows"])}
    by_part = _by_part(parts, features)
    _check_segments(parts, batch, features)
    _check_items(by_part, features, device)
    encoded: dict[str, Encoded] = {}
    text = text_means(batch, embed) if any(_reads_text(part) for part in by_part) else None
    for part, names in by_part.items():
        encoded |= _run(part, names, features, text if _reads_text(part) else None)
    for number, name in enumerate(batch["segments"]):
        queries = serving(parts, name)
        if isinstance(queries, Queries):
            encoded[name] = queries.fill(batch, number)
    return encoded


def _reads_text(part: Any) -> bool:
    """Whether an encoder is given the text's mean embedding; embeddings that are there already have none."""
    return bool(getattr(getattr(part, "encoder", None), "reads_text", False))


def _by_part(parts: Mapping[str, Any], features: Mapping[str, Any]) -> dict[Part, list[str]]:
    grouped: dict[Part, list[str]] = {}
    for name in features:
        part = serving(parts, name)
        if part is None:
            raise UnknownNameError("segment", name, parts, hint="The batch has raw items of it.")
        if isinstance(part, Queries):
            raise InjectionError(f"`{name}` has raw items, and this model fills its slots with learned queries")
        grouped.setdefault(part, []).append(name)
    return grouped


def _check_segments(parts: Mapping[str, Any], batch: Batch, features: Mapping[str, Any]) -> None:
    """Slots that nobody fills would be read as the reserved token that stands there."""
    faults = []
    for number, name in enumerate(batch["segments"]):
        part = serving(parts, name)
        if isinstance(part, Queries) or (part is not None and name in features):
            continue
        rows = (batch["slot"][..., 0] == number).any(1).nonzero()[:, 0].tolist()
        if rows and part is None:
            raise UnknownNameError("segment", name, parts, hint=f"Row {rows[0]} has slots of it.")
        faults += [f"row {row} has slots of `{name}`, and the batch no item of it" for row in rows]
    if faults:
        raise InjectionError(f"{listed(faults)}. Give `features` to `collate`, one mapping a row")


def _check_items(by_part: Mapping[Part, Sequence[str]], features: Mapping[str, Any], device: torch.device) -> None:
    faults = []
    for part, names in by_part.items():
        for name in names:
            values, rows = features[name]["values"], features[name]["rows"]
            if values.device != device:
                raise InjectionError(
                    f"`{name}` is on {values.device} and the model on {device}; move the whole batch: batch.to(model.device)"
                )
            for item, fault in part.faults(values):
                faults.append(f"`{name}`: {fault}" if item is None else f"{_whose(item, rows)} of `{name}` {fault}")
    if faults:
        raise InjectionError(listed(faults))


def _whose(item: int, rows: torch.Tensor) -> str:
    """`row 2, item 1`: a row's own count, as whoever made the row knows it."""
    row = int(rows[item])
    return f"row {row}, item {int((rows[:item] == row).sum())}"


def text_means(batch: Batch, embed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """[B, D]: the mean embedding of what each row says, its slots left out."""
    own = (batch["attention_mask"].bool() & (batch["slot"][..., 0] < 0))[..., None]
    embeds = embed(batch["input_ids"])
    return ((embeds.float() * own).sum(1) / own.sum(1).clamp(min=1)).to(embeds.dtype)


def _run(
    part: Part, names: Sequence[str], features: Mapping[str, Any], text: torch.Tensor | None
) -> dict[str, Encoded]:
    blocks = [features[name] for name in names]
    values = blocks[0]["values"] if len(blocks) == 1 else torch.cat([block["values"] for block in blocks])
    rows = torch.cat([block["rows"] for block in blocks])
    made = part(values, None if text is None else text[rows]).split([len(block["values"]) for block in blocks])
    return {
        name: Encoded(values=embeds, rows=block["rows"], added=part.added)
        for name, block, embeds in zip(names, blocks, made, strict=True)
    }
