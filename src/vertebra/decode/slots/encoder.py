"""Encoder models with a masked-language head, as parallel decoding needs them: rows in, logits of the masks out.

It knows no causal models.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch

from vertebra.errors import GenerationError, TooLongError
from vertebra.sequence.batch import Batch, collate, uncollate
from vertebra.sequence.tokens import TokenSequence


@runtime_checkable
class FillsMasks(Protocol):
    """A model that fills masks instead of continuing text: a `…ForMaskedLM`, its tokenizer, and the id of a mask."""

    encoder: Any
    tokenizer: Any
    mask_id: int


class EncoderSide:
    """A masked language model and its tokenizer."""

    def __init__(self, model: FillsMasks) -> None:
        self._encoder, self.tokenizer, self.mask_id = model.encoder, model.tokenizer, int(model.mask_id)
        self._context = getattr(model, "context", None)
        self._typed = "token_type_ids" in self.tokenizer.model_input_names
        self.num_logits = int(self._encoder.get_output_embeddings().weight.shape[0])

    def batch(self, prompt: Any) -> Batch:
        """Rows that begin in the first column, for encoders count positions from there; text is encoded as it is."""
        pad = self.tokenizer.pad_token_id
        if isinstance(prompt, str):
            prompt = [prompt]
        if isinstance(prompt, TokenSequence):
            prompt = [prompt]
        if isinstance(prompt, Batch):
            first = prompt["attention_mask"][:, 0].bool()
            batch = prompt if bool(first.all()) else collate(uncollate(prompt), pad_id=pad)
        else:
            rows = [TokenSequence.of(self.tokenizer(one).input_ids) if isinstance(one, str) else one for one in prompt]
            batch = collate(rows, pad_id=pad)
        if bool((batch["document"] > 0).any()) or bool((batch["slot"][..., 0] >= 0).any()):
            raise GenerationError("an encoder reads one document a row, and words alone: no packed rows, no slots")
        if self._context is not None and batch.length > self._context:
            raise TooLongError(f"a row has {batch.length} positions; this encoder reads {self._context}")
        return batch.to(self._encoder.device)

    def run(self, batch: Batch, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits [B, n, V], states [B, n, D]) of some columns, in one pass."""
        types = {"token_type_ids": batch["type"].long()} if self._typed else {}
        out = self._encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True, **types
        )
        picked = []
        for values in (out.logits, out.hidden_states[-1]):
            picked.append(values.gather(1, columns[..., None].expand(-1, -1, values.shape[-1])))
        return picked[0], picked[1]
