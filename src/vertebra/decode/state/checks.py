"""What can be wrong with a prompt or a foreign cache, found out before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.language import Language
from vertebra.errors import GenerationError, TooLongError
from vertebra.sequence.batch import Batch, uncollate
from vertebra.sequence.length import composition, listed


def check_prompt(batch: Batch, layout: ColumnFacts, language: Language) -> None:
    """Raise for ids that the model has no row for, and for prompts that are longer than the model."""
    ids = batch["input_ids"].cpu().numpy()
    if int(ids.view(np.uint64).max()) >= language.num_rows:  # a negative one is a very large one here
        wrong = int(ids.max()) if ids.max() >= language.num_rows else int(ids.min())
        raise GenerationError(
            f"id {wrong} is in the prompt; the model's embedding has the rows 0 to {language.num_rows - 1}"
        )
    limit = language.limit
    if limit is None or layout.longest <= limit:
        return
    faults = [
        f"row {row} has {composition(sequence)}"
        for row, sequence in enumerate(uncollate(batch))
        if int(sequence.position.max()) >= limit
    ]
    raise TooLongError(f"`{language.backbone.identifier}` has {limit} positions: {listed(faults)}. Shorten the prompt")


def check_room(position: int, language: Language) -> None:
    """Raise where a step would stand beyond the last position that the model has."""
    limit = language.limit
    if limit is not None and position >= limit:
        raise TooLongError(
            f"`{language.backbone.identifier}` has {limit} positions, and a row has taken all of them: no step can follow. "
            "Trim the state, or begin with a shorter prompt"
        )


def check_cache(cache: Any, batch: Batch, language: Language) -> None:
    """Raise unless a foreign cache can be that of this model and this batch."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        raise GenerationError(
            f"the cache is a {type(cache).__name__}; expected `dynamic`, `static` or a transformers cache"
        )
    config = language.llm.config
    faults = []
    if layers and len(layers) != config.num_hidden_layers:
        faults.append(f"it has {len(layers)} layers, the model {config.num_hidden_layers}")
    filled = [layer for layer in layers if layer.is_initialized]
    if not filled:
        raise GenerationError('the cache is empty; give cache="dynamic" or "static" to begin with an empty one')
    rows, heads, _, width = filled[0].keys.shape
    own_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    own_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if rows != batch.rows:
        faults.append(f"it has {rows} rows, the batch {batch.rows}")
    if (heads, width) != (own_heads, own_width):
        faults.append(f"its keys have {heads} heads of width {width}, the model {own_heads} of {own_width}")
    if filled[0].keys.dtype != language.dtype:
        faults.append(f"its keys are {filled[0].keys.dtype}, the model {language.dtype}")
    if filled[0].keys.device != language.device:
        faults.append(f"its keys are on {filled[0].keys.device}, the model on {language.device}")
    length = int(cache.get_seq_length())
    if length > batch.length:
        faults.append(f"it holds {length} columns, the batch has {batch.length}: the batch holds the cached ones too")
    if faults:
        raise GenerationError(f"this cache does not belong to this model and batch: {'; '.join(faults)}")
