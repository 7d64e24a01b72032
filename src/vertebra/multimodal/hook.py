"""`inject_at_prefill`: makes a `PreTrainedModel` of your own, which injects inside `forward`, right with the cache on.

Such models take `bbox` or `pixel_values` in `forward` and work only with `use_cache=False`: at the second step they are
given one token and the whole page. Here the page becomes a table of (row, absolute position) once, before decoding,
and each forward takes the slice that begins at the cache's length. `docs/cache.md` tells the story. It knows no batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from types import MethodType
from typing import Any

import torch

Tables = Callable[..., tuple[torch.Tensor, torch.Tensor]]
"""`tables(input_ids, **payload)` -> mask [B, L] where something is injected, and embeddings [B, L, D] of it."""

_ADDED = ("inject_mask", "inject_embeds")


def inject_at_prefill(
    model: Any, tables: Tables, payload: Sequence[str] = ("bbox", "pixel_values")
) -> Callable[[], None]:
    """After this, `model.generate(input_ids=…, bbox=…, pixel_values=…)` is right with the cache; returns the way back.

    `tables` runs your encoders, once a call. Your `forward` must take `inputs_embeds`; called directly with `bbox` or
    `pixel_values` (training), it is what it was.
    """
    forward, generate = model.forward, model.generate

    @wraps(forward)
    def placed(*args: Any, inject_mask: Any = None, inject_embeds: Any = None, **kwargs: Any) -> Any:
        if inject_mask is None:
            return forward(*args, **kwargs)
        ids, past = kwargs.pop("input_ids"), kwargs.get("past_key_values")
        start = 0 if past is None else int(past.get_seq_length())
        # beyond the table nothing is injected: the slice is then empty, and padded with "no"
        known = inject_mask[:, start : start + ids.shape[1]]
        mask = torch.nn.functional.pad(known, (0, ids.shape[1] - known.shape[1]))
        embeds = model.get_input_embeddings()(ids.masked_fill(mask, 0))  # placeholders may lie outside the vocabulary
        values = inject_embeds[:, start : start + ids.shape[1]][known].to(embeds.dtype)
        return forward(inputs_embeds=embeds.index_put((mask,), values), **kwargs)

    @torch.no_grad()
    def with_tables(inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        ids = kwargs.pop("input_ids", inputs)
        given = {name: kwargs.pop(name) for name in payload if kwargs.get(name) is not None}
        if given:
            kwargs |= dict(zip(_ADDED, tables(ids, **given), strict=True))
        return generate(ids, *args, **kwargs)

    # `generate` reads names from the signature, and hands on nothing that is not there
    signature = inspect.signature(forward)
    names = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in _ADDED]
    rest = [one for one in signature.parameters.values() if one.kind is inspect.Parameter.VAR_KEYWORD]
    own = [one for one in signature.parameters.values() if one not in rest]
    placed.__signature__ = signature.replace(parameters=[*own, *names, *rest])  # type: ignore[attr-defined]
    # an override written for older versions would drop the prompt or the tables; the library's own does neither
    library: Any = next(cls for cls in type(model).__mro__ if "generate" in vars(cls))
    model.forward, model.generate = placed, with_tables
    model.prepare_inputs_for_generation = MethodType(library.prepare_inputs_for_generation, model)

    def undo() -> None:
        for name in ("forward", "generate", "prepare_inputs_for_generation"):
            delattr(model, name)

    return undo
