"""Conversations → token sequences, by the same `render` that inference uses: ids, supervision, roles and slots at once.

    messages          system      user              assistant
    ids           <s> [INST] <<SYS>> … <</SYS>> what now? [/INST] Go left. </s>
    weight         0     0 0 0 0 0 0 0 0 0 0 0 0 0 0 0  0     1  1  1   1        the answer and what ends it

A conversation that cannot be rendered, or that leaves nothing to train on, is a fault of its row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vertebra.data.encode.added import trusted_roles
from vertebra.data.encode.encoders import Encoder, PlacedSample, place_sequence
from vertebra.data.encode.items import ImageItems
from vertebra.data.encode.pairs import QUESTION, as_conversation
from vertebra.data.read.conversations import Conversation
from vertebra.data.read.formats import Pair
from vertebra.data.read.labels import Labels
from vertebra.data.read.rows import Fault
from vertebra.data.samples.table import ChunkBuilder, RowChunk
from vertebra.errors import DataError, PromptError, SequenceError, VertebraError
from vertebra.model.encoders.images import Preparation, prepare_images
from vertebra.prompt.builders import PromptBuilder
from vertebra.prompt.registry import prompt_builder
from vertebra.prompt.rendering import Anchor, render_many
from vertebra.sequence.tokens import TokenSequence

Builder = PromptBuilder | type[PromptBuilder] | str


class ChatEncoder(Encoder):
    """Conversations of any spelling, by a prompt builder.

    roles: whose words are trained on (`("assistant",)`, or also `"user"`, `"system"`). sizes: how many slots an image
    takes ({"image": 196}); without it images are refused. anchored: parts whose slots stand right after BOS.
    trusted: roles whose text may hold added tokens; `all`: every role but the user. labels, question: for sentence
    pairs, which a language model reads as a question answered by the name of a class.
    """

    name = "chat"

    def __init__(
        self,
        tokenizer: Any,
        builder: Builder,
        *,
        roles: Collection[str] = ("assistant",),
        sizes: Mapping[str, int] | None = None,
        anchor: Anchor | None = None,
        anchored: Collection[str] = (),
        trusted: Collection[str] = (),
        labels: Labels | None = None,
        question: str = QUESTION,
    ) -> None:
        super().__init__(tokenizer)
        self.labels, self.question = labels, question
        self.builder: PromptBuilder | type[PromptBuilder] = (
            prompt_builder(builder) if isinstance(builder, str) else builder
        )
        self.roles, self.anchored, self.trusted = tuple(roles), tuple(anchored), trusted_roles(trusted)
        self.sizes, self.anchor = dict(sizes or {}), anchor

    @classmethod
    def of(cls, backbone: Any, *, system: str | None = None, fold_system: bool = False, **options: Any) -> ChatEncoder:
        """For a backbone: its tokenizer, its prompt builder, its rule for BOS. `system`, `fold_system`: see `speaker`."""
        builder = speaker(backbone, system, fold=fold_system)
        return cls(backbone.tokenizer, builder, anchor=backbone.anchor, **options)

    @property
    def takes(self) -> tuple[type, ...]:
        return (Conversation,) if self.labels is None else (Conversation, Pair)

    @property
    def columns(self) -> tuple[str, ...]:
        plain = ("ids", "weight", "role")
        return (*plain, "target", "block", "slot") if self.sizes else plain

    def options(self) -> Mapping[str, Any]:
        builder = self.builder
        kind = builder if isinstance(builder, type) else type(builder)
        system = None if isinstance(builder, type) else (builder.system_prompt, builder.system)
        return {
            "builder": (kind.__module__, kind.__qualname__, kind.name, str(getattr(kind, "template", ""))),
            "system": system,
            "chat_template": str(getattr(self.tokenizer, "chat_template", None)),
            "roles": sorted(self.roles),
            "sizes": sorted(self.sizes.items()),
            "anchor": self.anchor,
            "anchored": sorted(self.anchored),
            "trusted": sorted(self.trusted),
            "pairs": None if self.labels is None else (self.labels.names, self.labels.by_number, self.question),
        }

    def encode(self, batch: Sequence[PlacedSample | Fault]) -> RowChunk:
        checked = [one if isinstance(one, Fault) else self._checked(one) for one in batch]
        good = [one.sample for one in checked if isinstance(one, PlacedSample)]
        sequences = iter(self._rendered([sample for sample in good if isinstance(sample, Conversation)]))
        made = ChunkBuilder(self.columns)
        for one in checked:
            if isinstance(one, Fault):
                made.fault(one)
                continue
            sequence = next(sequences)
            if isinstance(sequence, str):
                made.fault(one.fault(sequence))
            else:
                place_sequence(made, one, sequence)
        return made.built()

    def _checked(self, placed: PlacedSample) -> PlacedSample | Fault:
        """A sample that can be rendered, as far as can be seen before, or its fault."""
        fault = self.refuse(placed)
        if fault is not None:
            return fault
        sample = placed.sample
        if isinstance(sample, Pair) and self.labels is not None:
            try:
                return placed._replace(sample=as_conversation(sample, self.labels, self.question))
            except DataError as error:
                return placed.fault(str(error))
        if not isinstance(sample, Conversation) or not sample.images:
            return placed
        if "image" not in self.sizes:
            message = (
                "has an image: say how many slots one takes, sizes={'image': …}, or use a model with an image part"
            )
        elif not all(isinstance(image, str) for image in sample.images):
            message = "has an image in memory: write it to a file, images are read when their batch is made"
        else:
            return placed
        return placed.fault(message)

    def _rendered(self, conversations: Sequence[Conversation]) -> list[TokenSequence | str]:
        """Each conversation's sequence, or why it has none."""
        try:
            return list(self._render(conversations))
        except VertebraError:  # one of them; which one, is found by rendering them alone
            return [self._alone(conversation) for conversation in conversations]

    def _render(self, conversations: Sequence[Conversation]) -> list[TokenSequence]:
        return render_many(
            [conversation.messages for conversation in conversations],
            self.builder,
            self.tokenizer,
            self.sizes,
            open_turn=False,
            anchor=self.anchor,
            anchored=self.anchored,
            roles=self.roles,
            trusted=self.trusted,
        )

    def _alone(self, conversation: Conversation) -> TokenSequence | str:
        try:
            return self._render([conversation])[0]
        except (PromptError, SequenceError) as error:
            folds = " (--fold-system; in a recipe data.fold_system=true)" if 'system="fold"' in str(error) else ""
            return f"cannot be rendered: {error}{folds}"


def speaker(backbone: Any, system: str | None = None, *, fold: bool = False) -> PromptBuilder | type[PromptBuilder]:
    """A backbone's prompt builder, with the system prompt of every conversation.

    fold: system prompts stand before the first question, for formats that have no place of their own for them.
    """
    kind: type[PromptBuilder] = backbone.prompt_builder_fn
    if kind.follows_tokenizer:
        kind = kind.of(backbone.tokenizer)  # type: ignore[attr-defined]
    if system is None and not fold:
        return kind
    return kind(backbone.llm_family, system, system="fold" if fold else "native")


class ImageFeatures(ImageItems):
    """The pixels of a sample's images, read when its batch is made: `Collator(pad_id, features=ImageFeatures(how))`."""

    def __init__(self, how: Preparation, segment: str = "image") -> None:
        self.how, self.segment = how, segment

    def images(self, extra: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
        return {self.segment: extra.get("images", ())}

    def pixels(self, images: Sequence[Any] | np.ndarray) -> np.ndarray:
        return prepare_images(list(images), self.how)

    def __call__(self, extra: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return self.shown(extra)
