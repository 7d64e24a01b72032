"""`MultimodalModel`: a backbone, and one part for each kind of outside embedding that enters its sequence.

    batch ──► encode ──► Injection ─┐   encoders and projectors, once a prompt
      │                             ▼
      └─────► embed(start, stop) ─────► inputs_embeds ──► backbone ──► loss, logits, hidden states, cache
                                                            ▲
              sequence.masks.plan ──► mask, positions ──────┘

    injection = model.encode(batch)                         # a pure table: keep it for as long as you decode
    model.embed(batch, start=0, stop=None, injection=…)     # embeddings of a stretch, outside ones in it
    model(**batch, past_key_values=cache, injection=…)      # runs what lies beyond the cache

Nothing about a batch is kept on the model, so that two inputs may take turns on it. It does not know decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vertebra.backbone.causal import HFCausalLLMBackbone
from vertebra.errors import ConfigError, InjectionError, SequenceError, UnknownNameError
from vertebra.multimodal.inject import Encoded, Injection, inject, place
from vertebra.multimodal.inputs import whole_batch
from vertebra.multimodal.part import Part
from vertebra.multimodal.queries import Queries
from vertebra.multimodal.selected import Positions, run_at
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed
from vertebra.sequence.loss import Supervised, supervised_positions
from vertebra.sequence.masks import Attend, AttentionPlan, plan

AnyPart = Part | Queries


class MultimodalModel(nn.Module):
    """A backbone and its parts, by segment name; a part `image` also serves `image:wrist` unless that has its own."""

    accepts_loss_kwargs = True  # the Trainer then hands `num_items_in_batch` to `forward`

    def __init__(self, backbone: HFCausalLLMBackbone, parts: Mapping[str, AnyPart] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts = nn.ModuleDict(dict(parts or {}))
        _check_widths(dict(parts or {}), backbone)

    # --- outside embeddings

    def part_for(self, segment: str) -> AnyPart | None:
        """The part that serves a segment: its own, else that of the name before the colon."""
        for name in (segment, segment.split(":")[0]):
            if name in self.parts:
                return self.parts[name]  # type: ignore[return-value]
        return None

    @property
    def sizes(self) -> dict[str, int]:
        """Slots that one item of each part takes: what `render(…, sizes=…)` needs."""
        return {name: part.slots for name, part in self.parts.items()}  # type: ignore[misc]

    @property
    def anchored(self) -> tuple[str, ...]:
        """The parts whose slots stand right after BOS: what `render(…, anchored=…)` needs."""
        return tuple(name for name, part in self.parts.items() if part.place == "anchored")

    def encode(self, batch: Mapping[str, Any]) -> Injection:
        """Run the encoders and projectors on a batch's raw items, once, and make the table of where they go.

        A pure function of (row, absolute position): valid for every stretch of these rows, and for rows that grow
        longer. Text-only rows cost nothing. Errors name every row that does not fit.
        """
        batch = whole_batch(batch)
        features: Mapping[str, Any] = batch["features"]
        self._check_segments(batch)
        encoded: dict[str, Encoded] = {}
        for part, names in self._by_part(features).items():
            encoded |= _run_part(part, names, features, batch)
        for number, name in enumerate(batch["segments"]):
            queries = self.part_for(name)
            if isinstance(queries, Queries):
                encoded[name] = queries.fill(batch, number)
        return place(batch, encoded, width=self.backbone.embedding_width)

    def embed(
        self, batch: Mapping[str, Any], *, start: int = 0, stop: int | None = None, injection: Injection | None = None
    ) -> torch.Tensor:
        """Embeddings [B, stop - start, D] of a stretch of the batch, outside ones in their places.

        Without `injection` the encoders run, if the stretch has slots at all; hand over what `encode` made to run
        them once a prompt.
        """
        batch = whole_batch(batch)
        ids = batch["input_ids"][:, start:stop]
        if injection is None and batch["segments"] and bool((batch["slot"][:, start:stop, 0] >= 0).any()):
            injection = self.encode(batch)
        return inject(self.backbone.embed_input_ids(ids), injection, start=start)

    def _by_part(self, features: Mapping[str, Any]) -> dict[Part, list[str]]:
        """Which segments each part encodes, so that two cameras of one encoder make one call."""
        grouped: dict[Part, list[str]] = {}
        for name in features:
            part = self.part_for(name)
            if part is None:
                raise UnknownNameError("segment", name, self.parts, hint="The batch has features of it.")
            if isinstance(part, Queries):
                raise InjectionError(f"`{name}` has raw items, and this model fills its slots with learned queries")
            grouped.setdefault(part, []).append(name)
        return grouped

    def _check_segments(self, batch: Batch) -> None:
        """Slots that nobody fills would be read as the reserved token that stands there."""
        faults = []
        for number, name in enumerate(batch["segments"]):
            part = self.part_for(name)
            if isinstance(part, Queries) or (part is not None and name in batch["features"]):
                continue
            rows = (batch["slot"][..., 0] == number).any(1).nonzero()[:, 0].tolist()
            if not rows:
                continue
            if part is None:
                raise UnknownNameError("segment", name, self.parts, hint=f"Row {rows[0]} has slots of it.")
            faults += [f"row {row} has slots of `{name}`, and the batch no items of it" for row in rows]
        if faults:
            raise InjectionError(f"{listed(faults)}. Give `features` to `collate`, one mapping a row")

    # --- one forward

    def forward(
        self,
        *,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        injection: Injection | None = None,
        attend: Attend | None = None,
        logits_to_keep: int | torch.Tensor | None = None,
        positions: tuple[torch.Tensor, torch.Tensor] | None = None,
        output_hidden_states: bool = False,
        num_items_in_batch: int | torch.Tensor | None = None,
        return_loss: bool = True,
        **batch: Any,
    ) -> Any:
        """Run a batch (its keys as arguments), or what lies beyond the cache of `past_key_values`.

        `loss`: where something is supervised and no cache is in use; divided by `num_items_in_batch` where given.
        `logits`: [B, n, V] of `logits_to_keep` (0: all) or [N, V] of `positions` (rows, columns of the batch); asked
        for neither, of all positions when there is no loss, else of none. `attend` is a free rule, as in `plan`.
        """
        whole = whole_batch(batch)
        start = _cached(past_key_values, whole)
        supervised = None
        if return_loss and past_key_values is None and not use_cache:
            supervised = self._supervised(whole, num_items_in_batch)
        if supervised is None and logits_to_keep is None and positions is None:
            logits_to_keep = 0
        embeds = self.embed(whole, start=start, injection=injection)
        planned = plan(
            whole,
            self.backbone.attention_facts,
            dtype=embeds.dtype,
            use_cache=self._caches(past_key_values, use_cache, supervised),
            cache_length=start,
            key_sizes=self._key_sizes(past_key_values, embeds.shape[1]),
            attend=attend,
        )

        def run(keep: int | torch.Tensor = 0) -> Any:
            return self._run(embeds, planned, past_key_values, keep, output_hidden_states)

        chosen = None if positions is None else Positions.of(positions, whole, start)
        out, logits, losing = self._logits(run, embeds, supervised, chosen, logits_to_keep)
        loss = None
        if supervised is not None and losing is not None:
            loss = supervised.loss(losing, num_items=num_items_in_batch)
        return type(out)(
            loss=loss,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )

    def _run(
        self, embeds: torch.Tensor, planned: AttentionPlan, past: Any, keep: int | torch.Tensor, hidden: bool
    ) -> Any:
        options = {**planned.kwargs, "inputs_embeds": embeds, "past_key_values": past, "logits_to_keep": keep}
        # lengths of documents are words that only a kernel understands: the interface has no name for them
        run = self.backbone.llm if planned.extra else self.backbone
        return run(**options, output_hidden_states=hidden)

    def _logits(
        self,
        run: Any,
        embeds: torch.Tensor,
        supervised: Supervised | None,
        chosen: Positions | None,
        keep: int | torch.Tensor | None,
    ) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
        """(output, the logits that were asked for, the logits that the loss needs): one run of the head."""
        if chosen is not None and keep is not None:
            raise SequenceError("`positions` and `logits_to_keep` both say which logits to make; give one of them")
        if supervised is None and chosen is None:
            out = run(0 if keep is None else keep)
            return out, out.logits, None
        if isinstance(keep, int) and keep == 0:
            out = run()
            return out, out.logits, None if supervised is None else supervised.select(out.logits)
        rows, length = embeds.shape[:2]
        groups = []
        if supervised is not None:
            groups.append(Positions(rows=supervised.rows, columns=supervised.columns))
        if chosen is not None:
            groups.append(chosen)
        elif keep is not None:
            groups.append(Positions.last(keep, rows, length, embeds.device))
        out, made = run_at(run, self.backbone.llm, groups)
        losing = made.pop(0) if supervised is not None else None
        logits = made.pop() if made else None
        if logits is not None and keep is not None:
            logits = logits.unflatten(0, (rows, -1))
        return out, logits, losing

    def _supervised(self, batch: Batch, num_items: int | torch.Tensor | None) -> Supervised | None:
        at = supervised_positions(batch)
        trains = self.training and torch.is_grad_enabled()
        # a prompt has nothing to learn from; a training batch without anything is a mistake, and the loss says so
        return at if len(at) or trains or num_items is not None else None

    def _caches(self, past: Any, asked: bool | None, supervised: Supervised | None) -> bool:
        if past is not None:
            return True
        return (self.backbone.inference_mode and supervised is None) if asked is None else asked

    def _key_sizes(self, past: Any, queries: int) -> dict[str, tuple[int, int]]:
        """Which keys each layer type's cache hands out: a rolling one drops some, a static one has empty room."""
        if past is None:
            return {}
        facts = self.backbone.attention_facts
        types = facts.layer_types or facts.types
        return {name: past.get_mask_sizes(queries, types.index(name)) for name in facts.types}

    # --- training

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations of backbone and encoders in the backward pass; gradients reach every part."""
        self.backbone.enable_gradient_checkpointing()


def _run_part(part: Part, names: Sequence[str], features: Mapping[str, Any], batch: Batch) -> dict[str, Encoded]:
    """One call of a part's encoder for all segments that it serves."""
    blocks = [features[name] for name in names]
    values = blocks[0]["values"] if len(blocks) == 1 else torch.cat([block["values"] for block in blocks])
    embeds = part(values)
    parts = embeds.split([len(block["values"]) for block in blocks])
    return {
        name: Encoded(values=made, rows=block["rows"], added=part.added)
        for name, block, made in zip(names, blocks, parts, strict=True)
    }


def _cached(past: Any, batch: Batch) -> int:
    """How many positions the cache holds; the batch must hold those and at least one more."""
    start = 0 if past is None else int(past.get_seq_length())
    if start >= batch.length:
        raise SequenceError(
            f"the cache holds {start} positions and the batch {batch.length}; the batch holds the cached ones and at "
            "least one new one (`batch.append(ids)`)"
        )
    return start


def _check_widths(parts: Mapping[str, AnyPart], backbone: HFCausalLLMBackbone) -> None:
    width = backbone.embedding_width
    faults = [f"`{name}` makes embeddings of width {part.width}" for name, part in parts.items() if part.width != width]
    if faults:
        raise ConfigError(
            f"{listed(faults)}; the embedding matrix of `{backbone.identifier}` has {width} columns "
            "(`backbone.embedding_width`)"
        )
