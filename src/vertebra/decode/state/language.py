"""One language model, ready to be run pass by pass: hidden states from its body, the requested logits from its head.

    B rows, Q new columns, V vocabulary, D width

It knows how a Hugging Face model is called; it does not know where embeddings come from, nor how tokens are chosen.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from vertebra.backbone.head import Head, HeadRows, head_behind_body
from vertebra.backbone.kept import kinds_of
from vertebra.decode.state import cache as caches
from vertebra.decode.state.fused import FusedStep, fused_step
from vertebra.decode.state.products import Way, long_passes, way_of
from vertebra.errors import GenerationError


@dataclass(frozen=True, kw_only=True)
class Requested:
    """What a pass must show besides its cache."""

    columns: torch.Tensor | None = None
    """[B, n]: columns of the pass whose logits are requested; None: the last one."""
    logits: bool = True
    rows: HeadRows | None = None
    """Compute these rows of the head only."""
    hidden: bool = False
    attentions: bool = False
    states: bool = False
    """Show the states that the logits were made of."""

    def without_logits(self) -> Requested:
        return Requested(logits=False, hidden=self.hidden, attentions=self.attentions)


LAST = Requested()


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a pass showed: logits [B, V] of the last column, or [B, n, V] of the chosen ones, in the model's type."""

    logits: torch.Tensor | None
    ids: torch.Tensor | None = None
    """The ids behind the columns of the logits; None: all, in order."""
    hidden: torch.Tensor | None = None
    """[B, Q, D], after the last norm."""
    chosen: torch.Tensor | None = None
    """[B, n, D], those of the columns whose logits were requested."""
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    def select(self, rows: Any) -> Seen:
        """These rows of everything."""

        def of(value: Any) -> Any:
            if value is None:
                return None
            return tuple(layer[rows] for layer in value) if isinstance(value, tuple) else value[rows]

        return Seen(
            logits=of(self.logits), ids=self.ids, hidden=of(self.hidden), hidden_states=of(self.hidden_states),
            attentions=of(self.attentions),
        )  # fmt: skip

    @staticmethod
    def joined(parts: list[Seen]) -> Seen:
        """Passes over consecutive columns as one; logits are those of the last."""
        layers = zip(*[part.hidden_states or () for part in parts], strict=True)
        return Seen(
            logits=parts[-1].logits,
            ids=parts[-1].ids,
            hidden=torch.cat([part.hidden for part in parts if part.hidden is not None], 1),
            hidden_states=tuple(torch.cat(layer, 1) for layer in layers),
        )


class Language:
    """A backbone's language model and its head. Get it by `language_of`."""

    def __init__(self, backbone: Any, before: Language | None = None) -> None:
        self.backbone = weakref.proxy(backbone)
        self.llm = backbone.llm
        self.facts = backbone.attention_facts
        self.layers = kinds_of(self.llm.config)
        self.passing = None if self.layers is None else caches.passing(self.layers)
        self.dtype: torch.dtype = backbone.dtype
        self.device: torch.device = backbone.device
        self.num_rows: int = backbone.num_rows
        self._last = self.llm.get_output_embeddings()
        self.num_logits = int(self._last.weight.shape[0])
        self.limit: int | None = getattr(self.llm.config, "max_position_embeddings", None)
        same = before is not None and before._last is self._last  # another kernel or type has no other head
        self.head: Head | None = before.head if before is not None and same else head_behind_body(self.llm)
        self.body = self.llm.base_model
        self._fused: FusedStep | None = None
        self._fused_tried = not self.backbone.inference_mode

    def is_of(self, backbone: Any) -> bool:
        """Whether the backbone is still what it was when this was made: moved, cast, grown and adapted models are others."""
        weight, head = self._last.weight, self.llm.get_output_embeddings()
        same = (weight.dtype, weight.device, weight.shape[0]) == (self.dtype, self.device, self.num_logits)
        same = same and head is self._last and backbone.llm is self.llm and backbone.attn == self.facts.kernel
        return same and (self._fused is None or self._fused.holds())

    @property
    def fused(self) -> FusedStep | None:
        """The model's step in few operations; found at the first step, since a prompt alone has no use for it."""
        if not self._fused_tried and self.head is not None:
            types = self.facts.layer_types or self.facts.types * len(self.layers or ())
            self._fused_tried, self._fused = True, fused_step(self.llm, tuple(types), self.head, self.way)
        return self._fused

    @cached_property
    def way(self) -> Way:
        """How products are computed fastest here."""
        return way_of(self.llm)

    def before_steps(self) -> None:
        """Look whether weights were changed in place since copies of them were made for the steps."""
        if self._fused is not None and not self._fused.is_fresh():
            self._fused, self._fused_tried = None, False

    def step(self, tokens: torch.Tensor, mask: Any, positions: torch.Tensor, cache: Any, requested: Requested) -> Seen:
        """`run` for one new token a row."""
        plain = requested.logits and not (requested.hidden or requested.attentions or requested.columns is not None)
        fused = self.fused if plain and caches.grows(cache) else None
        if fused is None or self.head is None or not fused.free():
            return self.run({"input_ids": tokens}, mask, positions, cache, requested)
        hidden = fused.run(tokens, mask, positions, cache)
        logits = fused.logits(hidden) if requested.rows is None else None
        return Seen(
            logits=self.head(hidden, requested.rows) if logits is None else logits,
            chosen=hidden if requested.states else None,
            ids=None if requested.rows is None else requested.rows.ids,
            hidden=hidden[:, None],
        )

    def run(
        self,
        inputs: dict[str, torch.Tensor],
        mask: Any,
        positions: torch.Tensor,
        cache: Any,
        requested: Requested = LAST,
    ) -> Seen:
        """One pass over new columns; the cache grows by them."""
        extra: dict[str, Any] = {}
        if requested.hidden:
            extra["output_hidden_states"] = True
        if requested.attentions:
            extra["output_attentions"] = True
        call = {
            **inputs,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": cache is not None,
            **extra,
        }
        if requested.attentions and self.facts.kernel != "eager":
            with self.backbone.kernel("eager"):  # the only one that keeps attention weights
                return self._run(call, requested)
        with long_passes(lambda: self.way, self.dtype):
            return self._run(call, requested)

    def _run(self, call: dict[str, Any], requested: Requested) -> Seen:
        if self.head is None:
            return self._whole(call, requested)
        out = self.body(**call)
        hidden = out.last_hidden_state
        chosen = _chosen(hidden, requested) if requested.logits else None
        logits = None if chosen is None else self.head(chosen, requested.rows)
        return Seen(
            logits=logits,
            chosen=chosen if requested.states else None,
            ids=None if requested.rows is None else requested.rows.ids,
            hidden=hidden,
            hidden_states=out.get("hidden_states"),
            attentions=out.get("attentions"),
        )

    def _whole(self, call: dict[str, Any], requested: Requested) -> Seen:
        """By the model's own forward, for one that computes more behind its body than its head."""
        keep = 0 if requested.columns is not None else 1
        out = self.llm(**{**call, "output_hidden_states": requested.hidden or requested.states}, logits_to_keep=keep)
        logits = None
        if requested.logits:
            logits = _chosen(out.logits, requested)
            logits = logits if requested.rows is None else logits[..., requested.rows.ids]
        states = out.get("hidden_states")
        return Seen(
            logits=logits,
            ids=None if requested.rows is None else requested.rows.ids,
            hidden=None if states is None else states[-1],
            chosen=_chosen(states[-1], requested) if requested.states and states is not None else None,
            hidden_states=states if requested.hidden else None,
            attentions=out.get("attentions"),
        )

    def head_rows(self, ids: torch.Tensor) -> HeadRows:
        """Rows of the head for `Want.rows`."""
        return HeadRows(ids) if self.head is None else self.head.rows(ids)


def language_of(backbone: Any) -> Language:
    """The language model of a backbone, made ready once for each of its kernels, types and devices."""
    backbone._require_weights()
    if backbone.llm.training:
        raise GenerationError(
            f"`{backbone.identifier}` is in training mode, where dropout and checkpointing change what it says; call "
            "`eval()` first"
        )
    known = _known.get(backbone)
    if known is None or not known.is_of(backbone):
        known = _known[backbone] = Language(backbone, known)
    return known


_known: weakref.WeakKeyDictionary[Any, Language] = weakref.WeakKeyDictionary()


def _chosen(values: torch.Tensor, requested: Requested) -> torch.Tensor:
    if requested.columns is None:
        return values[:, -1]
    return values.gather(1, requested.columns[..., None].expand(-1, -1, values.shape[-1]))
