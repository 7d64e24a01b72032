"""A prompt made ready: a batch whose rows end in the last column, checked against the model that is to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vertebra.decode.state.checks import check_prompt
from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.columns import as_batch
from vertebra.decode.state.language import Language, language_of
from vertebra.model.model import Model, model_of
from vertebra.sequence.batch import Batch


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """What every pass over a prompt needs."""

    model: Model
    language: Language
    batch: Batch
    layout: ColumnFacts | None = None
    """What its columns look like; None: not looked at yet."""


def ready(model: Any, prompt: Any) -> Ready:
    """`prompt`: a batch, a `TokenSequence` or a list of them."""
    model = model_of(model)
    language = language_of(model.backbone)
    batch, layout = as_batch(prompt, model.backbone, language.device)
    check_prompt(batch, layout, language)
    return Ready(model=model, language=language, batch=batch, layout=layout)
