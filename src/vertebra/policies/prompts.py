"""From an observation to the sequence that a policy was trained on: cameras, proprio and instruction in their places.

    raw        <s> ▣▣…▣ (▣▣…▣) ▢ In: What action …?\\nOut:  ▁ │ ▢ ▢ ▢ … </s>      OpenVLA's and OFT's own layout
    message    whatever the model's prompt format makes of  [images, proprio, text] │ lead, slots, tail
                                                       cameras │ proprio │ lead │ slots │ tail

A camera that is masked has no places at all: to every other position it is as if nobody could see them. What a person
types is text and never becomes a control token. It renders and prepares; it runs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.action.record import ActionRecord, segment_of
from vertebra.errors import ConfigError, DataError
from vertebra.model.model import Model
from vertebra.policies.observation import Observation
from vertebra.prompt.tokenizer import tokenizer_of
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence

SLOTS = "action"
"""The segment whose slots a head fills."""
KEPT = 64
"""Prompts that are kept rendered."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyPrompt:
    """One observation as a row."""

    sequence: TokenSequence
    features: dict[str, np.ndarray]
    """The raw items of its slots."""


class Prompts:
    """Makes rows for one model; `slots`: places that its head fills, `early` of them before the text."""

    def __init__(self, model: Model, record: ActionRecord, *, slots: int, early: int = 0) -> None:
        self.model, self.record, self.slots, self.early = model, record, slots, early
        if early and not record.raw:
            raise ConfigError(
                f"the head `{record.head}` has a slot before the text, which only records with `raw` have a place for"
            )
        self.sizes = dict(model.sizes)
        self._rendered: OrderedDict[Any, TokenSequence] = OrderedDict()
        needs = {segment_of(name): segment_of(name).split(":")[0] for name in record.cameras}
        if record.proprio is not None:
            needs["proprio"] = "proprio"
        absent = [name for name, part in needs.items() if name not in self.sizes and part not in self.sizes]
        if absent:
            raise ConfigError(
                f"the action record names {', '.join(absent)}, and `{model.identifier}` has no such part; its parts are "
                f"{', '.join(self.sizes) or 'none'}"
            )

    def row(self, observation: Observation, instruction: str, proprio: Any) -> PolicyPrompt:
        """`proprio`: normalised; None where the model asks for none."""
        items = self._items(observation, proprio)
        return PolicyPrompt(sequence=self._sequence(instruction, items), features=self._prepared(items))

    def _prepared(self, items: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
        """Arrays for a batch; what cannot be read is named by its camera, all of it at once."""
        made: dict[str, np.ndarray] = {}
        faults = []
        for name, found in items.items():
            try:
                made |= self.model.prepare({name: found})
            except DataError as error:
                camera = next((one for one in self.record.cameras if segment_of(one) == name), name)
                faults.append(f"camera `{camera}`: {error}")
        if faults:
            raise DataError("; ".join(faults))
        return made

    def _sequence(self, instruction: str, items: Mapping[str, list[Any]]) -> TokenSequence:
        """It is the same at every step of an episode, and rendered once."""
        key = (instruction, tuple((name, len(found)) for name, found in items.items()))
        if key not in self._rendered:
            text = self.record.asked(instruction)
            made = self._raw(text, items) if self.record.raw else self._message(text, items)
            self._rendered[key] = seeing(made, self.record.attention)
        self._rendered.move_to_end(key)
        while len(self._rendered) > KEPT:
            self._rendered.popitem(last=False)
        return self._rendered[key]

    def _items(self, observation: Observation, proprio: Any) -> dict[str, list[Any]]:
        """{segment: items}, in the order of the sequence. Of each camera as many images as it sees, the oldest repeated."""
        items: dict[str, list[Any]] = {}
        for camera in self.record.cameras:
            now = observation.images.get(camera)
            if now is None:
                continue
            earlier = [images[camera] for images in observation.history if images.get(camera) is not None]
            seen = [*earlier, now]
            items[segment_of(camera)] = [seen[0]] * (self.record.history + 1 - len(seen)) + seen
        if proprio is not None and self.record.proprio is not None:
            items["proprio"] = [proprio]
        return items

    def _message(self, text: str, items: Mapping[str, list[Any]]) -> TokenSequence:
        """A user's message in the model's own format, and the answer opened for an action."""
        content = self.record.message(text, {name: len(found) for name, found in items.items()})
        action: list[dict[str, Any]] = [{"type": "action", "ids": self.record.lead}]
        if self.slots:
            action.append({"type": "action", "count": self.slots})
        if self.record.tail:
            action.append({"type": "action", "ids": self.record.tail})
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": action}]
        return self.model.render(turns, open_turn=True)

    def _raw(self, text: str, items: Mapping[str, list[Any]]) -> TokenSequence:
        """The text as it stands, slots behind the anchor."""
        encoder = tokenizer_of(self.model.tokenizer)
        facts = encoder.facts()
        prefix = facts.prefix
        if not prefix and self.model.backbone.anchor == "prepend bos" and facts.bos_id is not None:
            prefix = (facts.bos_id,)
        (encoded,) = encoder.encode([text], [[(0, len(text))]])
        parts = [TokenSequence.of(prefix)] if prefix else []
        parts += [self._slots(name, len(found) * self._size(name), facts.reserved_id) for name, found in items.items()]
        if self.early:
            parts.append(self._slots(SLOTS, self.early, facts.reserved_id))
        parts.append(TokenSequence.of(encoded.ids, role=Role.USER))
        if self.record.lead:
            parts.append(TokenSequence.of(self.record.lead, role=Role.ACTION))
        if self.slots:
            parts.append(self._slots(SLOTS, self.slots - self.early, facts.reserved_id))
        if self.record.tail:
            parts.append(TokenSequence.of(self.record.tail, role=Role.ASSISTANT))
        return TokenSequence.join(parts)

    def _size(self, segment: str) -> int:
        return self.sizes.get(segment, self.sizes.get(segment.split(":")[0], 1))

    def _slots(self, segment: str, count: int, reserved: int) -> TokenSequence:
        role = Role.ACTION if segment == SLOTS else Role.VECTOR if segment == "proprio" else Role.IMAGE
        table = [(0, index) for index in range(count)]
        return TokenSequence.of([reserved] * count, slot=table, segments=[segment], role=role)


def seeing(sequence: TokenSequence, attention: str) -> TokenSequence:
    """The sequence with blocks that say who sees whom: its slots, as a policy records."""
    if SLOTS not in sequence.segments:
        return sequence
    here = sequence.slot[:, 0] == sequence.segments.index(SLOTS)
    if attention == "row":
        return sequence.with_vectors(block=np.ones(len(sequence), np.int64))
    among = int(sequence.block[~here].max(initial=0)) + 1 if attention == "block" else 0
    return sequence.with_vectors(block=np.where(here, among, sequence.block))
