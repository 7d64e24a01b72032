"""What a pass is given: once for a batch whatever its encoders make, then ids or embeddings of any stretch of columns.

A language model without parts takes ids alone. It knows pieces of columns, and nothing of caches or choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vertebra.decode.state.columns import ColumnPiece
from vertebra.errors import GenerationError, InjectionError
from vertebra.model.inject import Injection
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch


@torch.inference_mode()
def encoded(model: Model, batch: Batch) -> Injection | None:
    """What the model's parts make of a batch, to keep for as long as it is decoded; None where there are no parts."""
    if not model.parts:
        _refuse_slots(batch)
        return None
    active = [name for name, module in model.parts.named_modules() if _drops(module)]
    if active:
        raise GenerationError(
            f"`{active[0]}` is in training mode and drops part of what it encodes; call `eval()` first"
        )
    return model.encode(batch)


def _refuse_slots(batch: Batch) -> None:
    if batch["segments"] and bool(((slots := batch["slot"][..., 0]) >= 0).any()):
        names = [batch["segments"][index] for index in slots.unique().tolist() if index >= 0]
        raise InjectionError(
            f"the batch has slots of {', '.join(f'`{name}`' for name in names)}, and a language backbone alone has "
            "nothing to fill them with; give the model with parts that it belongs to"
        )


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.training and module.p > 0


def inputs_of(model: Model, pieces: Sequence[ColumnPiece], start: int, stop: int) -> dict[str, torch.Tensor]:
    """Inputs of columns start:stop, from the pieces that hold them; embeddings as soon as one has any."""
    parts = []
    for piece in pieces:
        first, last = max(start, piece.start), min(stop, piece.stop)
        if first < last:
            parts.append(model.inputs(piece.batch, first - piece.start, last - piece.start, piece.encoded))
    if len(parts) == 1:
        return parts[0]
    if all("input_ids" in part for part in parts):
        return {"input_ids": torch.cat([part["input_ids"] for part in parts], 1)}
    embed: Any = model.backbone.embed_input_ids
    embeds = [part["inputs_embeds"] if "inputs_embeds" in part else embed(part["input_ids"]) for part in parts]
    return {"inputs_embeds": torch.cat(embeds, 1)}
