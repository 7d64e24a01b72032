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

from vertebra.errors import ConfigError, InjectionError, UnknownNameError

Tables = Callable[..., tuple[torch.Tensor, torch.Tensor]]
"""`tables(input_ids, **payload)` -> mask [B, L] where something is injected, and embeddings [B, L, D] of it."""

_ADDED = ("inject_mask", "inject_embeds")


_USUAL = ("bbox", "pixel_values")


def inject_at_prefill(model: Any, tables: Tables, payload: Sequence[str] | None = None) -> Callable[[], None]:
    """After this, `model.generate(input_ids=…, bbox=…, pixel_values=…)` is right with the cache; returns the way back.

    `tables` runs your encoders, once a call. `payload`: the inputs that are handed to it; None: those that it takes.
    Your `forward` must take `inputs_embeds`; called directly with `bbox` or `pixel_values` (training), it is what it
    was. On a model that has the hook already, the new one takes the place of the old.
    """
    _check_model(model)
    names = _payload(tables, payload)
    if (before := getattr(vars(model).get("forward"), "_taken_off", None)) is not None:
        before()
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
        given = {name: kwargs.pop(name) for name in names if kwargs.get(name) is not None}
        if given:
            _check_given(tables, ids, given)
            kwargs |= dict(zip(_ADDED, _checked(tables(ids, **given), ids, model.get_input_embeddings()), strict=True))
        return generate(ids, *args, **kwargs)

    placed.__signature__ = _signature(forward)  # type: ignore[attr-defined]
    # an override written for older versions would drop the prompt or the tables; the library's own does neither
    library: Any = next(cls for cls in type(model).__mro__ if "generate" in vars(cls))
    prepare = MethodType(library.prepare_inputs_for_generation, model)
    new = {"forward": placed, "generate": with_tables, "prepare_inputs_for_generation": prepare}
    old = {name: vars(model)[name] for name in new if name in vars(model)}
    vars(model).update(new)

    def undo() -> None:
        if vars(model).get("forward") is placed:  # else it was taken off, or another took its place
            for name in new:
                del vars(model)[name]
            vars(model).update(old)

    placed._taken_off = undo  # type: ignore[attr-defined]
    return undo


def _check_model(model: Any) -> None:
    if isinstance(model, type) or not callable(getattr(model, "generate", None)):
        came = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ConfigError(f"inject_at_prefill got {came}; expected a model that was made, with a `generate` of its own")
    takes = inspect.signature(model.forward).parameters
    if "inputs_embeds" not in takes and not _takes_more(takes):
        raise ConfigError(
            f"`forward` of {type(model).__name__} takes {', '.join(takes)}, and no `inputs_embeds`, through which the "
            "hook injects; let it take them and hand them on"
        )


def _takes_more(parameters: Any) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def _payload(tables: Tables, payload: Sequence[str] | None) -> tuple[str, ...]:
    """The names of what is handed to `tables`, each known to it."""
    takes = inspect.signature(tables).parameters
    own = [name for name, one in takes.items() if one.kind is not inspect.Parameter.VAR_KEYWORD][1:]
    if payload is None:
        return tuple(dict.fromkeys([*own, *_USUAL])) if _takes_more(takes) else tuple(own)
    names = (payload,) if isinstance(payload, str) else tuple(payload)
    for name in names:
        if name not in own and not _takes_more(takes):
            raise UnknownNameError("payload", name, own, hint="These are what `tables` takes besides the ids.")
    return names


def _check_given(tables: Tables, ids: Any, given: dict[str, Any]) -> None:
    if not isinstance(ids, torch.Tensor):
        raise InjectionError(f"{', '.join(given)} came without `input_ids`, which say where they go; give both")
    takes = list(inspect.signature(tables).parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [one.name for one in takes if one.default is inspect.Parameter.empty and one.kind in named]
    missing = [f"`{name}`" for name in needed if name not in given]
    if missing:
        raise InjectionError(
            f"`tables` needs {', '.join(missing)}, and this call gives {', '.join(given)} alone. Give it, or let "
            "`tables` do without: a default of None, and nothing put in its places"
        )


def _checked(made: Any, ids: torch.Tensor, embedding: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What `tables` gave, where the ids are; or one error with what came and what was expected."""
    rows, width = embedding.weight.shape  # type: ignore[misc]
    if not isinstance(made, tuple | list) or len(made) != 2 or not all(isinstance(one, torch.Tensor) for one in made):
        raise InjectionError(f"`tables` returned a {type(made).__name__}; expected two tensors: mask and embeddings")
    mask, embeds = (one.to(ids.device) for one in made)
    shape = tuple(ids.shape)
    if mask.dtype != torch.bool or tuple(mask.shape) != shape or tuple(embeds.shape) != (*shape, width):
        raise InjectionError(
            f"`tables` returned a mask of {str(mask.dtype).removeprefix('torch.')} {list(mask.shape)} and embeddings "
            f"{list(embeds.shape)}; expected bool {list(shape)}, one entry for each id, and {[*shape, width]}"
        )
    loose = (~mask & ((ids < 0) | (ids >= rows))).nonzero().tolist()
    if loose:
        row, column = loose[0]
        raise InjectionError(
            f"id {int(ids[row, column])} in row {row}, column {column} is beyond the {rows} rows of the embedding, and "
            f"`tables` puts nothing there ({len(loose)} such places); fill it, or leave its placeholder out"
        )
    return mask, embeds


def _signature(forward: Any) -> inspect.Signature:
    """With the tables: `generate` reads names from the signature, and hands on nothing that is not there."""
    signature = inspect.signature(forward)
    names = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in _ADDED]
    rest = [one for one in signature.parameters.values() if one.kind is inspect.Parameter.VAR_KEYWORD]
    own = [one for one in signature.parameters.values() if one not in rest]
    return signature.replace(parameters=[*own, *names, *rest])
