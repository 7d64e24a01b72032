"""`PairClassifier`: an encoder that says which class one or two sentences belong to.

A thin wrapper around any `…ForSequenceClassification`. It takes our batches by name: the class is the target of a row's
first position, whose logits are the classes', so that the loss, its count over ranks and accumulation are those of
every other model. It saves a plain Hugging Face folder, its classes by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from vertebra.compat import bars_only_in_terminals
from vertebra.data.encode.masked_model import EncoderModel, encoder_tokenizer
from vertebra.data.read.labels import Labels
from vertebra.errors import BackboneError, ConfigError, DataError


class PairClassifier(EncoderModel):
    """An encoder with a head of classes."""

    labels: Labels

    def __init__(self, encoder: Any, tokenizer: Any, labels: Labels) -> None:
        super().__init__(encoder, tokenizer)
        self.labels = labels

    def logits(self, **inputs: torch.Tensor) -> torch.Tensor:
        """[B, L, C], the same at every position of a row."""
        return self.encoder(**inputs).logits[:, None].expand(-1, inputs["input_ids"].shape[1], -1)

    @torch.inference_mode()
    def classify(self, pairs: Sequence[tuple[str, str | None]]) -> list[tuple[str, float]]:
        """The likeliest class of each pair (or of a lone sentence, with None), and its probability."""
        if not pairs:
            raise DataError("no pairs were given; expected [(first, second), …]")
        names = self.labels.names
        assert names is not None, "made with classes"
        was = self.training
        self.eval()
        found = []
        for first, second in pairs:
            given = self.tokenizer(first, second, truncation=True, max_length=self.context, return_tensors="pt").to(
                next(self.encoder.parameters()).device
            )
            best = self.encoder(**given).logits[0].float().softmax(-1).max(-1)
            found.append((names[int(best.indices)], float(best.values)))
        self.train(was)
        return found


def load_classifier(
    name: str | Path,
    labels: Labels | None = None,
    *,
    pretrained: bool = True,
    dtype: torch.dtype = torch.float32,
    token: str | None = None,
) -> PairClassifier:
    """An encoder by its hub name, folder or tiny name, with a head for these classes; None: those it was saved with."""
    tokenizer, config = encoder_tokenizer(name, token=token)
    if labels is None:
        labels = Labels([config.id2label[number] for number in sorted(config.id2label)])
    if labels.names is None:
        raise ConfigError("the labels are numbers of a regression; a classifier needs classes. Declare them by name")
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {label: number for number, label in config.id2label.items()}
    with bars_only_in_terminals():
        if not pretrained:
            encoder = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
            return PairClassifier(encoder, tokenizer, labels)
        encoder, report = _quietly_loaded(config, dtype, token)
    prefix = f"{encoder.base_model_prefix}."
    lost = [key for key in report["missing_keys"] if key.startswith(prefix) and "pooler" not in key]
    if lost:
        raise BackboneError(f"`{name}` lacks weights of its encoder: {', '.join(lost[:8])}. Is it whole?")
    return PairClassifier(encoder, tokenizer, labels)


def _quietly_loaded(config: Any, dtype: torch.dtype, token: str | None) -> tuple[Any, Any]:
    """The library reports a head that is new as a finding; here it is what is asked for, and the rest is checked."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            config._name_or_path, config=config, dtype=dtype, token=token, output_loading_info=True
        )
    finally:
        logging.set_verbosity(before)
