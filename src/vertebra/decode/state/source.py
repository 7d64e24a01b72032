"""Where the inputs of a pass come from: ids for a language backbone, embeddings where outside ones fill slots.

    encode(batch)                        once for a batch: whatever the encoders make of its features, or None
    inputs(batch, start, stop, encoded)  `input_ids` or `inputs_embeds` of columns start:stop, by (row, column) alone
    text(batch, encoded)                 which columns hold a token of their own: what a penalty may count

A model that can do these three things can be decoded; nothing else of it is known to the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from vertebra.backbone.interface import LLMBackbone
from vertebra.decode.state.columns import Piece
from vertebra.errors import GenerationError, InjectionError
from vertebra.model.inject import Injection
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch


class Source(Protocol):
    """What the engine asks of a model."""

    backbone: Any

    def encode(self, batch: Batch) -> Any: ...

    def inputs(self, batch: Batch, start: int, stop: int, encoded: Any) -> dict[str, torch.Tensor]: ...

    def text(self, batch: Batch, encoded: Any) -> torch.Tensor:
        """[B, L]: where the token's own embedding stands, alone or with something added to it."""
        ...


class IdSource:
    """A language backbone alone: its inputs are ids."""

    def __init__(self, backbone: LLMBackbone) -> None:
        self.backbone = backbone

    def encode(self, batch: Batch) -> None:
        slots = batch["slot"][..., 0]
        if batch["segments"] and bool((slots >= 0).any()):
            names = [batch["segments"][index] for index in slots.unique().tolist() if index >= 0]
            raise InjectionError(
                f"the batch has slots of {', '.join(f'`{name}`' for name in names)}, and a language backbone alone has "
                "nothing to fill them with; give the multimodal model that it belongs to"
            )

    def inputs(self, batch: Batch, start: int, stop: int, encoded: None) -> dict[str, torch.Tensor]:
        return {"input_ids": batch["input_ids"][:, start:stop]}

    def text(self, batch: Batch, encoded: None) -> torch.Tensor:
        return batch["attention_mask"].bool()


class InjectedSource:
    """A multimodal model: embeddings where the columns have slots, ids where they have none."""

    def __init__(self, model: Model) -> None:
        self.backbone = model.backbone
        self._model = model

    @torch.inference_mode()
    def encode(self, batch: Batch) -> Injection:
        active = [name for name, module in self._model.parts.named_modules() if _drops(module)]
        if active:
            raise GenerationError(
                f"`{active[0]}` is in training mode and drops part of what it encodes; call `eval()` first"
            )
        return self._model.encode(batch)

    def inputs(self, batch: Batch, start: int, stop: int, encoded: Injection | None) -> dict[str, torch.Tensor]:
        if encoded is None or not bool((encoded.where[:, start:stop] >= 0).any()):
            return {"input_ids": batch["input_ids"][:, start:stop]}
        return {"inputs_embeds": self._model.embed(batch, start=start, stop=stop, injection=encoded)}

    def text(self, batch: Batch, encoded: Injection | None) -> torch.Tensor:
        own = batch["attention_mask"].bool()
        if encoded is not None:
            replaced = encoded.where[:, : batch.length] >= 0
            if encoded.added is not None:
                replaced = replaced & ~encoded.added[encoded.where[:, : batch.length]]
            own[:, : replaced.shape[1]] &= ~replaced  # a new tensor: the mask's own is of whole numbers
        return own


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.training and module.p > 0


def inputs_of(source: Source, pieces: Sequence[Piece], start: int, stop: int) -> dict[str, torch.Tensor]:
    """Inputs of columns start:stop, from the pieces that hold them; embeddings as soon as one has any."""
    parts = []
    for piece in pieces:
        first, last = max(start, piece.start), min(stop, piece.stop)
        if first < last:
            parts.append(source.inputs(piece.batch, first - piece.start, last - piece.start, piece.encoded))
    if len(parts) == 1:
        return parts[0]
    if all("input_ids" in part for part in parts):
        return {"input_ids": torch.cat([part["input_ids"] for part in parts], 1)}
    embed = source.backbone.embed_input_ids
    embeds = [part["inputs_embeds"] if "inputs_embeds" in part else embed(part["input_ids"]) for part in parts]
    return {"inputs_embeds": torch.cat(embeds, 1)}


def source_of(model: Any) -> Source:
    """The source behind a model that was given to be decoded."""
    if isinstance(model, LLMBackbone):
        return IdSource(model)
    if isinstance(model, Model):
        return InjectedSource(model)
    raise GenerationError(
        f"a {type(model).__name__} cannot be decoded; give a backbone (`load_backbone(…, inference_mode=True, "
        "weights=True)`) or a Model"
    )
