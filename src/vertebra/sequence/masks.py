"""How the rule of `visibility` is given to a model: natively wherever that is exact, by a 4-D mask otherwise.

    form      attention_mask          exact when
    causal    None                    one document a row, nothing both ways, no padding that a real position sees
    full      None                    the same for an encoder whose rows are one block
    2d        [B, K] 1 = real         … and padding that must be hidden
    packed    None, positions restart several documents a row, nothing both ways, no cache, a family that isolates so
    4d        [B, 1, Q, K] 0 / min    always: the window is put in, one mask a layer type where types are mixed; branches

A native form keeps the fast kernels; a 4-D mask replaces everything the model would have done, its sliding window
included, which is therefore put in here. `AttentionFacts` is all that is known of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vertebra.errors import BackboneError, SequenceError, UnknownNameError
from vertebra.sequence.batch import Batch
from vertebra.sequence.visibility import Attend, VisibilitySide, allowed, looks_ahead

__all__ = ["KERNELS", "Attend", "AttentionFacts", "AttentionPlan", "VisibilitySide", "allowed", "plan_attention"]

FULL, SLIDING = "full_attention", "sliding_attention"

KERNELS: dict[str, bool] = {
    "eager": True,
    "sdpa": True,
    "flash_attention_2": False,
    "flash_attention_3": False,
    "flash_attention_4": False,
    "flex_attention": False,
}
"""Attention kernels by their transformers names, and whether each takes a 4-D mask."""

Form = Literal["causal", "full", "2d", "packed", "4d"]


@dataclass(frozen=True, kw_only=True)
class AttentionFacts:
    """What a plan needs of a model, and no more."""

    kernel: str
    """A name of `KERNELS`: what computes attention."""
    window: int | None = None
    """How many positions a windowed layer sees, its own counted; None: no layer has a window."""
    layer_types: tuple[str, ...] | None = None
    """One name a layer, for families that take a mask per type; None: all layers are alike (windowed, if any is)."""
    isolates_by_position: bool = True
    """Whether restarted positions alone keep packed documents apart (without mask and cache). OPT: no."""
    causal: bool = True
    """False for encoders, whose own attention is full."""
    max_positions: int | None = None
    """Rows of a learned table of positions; None where positions are rotary."""

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise UnknownNameError("attention kernel", self.kernel, KERNELS)
        if self.window is not None and self.window < 1:
            raise SequenceError(f"a window of {self.window} positions; it must be at least 1, or None for no window")
        if self.window is None and SLIDING in (self.layer_types or ()):
            raise SequenceError("layers of type `sliding_attention` need a window")

    @property
    def types(self) -> tuple[str, ...]:
        """The layer types that occur, each once."""
        if self.layer_types is None:
            return (FULL if self.window is None else SLIDING,)
        return tuple(dict.fromkeys(self.layer_types))

    @property
    def windowed(self) -> bool:
        return SLIDING in self.types

    @property
    def flash(self) -> bool:
        return self.kernel.startswith("flash_attention")


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPlan:
    """What to hand to the model's forward, and why in this form."""

    form: Form
    reason: str
    attention_mask: torch.Tensor | dict[str, torch.Tensor] | None
    position_ids: torch.Tensor
    use_cache: bool
    extra: Mapping[str, Any]
    """Lengths of the documents, for flash kernels with packed rows; empty otherwise."""

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `forward`. The cache setting is one of them: packed rows stay apart only without it."""
        return {
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "use_cache": self.use_cache,
            **self.extra,
        }


def plan_attention(
    batch: Batch,
    facts: AttentionFacts,
    *,
    dtype: torch.dtype = torch.float32,
    use_cache: bool = False,
    cache_length: int = 0,
    key_sizes: Mapping[str, tuple[int, int]] | None = None,
    attend: Attend | None = None,
) -> AttentionPlan:
    """The cheapest form that is exactly what the batch means, for this model.

    With a cache of `cache_length` positions the batch holds those and the new ones; the queries are the new ones.
    `key_sizes` gives, by layer type, which keys the cache hands to attention: (how many, from which on), as
    `cache.get_mask_sizes(queries, layer)` has it; default: all. `dtype` is that of the model, for a 4-D mask.
    """
    if not 0 <= cache_length < batch.length:
        raise SequenceError(
            f"a cache of {cache_length} positions and a batch of {batch.length}: the batch holds the cached positions "
            "and at least one new one"
        )
    cached = use_cache or cache_length > 0
    seen = _Look.at(batch, facts, cache_length, attend)
    form, reason = _choose(seen, facts, cached=cached)
    if form != "4d":
        _refuse_native(form, reason, seen, facts)
        return _native(form, reason, batch, facts, cached=cached, first_query=cache_length)
    _refuse_4d(reason, facts)
    mask = _float_masks(batch, facts, dtype, cache_length, key_sizes or {}, attend)
    positions = batch["position_ids"][:, cache_length:]
    return AttentionPlan(
        form="4d", reason=reason, attention_mask=mask, position_ids=positions, use_cache=cached, extra={}
    )


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What decides the form, read off a batch in one transfer from its device."""

    free: bool  # a free rule, about which nothing is known
    ahead: bool  # some query sees a later key
    branches: bool  # some query does not see the branches before it
    one_block: bool  # every row is one document and one block
    crosses: bool  # some query has a key of another document before it
    hides: bool  # some query has padding before it
    inner: bool  # … and something real before that padding
    padding: bool  # there is padding
    gaps: bool  # positions do not count up by one inside a document
    apart: bool  # positions tell the documents apart, in the model's own reading
    beyond: bool  # positions that go on through padding would leave a learned table

    @classmethod
    def at(cls, batch: Batch, facts: AttentionFacts, first: int, attend: Attend | None) -> _Look:
        real = batch["attention_mask"].bool()
        document, position, block = batch["document"], batch["position_ids"], batch["block"]
        far = torch.iinfo(document.dtype).max
        lowest = torch.where(real, document, far).cummin(1).values
        highest = torch.where(real, document, -1).cummax(1).values
        hidden = (~real).cumsum(1) > 0
        inner = (~real & (real.cumsum(1) > 0)).cumsum(1) > 0
        follows = real[:, 1:] & real[:, :-1] & (document[:, 1:] == document[:, :-1])
        step = position.diff(dim=1) == 1
        new = real & (first <= torch.arange(batch.length, device=batch.device))
        block_low, block_high = torch.where(real, block, far).amin(1), torch.where(real, block, 0).amax(1)
        limit = batch.length if facts.max_positions is None else facts.max_positions
        flags = [
            looks_ahead(batch, first_query=first),
            (block < 0).any(),
            ((block_low == block_high) & (block_low > 0) & (lowest[:, -1] == highest[:, -1])).all(),
            (new & (lowest != highest)).any(),
            (new & hidden).any(),
            (new & inner).any(),
            (~real).any(),
            (follows & ~step).any(),
            ~(real & (document < highest)).any() & ~(real[:, 1:] & ~follows & step).any(),
            (position[:, 0].amax() + batch.length > limit) if facts.max_positions is not None else ~real.any(),
        ]
        ahead, branches, one_block, crosses, hides, inner, padding, gaps, apart, beyond = torch.stack(flags).tolist()
        return cls(
            free=attend is not None, ahead=ahead, branches=branches, one_block=one_block, crosses=crosses, hides=hides,
            inner=inner, padding=padding, gaps=gaps, apart=apart, beyond=beyond and facts.max_positions is not None,
        )  # fmt: skip


def _choose(seen: _Look, facts: AttentionFacts, *, cached: bool) -> tuple[Form, str]:
    if seen.free:
        return "4d", "a free rule sets who sees whom"
    if not facts.causal:
        if not seen.one_block:
            return "4d", "the model sees everything both ways, and not every row is one block of one document"
        return ("2d", "every row is one block, with padding") if seen.padding else ("full", "every row is one block")
    if seen.branches:
        return "4d", "branches of a row do not see one another"
    if seen.ahead:
        return "4d", "a block sees itself both ways"
    if seen.crosses:
        if cached:
            return "4d", "several documents share a row, and a cache is in use"
        if not facts.isolates_by_position:
            return "4d", "several documents share a row, and this model does not keep them apart by position"
        if seen.gaps or not seen.apart:
            return "4d", "several documents share a row, and their positions alone do not tell them apart"
        return "packed", "several documents share a row, told apart by their positions"
    if (seen.gaps or seen.inner) and facts.windowed:
        return "4d", "positions do not count up by one along the row, and a window counts them"
    if seen.hides or (seen.padding and cached):
        return "2d", "padding must be hidden"
    if seen.gaps:
        return "2d", "positions do not count up by one: without a mask they would be taken for new documents"
    if seen.padding and seen.beyond:
        return "2d", "padding reaches beyond the table of positions"
    if seen.padding:
        return "causal", "one document a row, and padding only to the right, where no real position sees it"
    return "causal", "one document a row, no padding"


def _native(
    form: Form, reason: str, batch: Batch, facts: AttentionFacts, *, cached: bool, first_query: int
) -> AttentionPlan:
    positions = batch["position_ids"]
    mask, extra = None, {}
    if form == "2d":
        mask = batch["attention_mask"]
    elif form == "causal" and not cached:
        # Positions that restart on padding would be taken for new documents, and a mask be made for them: go on.
        running = positions[:, :1] + torch.arange(batch.length, device=batch.device)
        positions = torch.where(batch["attention_mask"].bool(), positions, running)
    elif form == "packed" and facts.flash:
        extra = _document_lengths(batch)
    return AttentionPlan(
        form=form, reason=reason, attention_mask=mask, position_ids=positions[:, first_query:], use_cache=cached,
        extra=extra,
    )  # fmt: skip


def _document_lengths(batch: Batch) -> dict[str, Any]:
    """Where documents begin in all rows laid end to end, as flash kernels take it.

    Positions alone isolate there only while the batch has one row; the lengths do so for any number. A run of padding
    is a document of its own.
    """
    document = batch["document"]
    starts = torch.ones_like(document, dtype=torch.bool)
    starts[:, 1:] = document[:, 1:] != document[:, :-1]
    total = torch.tensor([document.numel()], device=batch.device)
    bounds = torch.cat([starts.flatten().nonzero()[:, 0], total]).to(torch.int32)
    longest = int(bounds.diff().max())
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _float_masks(
    batch: Batch,
    facts: AttentionFacts,
    dtype: torch.dtype,
    first_query: int,
    key_sizes: Mapping[str, tuple[int, int]],
    attend: Attend | None,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """0 where attention may go, the least number of `dtype` elsewhere; a dict where layer types are mixed.

    Float, since a boolean mask is right under sdpa and silently wrong under eager.
    """
    unknown = set(key_sizes) - set(facts.types)
    if unknown:
        raise UnknownNameError("layer type in key_sizes", sorted(unknown)[0], facts.types)
    masks = {}
    for layer_type in facts.types:
        window = facts.window if layer_type == SLIDING else None
        table = allowed(batch, attend=attend, window=window, first_query=first_query)
        if layer_type in key_sizes:
            table = _keys_at_hand(table, layer_type, *key_sizes[layer_type])
        closed = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=table.device)
        masks[layer_type] = torch.where(table, torch.zeros_like(closed), closed)[:, None]
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _keys_at_hand(table: torch.Tensor, layer_type: str, count: int, start: int) -> torch.Tensor:
    """The columns of the keys that a cache hands out: rolling ones have dropped some, static ones have empty room."""
    if bool(table[..., :start].any()):
        raise SequenceError(f"the cache of {layer_type} dropped its first {start} keys, and a query may still see them")
    columns = table[..., start : start + count]
    if columns.shape[-1] < table.shape[-1] - start:
        raise SequenceError(
            f"the cache of {layer_type} hands out {count} keys from {start}: the queries' own are cut off"
        )
    return torch.nn.functional.pad(columns, (0, count - columns.shape[-1]))


def _refuse_native(form: Form, reason: str, seen: _Look, facts: AttentionFacts) -> None:
    if form == "packed":
        _refuse_types(reason, facts)
    if facts.flash and seen.gaps:
        raise BackboneError(
            f"{facts.kernel} takes positions that do not count up by one for new documents, and would split a "
            'document. Load the model with attn="sdpa" or "eager" for such positions.'
        )


def _refuse_types(reason: str, facts: AttentionFacts) -> None:
    unknown = [name for name in facts.types if name not in (FULL, SLIDING)]
    if unknown:
        raise BackboneError(
            f"this batch needs more than plain causal attention ({reason}), and the model has layers of type "
            f"{', '.join(f'`{name}`' for name in unknown)}, for which no mask of ours is exact. Known are `{FULL}` and "
            f"`{SLIDING}`. Give each sample a row of its own, without both-ways blocks."
        )


def _refuse_4d(reason: str, facts: AttentionFacts) -> None:
    """Say no before the kernel does: some fail deep inside, some abort the process, some give wrong numbers."""
    if not KERNELS[facts.kernel]:
        able = " or ".join(f'"{name}"' for name, takes in KERNELS.items() if takes)
        raise BackboneError(
            f"{facts.kernel} cannot take a 4-D attention mask, and this batch needs one: {reason}. Load the model "
            f"with attn={able}."
        )
    _refuse_types(reason, facts)
    if not facts.causal and facts.windowed:
        raise BackboneError(
            f"this batch needs a 4-D mask ({reason}), and what a window means to a model that sees both ways differs "
            "between families. Make every row one block of one document."
        )
