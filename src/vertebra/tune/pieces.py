"""What trains, as a table: one row a piece of the model, with tensors, parameters and their share.

    piece                     tensors   trained      parameters         trained   share
    llm.model.embed_tokens          1         0         131,072               0     0 %
    llm.model.layers.0-31         288       224   6,476,267,520      79,953,920   1.2 %

Layers of a list are one row. An encoder that is made from scratch says so, since stages train it with its projector. It
knows modules, and no optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from vertebra.backbone.vocabulary import new_row_ids, restricted_parameters
from vertebra.tune.parts import parts_of

_LAYER = re.compile(r"^(.*?)\.(\d+)(\.|$)")


@dataclass(frozen=True, kw_only=True)
class TrainedPiece:
    """One piece of a model."""

    piece: str
    tensors: int = 0
    trained_tensors: int = 0
    parameters: int = 0
    trained: int = 0

    @property
    def share(self) -> float:
        """How much of the piece trains, 0 to 1."""
        return self.trained / self.parameters if self.parameters else 0.0


def what_trains(model: nn.Module) -> list[TrainedPiece]:
    """One row a piece, in the model's order; shared tensors count once."""
    rows_alone = _rows_alone(model)
    scratch = [name for name, module in model.named_modules() if getattr(module, "pretrained", None) is False]
    rows: dict[str, TrainedPiece] = {}
    numbers: dict[str, set[int]] = {}
    for name, parameter in model.named_parameters():
        piece = _piece(name, numbers)
        if any(name.startswith(f"{encoder}.") for encoder in scratch):
            piece += " (from scratch)"
        if id(parameter) in rows_alone:
            piece += " (new rows only)"
        row = rows.get(piece, TrainedPiece(piece=piece))
        trains = parameter.requires_grad
        rows[piece] = replace(
            row,
            tensors=row.tensors + 1,
            trained_tensors=row.trained_tensors + trains,
            parameters=row.parameters + parameter.numel(),
            trained=row.trained + (rows_alone.get(id(parameter), parameter.numel()) if trains else 0),
        )
    return [replace(row, piece=_named(row.piece, numbers)) for row in rows.values()]


def _rows_alone(model: nn.Module) -> dict[int, int]:
    """How many numbers train of tables whose new rows alone do."""
    backbone = parts_of(model).backbone
    tables = restricted_parameters(backbone) if backbone is not None else []
    return {id(table): len(new_row_ids(backbone)) * (table.numel() // len(table)) for table in tables}


def total(rows: Sequence[TrainedPiece]) -> TrainedPiece:
    return TrainedPiece(
        piece="all",
        tensors=sum(row.tensors for row in rows),
        trained_tensors=sum(row.trained_tensors for row in rows),
        parameters=sum(row.parameters for row in rows),
        trained=sum(row.trained for row in rows),
    )


def as_text(rows: Sequence[TrainedPiece]) -> str:
    """The table in plain text, for terminals and log files."""
    head = ("piece", "tensors", "trained", "parameters", "trained", "share")
    body = [
        (r.piece, f"{r.tensors:,}", f"{r.trained_tensors:,}", f"{r.parameters:,}", f"{r.trained:,}", _percent(r.share))
        for r in (*rows, total(rows))
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (head, *body)
    )


def _percent(share: float) -> str:
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return f"{share * 100:.2g} %"


def _piece(name: str, numbers: dict[str, set[int]]) -> str:
    """The row that a parameter belongs to: its list of layers, or its module; adapters get rows of their own."""
    kind = " (adapter)" if ".lora_" in name or "lora_magnitude" in name or "trainable_tokens_delta" in name else ""
    found = _LAYER.match(name)
    if found:
        numbers.setdefault(found[1], set()).add(int(found[2]))
        return found[1] + ".*" + kind
    for mark in (".token_adapter.", ".lora_", ".base_layer."):
        name = name.partition(mark)[0] + ".weight" if mark in name else name
    return name.rpartition(".")[0] + kind


def _named(piece: str, numbers: dict[str, set[int]]) -> str:
    stem, star, kind = piece.partition(".*")
    if not star:
        return piece
    found = numbers[stem]
    return f"{stem}.{min(found)}" + (f"-{max(found)}" if len(found) > 1 else "") + kind
