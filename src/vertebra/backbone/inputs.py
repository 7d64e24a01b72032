"""What a backbone's `forward` accepts, checked before the model sees it: shapes, ids, lengths, caches of older code.

Each of these would otherwise fail deep inside a kernel, or give plausible numbers in silence (a mask of the new tokens
alone beside a cache). Values are looked at where that is free, on the CPU; shapes everywhere. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vertebra import compat
from vertebra.errors import BackboneError, SequenceError, TooLongError
from vertebra.sequence.masks import KERNELS

IGNORED = -100
"""The label that does not count."""


def positions_of(attention_mask: torch.Tensor) -> torch.Tensor:
    """0, 1, 2 … from the first real token of each row; padding counts as 0."""
    return attention_mask.cumsum(-1, dtype=torch.long).sub_(1).clamp_(min=0)


def check(
    config: Any,
    who: str,
    *,
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    embedding: Callable[[], Any],
    attention_mask: Any,
    position_ids: torch.Tensor | None,
    labels: torch.Tensor | None,
    num_items: Any,
    past: Any,
) -> None:
    """Every check of one call whose inputs `the_one` has seen; `embedding` finds the input embedding, which takes a while."""
    inputs = input_ids if inputs_embeds is None else inputs_embeds
    assert inputs is not None
    _check_ids(input_ids, config.vocab_size)  # not read off the matrix: while it is sharded it has another shape
    if inputs_embeds is not None:
        _check_embeds(inputs_embeds, getattr(embedding(), "embedding_dim", None))
    _check_beside(inputs, attention_mask, position_ids, labels, past)
    _check_labels(labels, num_items)
    _check_length(inputs, position_ids, past, getattr(config, "max_position_embeddings", None), who)


def the_one(input_ids: Any, inputs_embeds: Any) -> torch.Tensor:
    """Whichever of the two came; an error unless exactly one did, with the shape and type that it must have."""
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise SequenceError(f"forward needs input_ids or inputs_embeds; {given} came. Give exactly one of them")
    name, value, ndim = ("input_ids", input_ids, 2) if inputs_embeds is None else ("inputs_embeds", inputs_embeds, 3)
    expected = "ids [B, L] of type long or int" if ndim == 2 else "embeddings [B, L, D] of a floating type"
    if not isinstance(value, torch.Tensor):
        raise SequenceError(f"{name} is a {type(value).__name__}; expected a tensor of {expected}")
    right_type = value.is_floating_point() if ndim == 3 else value.dtype in (torch.int64, torch.int32)
    if value.ndim != ndim or not right_type or not value.numel():
        raise SequenceError(f"{name} is {value.dtype} of shape {tuple(value.shape)}; expected {expected}, none empty")
    return value


def is_plain(mask: Any) -> bool:
    """Whether a mask says only which positions are real."""
    return isinstance(mask, torch.Tensor) and mask.ndim == 2


def mask_for(mask: Any, kernel: str, dtype: torch.dtype) -> Any:
    """The mask as the kernel takes it: [B, K], or [B, 1, Q, K] in floats; masks by layer type are a dict of such.

    A boolean 4-D mask is right under sdpa and silently wrong under eager, which adds it to the scores.
    """
    if isinstance(mask, dict):
        return {layer_type: mask_for(one, kernel, dtype) for layer_type, one in mask.items()}
    if not isinstance(mask, torch.Tensor) or is_plain(mask):
        return mask
    if mask.ndim != 4:
        raise SequenceError(f"attention_mask has shape {tuple(mask.shape)}; expected [B, K], or [B, 1, Q, K]")
    if not KERNELS.get(kernel, True):
        raise BackboneError(
            f"{kernel} cannot take a 4-D attention mask: some versions fail deep inside, some abort the process. Load the "
            'model with attn="sdpa" or "eager"'
        )
    if mask.dtype != torch.bool:
        return mask
    closed = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=mask.device)
    return torch.where(mask, torch.zeros_like(closed), closed)


def _readable(values: torch.Tensor) -> bool:
    """Whether looking at values is free: an accelerator would be waited for, a compiled graph would break."""
    return values.device.type == "cpu" and values.numel() > 0 and not torch.compiler.is_compiling()


def _least_and_most(values: torch.Tensor) -> tuple[int, int]:
    if values.numel() <= 32:  # a decode step: plain numbers are read sooner than a reduction starts
        plain = values.view(-1).tolist() if values.is_contiguous() else values.flatten().tolist()
        return min(plain), max(plain)
    least, most = torch.aminmax(values)
    return int(least), int(most)


def _check_ids(input_ids: torch.Tensor | None, rows: int) -> None:
    """Every id must be a row of the embedding."""
    if input_ids is None or not _readable(input_ids):
        return
    least, most = _least_and_most(input_ids)
    if least < 0 or most >= rows:
        raise SequenceError(
            f"input_ids hold {most if most >= rows else least}, but the embedding has the rows 0 to {rows - 1}; the ids "
            "come from another tokenizer, or from one that grew without the model"
        )


def _check_embeds(inputs_embeds: torch.Tensor, width: int | None) -> None:
    if width is not None and inputs_embeds.shape[-1] != width:
        raise SequenceError(
            f"inputs_embeds are {inputs_embeds.shape[-1]} wide; the embedding matrix of this model is {width} wide"
        )


def _check_beside(inputs: torch.Tensor, attention_mask: Any, position_ids: Any, labels: Any, past: Any) -> None:
    """What comes beside the inputs must speak of the same rows and positions; a mask speaks of the cached ones too."""
    rows, new = inputs.shape[:2]
    seen = _cached_length(past)
    if is_plain(attention_mask) and seen is not None:
        _check_shape("attention_mask", attention_mask, rows, seen + new, f"{seen} cached and {new} new positions")
    if position_ids is not None and position_ids.ndim == 2:  # one row may serve all
        _check_shape("position_ids", position_ids, rows if position_ids.shape[0] != 1 else 1, new, f"{new} positions")
    if labels is not None:
        _check_shape("labels", labels, rows, new, f"{new} positions; they are shifted by the model, not by you")


def _check_shape(name: str, value: torch.Tensor, rows: int, length: int, meaning: str) -> None:
    if tuple(value.shape) != (rows, length):
        raise SequenceError(
            f"{name} has shape {tuple(value.shape)}; expected {(rows, length)}: {rows} rows of {meaning}"
        )


def _check_labels(labels: torch.Tensor | None, num_items_in_batch: Any) -> None:
    """Labels that are all ignored give a loss of NaN, unless other micro-batches are counted in."""
    if labels is None or num_items_in_batch is not None or torch.compiler.is_compiling():
        return
    if not bool((labels[:, 1:] != IGNORED).any()):
        raise SequenceError(
            f"no label counts: all that could be predicted are {IGNORED}, and the loss would be NaN. Check that answers "
            "are supervised and were not cut away; the first position of a row is never predicted"
        )


def _check_length(
    inputs: torch.Tensor, position_ids: torch.Tensor | None, past: Any, limit: int | None, who: str
) -> None:
    """No more positions than the model has. Positions of one's own decide, since a packed row begins anew in its middle;
    they are looked at where that is free, or where the row is long enough to ask."""
    seen = _cached_length(past)
    if limit is None or seen is None:
        return
    mend = "Shorten the prompt, or override `max_position_embeddings` if the model was made for more"
    total = seen + inputs.shape[1]
    own = position_ids is not None and position_ids.numel() > 0 and not torch.compiler.is_compiling()
    if total > limit and not own:
        raise TooLongError(
            f"{inputs.shape[1]} positions after {seen} cached ones make {total}; `{who}` has {limit}. {mend}"
        )
    if position_ids is not None and own and (total > limit or _readable(position_ids)):
        least, most = _least_and_most(position_ids)
        if least < 0 or most >= limit:
            wrong = most if most >= limit else least
            raise TooLongError(
                f"{inputs.shape[1]} positions after {seen} cached ones, whose position_ids hold {wrong}; `{who}` has the "
                f"positions 0 to {limit - 1}. {mend}"
            )


def _cached_length(past: Any) -> int | None:
    """Positions in a cache; None for a static one, which counts in a tensor: reading it would stop the device."""
    seen = 0 if past is None else past.get_seq_length()
    return seen if isinstance(seen, int) else None


def as_cache(past: Any, config: Any) -> Any:
    """A cache as transformers has it; older code's pairs of (keys, values) are converted, anything else is refused."""
    if not isinstance(past, (tuple, list)):
        return past
    pairs = [layer for layer in past if isinstance(layer, (tuple, list)) and len(layer) == 2]
    if len(pairs) != len(past) or len(past) != config.num_hidden_layers:
        raise SequenceError(
            f"past_key_values is a {type(past).__name__} of {len(past)} entries; expected a transformers Cache, or the "
            f"older form, {config.num_hidden_layers} pairs of (keys, values)"
        )
    return compat.cache_from_pairs(past, config)
