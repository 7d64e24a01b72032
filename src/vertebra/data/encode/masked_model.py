"""`MaskedLM`: an encoder that trains on masked batches and fills all masks of a text in one pass.

A thin wrapper around any `…ForMaskedLM`: it takes our batches by name, computes the loss from targets and weights
without shift, and saves a plain Hugging Face folder. It decodes nothing: every mask is filled by the same forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

from vertebra.backbone.source import find
from vertebra.backbone.tiny import TINY_ENCODERS, tiny_checkpoint
from vertebra.compat import bars_only_in_terminals, enable_checkpointing
from vertebra.data.encode.masks import mask_id
from vertebra.data.read.labels import Labels
from vertebra.errors import BackboneError, DataError, TooLongError
from vertebra.sequence.loss import sequence_loss


@dataclass(frozen=True)
class FilledText:
    """One text with its masks filled."""

    text: str
    ids: list[int]
    at: list[int]
    """Where the masks stood."""
    guesses: list[list[tuple[str, float]]]
    """For each mask the likeliest tokens, with their probabilities."""


class EncoderModel(nn.Module):
    """An encoder with a head of its own, and its tokenizer: what training asks of any model, a `Model` too."""

    accepts_loss_kwargs = True  # `num_items_in_batch` is honored: the trainer need not scale the loss again
    parts: Mapping[str, Any] = MappingProxyType({})
    """Nothing enters from outside, and no head answers in numbers."""
    heads: Mapping[str, Any] = MappingProxyType({})
    labels: Labels | None = None
    """The classes of a classifier."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.config = encoder.config
        self._uses_types = "token_type_ids" in tokenizer.model_input_names

    @property
    def identifier(self) -> str:
        """What checkpoints call it."""
        return type(self.encoder).__name__

    @property
    def lm(self) -> Any:
        """The Hugging Face model inside, head included."""
        return self.encoder

    def answering(self, batch: Any) -> None:
        """What heads learn from a batch."""

    @property
    def context(self) -> int:
        """The longest sequence that it can read."""
        return context_of(self.config)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        targets: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        document: torch.Tensor | None = None,
        type: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | float | None = None,
        return_loss: bool = True,
        **unused: Any,
    ) -> dict[str, torch.Tensor]:
        """`loss` (where targets are given) and `logits`. An encoder reads one document a row, positions from 0."""
        if document is not None and bool((document > 0).any()):
            raise DataError("an encoder would let packed samples see each other; give one sample a row, or blocks")
        types = {"token_type_ids": type.long()} if self._uses_types and type is not None else {}
        logits = self.logits(input_ids=input_ids, attention_mask=attention_mask, **types)
        if not return_loss or targets is None or weights is None:
            return {"logits": logits}
        loss = sequence_loss(logits, targets, weights, shift=False, num_items=num_items_in_batch)
        return {"loss": loss, "logits": logits}

    def logits(self, **inputs: torch.Tensor) -> torch.Tensor:
        """[B, L, V]: a row of logits for each position."""
        return self.encoder(**inputs).logits

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass."""
        enable_checkpointing(self.encoder)

    def write(self, folder: Path) -> None:
        """The files of a plain Hugging Face folder that any other code loads."""
        self.save_pretrained(folder)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """The same by the name that training code calls."""
        with bars_only_in_terminals():
            self.encoder.save_pretrained(folder, **options)
            self.tokenizer.save_pretrained(folder)


class MaskedLM(EncoderModel):
    """An encoder with its masked-language head."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        super().__init__(encoder, tokenizer)
        self.mask_id = mask_id(tokenizer)

    @torch.inference_mode()
    def fill(self, texts: str | Sequence[str], *, top: int = 5) -> list[FilledText]:
        """Fill every mask token in the texts; all masks of all texts in one forward pass."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        mask = self.tokenizer.mask_token
        without = [index for index, text in enumerate(texts) if mask not in text]
        if without or not texts:
            raise DataError(f"nothing to fill: write {mask} where a token is expected; texts {without} have none")
        self.tokenizer.padding_side = "right"
        given = self.tokenizer(texts, padding=True, return_tensors="pt")
        if given["input_ids"].shape[1] > self.context:
            raise TooLongError(f"a text has {given['input_ids'].shape[1]} tokens; this encoder reads {self.context}")
        device = next(self.encoder.parameters()).device
        given = {name: value.to(device) for name, value in given.items() if name in self.tokenizer.model_input_names}
        was_training = self.training
        self.eval()
        try:
            chances = self.encoder(**given).logits.float().softmax(-1)
        finally:
            self.train(was_training)
        best = chances.topk(min(top, chances.shape[-1]), dim=-1)
        return [self._filled(row, given, best) for row in range(len(texts))]

    def _filled(self, row: int, given: dict[str, torch.Tensor], best: Any) -> FilledText:
        ids = given["input_ids"][row][given["attention_mask"][row].bool()].clone()
        at = (ids == self.mask_id).nonzero()[:, 0]
        ids[at] = best.indices[row, at, 0].to(ids.device)
        guesses = [
            [
                (self.tokenizer.convert_ids_to_tokens(int(token)), float(chance))
                for token, chance in zip(best.indices[row, place], best.values[row, place], strict=True)
            ]
            for place in at
        ]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return FilledText(text, ids.tolist(), at.tolist(), guesses)


def context_of(config: Any) -> int:
    """The longest sequence that an encoder can read."""
    # RoBERTa and its kin count positions from the pad id on.
    return int(config.max_position_embeddings) - (
        2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    )


def encoder_tokenizer(name: str | Path, *, token: str | None = None) -> tuple[Any, Any]:
    """The tokenizer and the config of an encoder; no weights are loaded."""
    where = tiny_checkpoint(str(name)) if str(name) in TINY_ENCODERS else name
    source = find(where, token=token)
    path = str(source.folder) if source.local else source.name
    config = AutoConfig.from_pretrained(path, token=token)
    if type(config) not in AutoModelForMaskedLM._model_mapping:
        raise BackboneError(
            f"`{name}` is a {config.model_type}, which has no masked-language head; an encoder such as BERT, RoBERTa or "
            "ModernBERT has one. (Causal models are loaded by `load_backbone`.)"
        )
    return AutoTokenizer.from_pretrained(path, token=token), config


def load_masked_lm(
    name: str | Path, *, pretrained: bool = True, dtype: torch.dtype = torch.float32, token: str | None = None
) -> MaskedLM:
    """An encoder by its hub name, folder or tiny name; `pretrained=False` starts it from random weights."""
    tokenizer, config = encoder_tokenizer(name, token=token)
    with bars_only_in_terminals():
        if pretrained:
            encoder = AutoModelForMaskedLM.from_pretrained(config._name_or_path, dtype=dtype, token=token)
        else:
            encoder = AutoModelForMaskedLM.from_config(config, dtype=dtype)
    return MaskedLM(encoder, tokenizer)
