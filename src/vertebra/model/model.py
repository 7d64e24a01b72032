"""`Model`: a backbone, a part for each kind of outside embedding in its sequence, and heads that answer in numbers, or none.

    batch ──► encode ──► Injection ─┐   encoders and projectors, once a prompt
      │                             ▼
      └─────► embed(start, stop) ─────► inputs_embeds ──► backbone ──► loss, logits, hidden states, cache
                                                            ▲
              sequence.plan_attention ──► mask, positions ──┘  └─► heads: chunks of actions

    injection = model.encode(batch)                         # a pure table: keep it for as long as you decode
    model.embed(batch, start=0, stop=None, injection=…)     # embeddings of a stretch, outside ones in it
    model(**batch, past_key_values=cache, injection=…)      # runs what lies beyond the cache

Nothing about a batch is kept on the model, so that two inputs may take turns on it. It does not know decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from vertebra.backbone.head import entering_head
from vertebra.backbone.interface import LLMBackbone
from vertebra.errors import GenerationError, SequenceError, UnknownNameError
from vertebra.folders import require_free, write_whole
from vertebra.model.aside import Aside
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.vision import VisionTower
from vertebra.model.encoding import AnyPart, encode_items, serving
from vertebra.model.fit import require_fit
from vertebra.model.folder import load_model, share_once, write_model
from vertebra.model.heads.answering import Answering, loss_of, without_answers
from vertebra.model.heads.interface import ActionHead
from vertebra.model.inject import Injection, inject, place
from vertebra.model.inputs import cached_positions, has_slots, whole_batch
from vertebra.model.recompute import require_no_keys, require_plain
from vertebra.model.selected import Positions, head_outputs
from vertebra.prompt.rendering import Conversation, render
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.features import Features
from vertebra.sequence.loss import Supervised, supervised_positions
from vertebra.sequence.masks import Attend, AttentionPlan, plan_attention
from vertebra.sequence.tokens import TokenSequence


class Model(nn.Module):
    """A backbone with its parts and heads, by segment name; a part `image` also serves `image:wrist` unless that has its
    own. A head learns what stands in the slots of its segment, which a part fills."""

    accepts_loss_kwargs = True  # the Trainer then hands `num_items_in_batch` to `forward`

    def __init__(
        self,
        backbone: LLMBackbone,
        parts: Mapping[str, AnyPart] | None = None,
        *,
        heads: Mapping[str, ActionHead] | None = None,
        record: Mapping[str, Any] | None = None,
        aside: Aside | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.parts = backbone, nn.ModuleDict(dict(parts or {}))
        self.heads = nn.ModuleDict(dict(heads or {}))
        require_fit(backbone, self.parts, self.heads)  # type: ignore[arg-type]
        self.record = dict(record or {})
        """What else belongs to the model and is saved with it, as plain data (statistics of actions, say)."""
        self.aside = aside or Aside()
        """What came with it from elsewhere and is only kept."""
        share_once(self)

    @property
    def device(self) -> torch.device:
        """Where batches must be."""
        return self.backbone.llm.get_input_embeddings().weight.device

    @property
    def identifier(self) -> str:
        """The name of its backbone."""
        return self.backbone.identifier

    @property
    def lm(self) -> Any:
        """The Hugging Face model inside, head included."""
        return self.backbone.llm

    @property
    def tokenizer(self) -> Any:
        return self.backbone.tokenizer

    @property
    def context(self) -> int | None:
        """Positions that a row may have; None: the model sets no limit."""
        return getattr(self.backbone.llm.config, "max_position_embeddings", None)

    # From what people have to a batch

    @property
    def sizes(self) -> dict[str, int]:
        """Slots that one item of each part takes."""
        return {name: part.slots for name, part in self.parts.items()}  # type: ignore[misc]

    @property
    def anchored(self) -> tuple[str, ...]:
        """The parts whose slots stand right after BOS."""
        return tuple(name for name, part in self.parts.items() if part.place == "anchored")

    def render(self, conversation: Conversation, **options: Any) -> TokenSequence:
        """A conversation in this model's prompt format, with this model's slots; options are those of `render`."""
        options = {"anchored": self.anchored, "sizes": self.sizes, "anchor": self.backbone.anchor, **options}
        form: Any = self.backbone.prompt_builder_fn
        builder = form.of(self.tokenizer) if form.follows_tokenizer else form
        return render(conversation, builder, self.tokenizer, **options)

    def prepare(self, items: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """One row's items as people have them (image files, lists of numbers) as arrays for `collate`."""
        prepared = {}
        for name, values in items.items():
            part = serving(self.parts, name)  # type: ignore[arg-type]
            if not isinstance(part, Part):
                raise UnknownNameError("segment", name, self.parts)
            prepared[name] = part.encoder.prepare(values)
        return prepared

    def collate(
        self,
        sequences: Sequence[TokenSequence],
        features: Sequence[Features | None] | None = None,
        *,
        side: Literal["right", "left"] | None = None,
        **options: Any,
    ) -> Batch:
        """A batch on this model's device, padded as its tokenizer pads (left to run, right to train).

        A row longer than the model is an error that counts its tokens and slots; `max_length` sets another limit. A
        packed row may be longer: its samples' positions begin anew, and it is they that the model has room for.
        """
        side = side or self.backbone.tokenizer.padding_side
        limit = self.context
        if limit is not None and all(
            isinstance(s, TokenSequence) and int(s.position.max(initial=0)) < limit for s in sequences
        ):
            limit = max([limit, *map(len, sequences)])
        options.setdefault("max_length", limit)
        return collate(sequences, features, pad_id=self.backbone.pad_token_id, side=side, **options).to(self.device)

    # Outside embeddings

    def encode(self, batch: Mapping[str, Any]) -> Injection:
        """Run the encoders and projectors on a batch's raw items, once, and make the table of where they go.

        A pure function of (row, absolute position): valid for every stretch of these rows, and for rows that grow
        longer. Text-only rows cost nothing. One error lists every row whose items are wrong or do not fit.
        """
        batch = without_answers(self._taken(batch), self.heads)  # type: ignore[arg-type]
        encoded = encode_items(self.parts, batch, self.device, self.backbone.embed_input_ids)  # type: ignore[arg-type]
        return place(batch, encoded, width=self.backbone.embedding_width)

    def embed(
        self, batch: Mapping[str, Any], *, start: int = 0, stop: int | None = None, injection: Injection | None = None
    ) -> torch.Tensor:
        """Embeddings [B, stop - start, D] of a stretch of the batch, outside ones in their places.

        Without `injection` the encoders run, if the stretch has slots at all; hand over what `encode` made to run
        them once a prompt.
        """
        batch = self._taken(batch)
        ids = batch["input_ids"][:, start:stop]
        items = batch["features"].keys() - self.heads.keys()
        if injection is None and (has_slots(batch, start, stop) or (start == 0 and items)):
            injection = self.encode(batch)
        return inject(self.backbone.embed_input_ids(ids), injection, start=start)

    def inputs(self, batch: Batch, start: int, stop: int, encoded: Injection | None) -> dict[str, torch.Tensor]:
        """What the backbone is given for columns start:stop: embeddings where they have slots, else their ids."""
        if encoded is None or not bool((encoded.where[:, start:stop] >= 0).any()):
            return {"input_ids": batch["input_ids"][:, start:stop]}
        return {"inputs_embeds": self.embed(batch, start=start, stop=stop, injection=encoded)}

    def text(self, batch: Batch, encoded: Injection | None) -> torch.Tensor:
        """[B, L]: where the token's own embedding stands, alone or with something added to it."""
        own = batch["attention_mask"].bool()
        if encoded is not None:
            replaced = encoded.where[:, : batch.length] >= 0
            if encoded.added is not None:
                replaced = replaced & ~encoded.added[encoded.where[:, : batch.length]]
            own[:, : replaced.shape[1]] &= ~replaced  # a new tensor: the mask's own is of whole numbers
        return own

    # One forward

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
        `logits`: [B, n, V] of `logits_to_keep` (0: all) or [N, V] of `positions` (rows, columns of the batch); given
        neither, of all positions when there is no loss, else of none. `attend` is a free rule, as in `plan_attention`.
        """
        whole = self._taken(batch)
        start = cached_positions(past_key_values, whole)
        supervised = answering = None
        if return_loss and past_key_values is None and not use_cache:
            answering = self.answering(whole)
            supervised = self._supervised(whole, num_items_in_batch, answering)
        if answering is not None and answering.cache is not None:
            past_key_values = answering.cache
        embeds = self.embed(whole, start=start, injection=injection)
        planned = plan_attention(
            whole,
            self.backbone.attention_facts,
            dtype=embeds.dtype,
            use_cache=self._caches(past_key_values, use_cache, supervised),
            cache_length=start,
            key_sizes=self._key_sizes(past_key_values, embeds.shape[1]),
            attend=attend,
        )

        def run(keep: int | torch.Tensor) -> Any:
            return self._run(embeds, planned, past_key_values, keep, output_hidden_states)

        with nullcontext() if answering is None else entering_head(self.backbone.llm, lambda hidden: hidden) as entered:
            out, logits, losing = head_outputs(
                run,
                self.backbone.llm,
                supervised=None if supervised is None else Positions(rows=supervised.rows, columns=supervised.columns),
                positions=None if positions is None else Positions.of(positions, whole, start),
                keep=logits_to_keep,
                shape=(whole.rows, embeds.shape[1]),
            )
        loss = None
        if supervised is not None and losing is not None:
            loss = loss_of(supervised, losing, answering, entered, num_items=num_items_in_batch)
        return type(out)(
            loss=loss,
            logits=logits,
            past_key_values=None if answering is not None else out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )

    def _taken(self, given: Mapping[str, Any]) -> Batch:
        batch = whole_batch(given)
        if batch.device != self.device:
            raise SequenceError(
                f"the batch is on {batch.device} and the model on {self.device}: batch.to(model.device)"
            )
        return batch

    def _run(
        self, embeds: torch.Tensor, planned: AttentionPlan, past: Any, keep: int | torch.Tensor, hidden: bool
    ) -> Any:
        options = {**planned.kwargs, "inputs_embeds": embeds, "past_key_values": past, "logits_to_keep": keep}
        # lengths of documents are words that only a kernel understands: the interface has no name for them
        run = self.backbone.llm if planned.extra else self.backbone
        return run(**options, output_hidden_states=hidden)

    def answering(self, batch: Batch) -> Answering | None:
        """What this model's heads learn from a batch; None where that is nothing."""
        return Answering.of(self.heads, batch, self.backbone)  # type: ignore[arg-type]

    def _supervised(
        self, batch: Batch, num_items: int | torch.Tensor | None, answering: Answering | None
    ) -> Supervised | None:
        at = supervised_positions(batch)
        if answering is not None:
            return at
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

    # Training, saving

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass; gradients reach the parts, whatever of the backbone is frozen."""
        require_no_keys(self.heads.items())
        self.backbone.enable_gradient_checkpointing()
        for module in self.parts.modules():
            if isinstance(module, VisionTower):
                module.recompute = True

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """The name by which a `Trainer` calls it."""
        require_plain({**dict(activation_checkpointing_kwargs or {}), **options})
        self.enable_gradient_checkpointing()

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """The same, as transformers called it before 5.20."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    def save(self, folder: str | Path, *, overwrite: bool = False, state: Mapping[str, Any] | None = None) -> Path:
        """Write the model as one folder, whole or not at all; `state`: its weights, where training gathered them."""
        require_free(Path(folder), overwrite=overwrite)
        return write_whole(Path(folder), lambda part: write_model(self, part, state=state), replace=True)

    def write(self, folder: Path) -> None:
        """The files of `save` into a folder that exists."""
        write_model(self, folder)

    def save_pretrained(self, folder: str | Path, state_dict: Mapping[str, Any] | None = None) -> Path:
        """`save` by the name that training code calls; an older model in that folder is replaced."""
        return self.save(folder, overwrite=True, state=state_dict)

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Model:
        """A model from its folder, to train, or to run with `inference_mode=True`; options are `load_backbone`'s."""
        return load_model(cls, folder, **options)


def model_of(given: Any) -> Model:
    """A model as it is; a backbone, anybody's, as a model without parts. Wrapping one changes and copies nothing."""
    if isinstance(given, Model):
        return given
    if isinstance(given, LLMBackbone):
        return Model(given)
    raise GenerationError(
        f"a {type(given).__name__} cannot be decoded; give a backbone (`load_backbone(…, inference_mode=True, "
        "weights=True)`) or a Model"
    )
