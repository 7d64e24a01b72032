"""Read a conversation: roles by their several names, content as text or as parts, and where parts enter the text.

    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
     {"role": "assistant", "content": "A cup."}]

becomes `Message`s whose `Content` is plain text with splices: what enters at a character as ids or as slots. It knows
neither prompt formats nor tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from vertebra.errors import PromptError, did_you_mean
from vertebra.prompt.content import Content, Splice, Stretch
from vertebra.prompt.page_part import page_content
from vertebra.sequence.roles import Role

ROLES: Mapping[str, Role] = MappingProxyType(
    {"system": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.TOOL}
)
_SPEAKERS = {
    **{name: name for name in ROLES},
    "developer": "system",
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("function", "observation"), "tool"),
}
"""The names that people and data sets use for who speaks."""


@dataclass(slots=True)  # not frozen, as `Content`
class Message:
    """One turn: who speaks (`system`, `user`, `assistant`, `tool`), what, and how much its loss counts."""

    role: str
    content: Content
    weight: float = 0.0
    plain: bool = True
    """Its text never yields an added token."""
    number: int | None = field(default=None, compare=False)
    """Which message of the conversation it is, counted from 0; None for a system prompt that a builder says."""

    @property
    def where(self) -> str:
        """Its name in messages to the user."""
        return "the builder's system prompt" if self.number is None else f"message {self.number}"


_KEYS = frozenset(("role", "content", "weight"))
"""Of a message."""


def role_name(name: object) -> str:
    """`user` for `user` and `human`, `assistant` for `assistant` and `gpt` …"""
    if name == "user" or name == "assistant":
        return str(name)
    known = _SPEAKERS.get(name.strip().lower()) if isinstance(name, str) else None
    if known is None:
        near = did_you_mean(str(name), _SPEAKERS)
        raise PromptError(f"unknown role `{name}`.{near} Roles are {', '.join(ROLES)}.")
    return known


def turns_of(questions: Sequence[str], answers: Sequence[str], *, system: str | None = None) -> list[dict[str, Any]]:
    """Questions and their answers as a conversation; the last question may lack its answer."""
    turns = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in zip_longest(questions, answers):
        turns.append({"role": "user", "content": question})
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
    return turns


def check_order(messages: Sequence[Message], *, tools: bool = False) -> None:
    """Raise unless an optional system message is followed by user and assistant in turns."""
    previous = None
    for number, message in enumerate(messages):
        if message.role == "system":
            allowed = number == 0
            expected = "the system message stands first, once"
        elif message.role == "tool":
            allowed = tools and previous in ("assistant", "tool")
            expected = "a tool answers an assistant" if tools else "this prompt format has no place for tools"
        else:
            turn = "user" if previous in (None, "system", "assistant") else "assistant"
            allowed = message.role == turn or (previous == "tool" and message.role == "user")
            expected = f"`{turn}` is expected here" + (f", after `{previous}`" if previous else ", first")
        if not allowed:
            given = [m.role for m in messages[: number + 1] if m.number is not None]
            raise PromptError(
                f"{message.where} is from `{message.role}`, but {expected}. The roles were: {', '.join(given)}. Merge or "
                "drop turns so that they alternate."
            )
        if message.number is not None:  # a builder's own system prompt is nobody's turn
            previous = message.role


@dataclass(frozen=True, slots=True)
class MessageReader:
    """Turns what people write into messages; `sizes` says how many slots a part of each segment takes."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    roles: Collection[str] = ("assistant",)
    """Whose text is trained on."""
    trusted: Collection[str] = ()
    """Whose text may hold added tokens."""
    anchored: Collection[str] = ()
    """Part types or segment names whose slots stand after BOS."""
    empty_questions: bool = False
    """A user may say nothing, as in OpenVLA's own builders."""

    def __post_init__(self) -> None:
        for name in ("roles", "trusted"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise PromptError(f"`{name}` is a collection of roles, not a string; write ({given!r},)")
            object.__setattr__(self, name, frozenset(map(role_name, given)))
        if "user" in self.trusted:
            raise PromptError(
                "a user's text cannot be trusted with added tokens; give what must become a token as a part, or as "
                "the text of another role"
            )
        if not isinstance(self.sizes, Mapping):
            raise PromptError(f"`sizes` is {self.sizes!r:.80}; expected a mapping such as {{'image': 196}}")
        for segment, size in self.sizes.items():
            _positive(size, f"sizes[{segment!r}]")

    def read(self, conversation: Iterable[Mapping[str, Any]]) -> list[Message]:
        """All messages, their fields checked; their order is a matter of the format."""
        if isinstance(conversation, str | bytes | Mapping) or not isinstance(conversation, Iterable):
            raise PromptError(f"a conversation is a list of messages {{'role', 'content'}}, not {conversation!r:.80}")
        messages = [self.message(number, given) for number, given in enumerate(conversation)]
        if not messages:
            raise PromptError("the conversation is empty; it needs at least a user's message")
        return messages

    def message(self, number: int, given: Mapping[str, Any]) -> Message:
        if not isinstance(given, Mapping):
            raise PromptError(f"message {number} is {given!r:.80}; expected a dict with `role` and `content`")
        if not _KEYS.issuperset(given):
            name = next(name for name in given if name not in _KEYS)
            near = did_you_mean(str(name), ("role", "content", "weight"))
            raise PromptError(f"message {number} has a key `{name}`.{near} Keys are `role`, `content`, `weight`.")
        if "role" not in given or "content" not in given:
            raise PromptError(f"message {number} has the keys {sorted(given)}; it needs `role` and `content`")
        role = role_name(given["role"])
        where = f"message {number} ({role})"
        content = self.content(given["content"], where)
        if role == "user" and content.empty and not self.empty_questions:
            raise PromptError(f"{where} is empty; say something, or leave the turn out")
        weight = given.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise PromptError(f"{where} has the weight {weight!r}; it must be a finite number from 0 on")
        if role not in self.roles:
            weight = 0.0
        return Message(role, content, float(weight), role not in self.trusted, number)

    def content(self, given: Any, where: str) -> Content:
        if isinstance(given, str):
            return Content(given)
        if not isinstance(given, Sequence) or isinstance(given, bytes):
            raise PromptError(f"the content of {where} is {given!r:.80}; expected text or a list of parts")
        text: list[str] = []
        length = 0
        splices: list[tuple[int, Splice]] = []
        pages: list[Stretch] = []
        for part in given:
            piece = self._part(part, where)
            text.append(piece.text)
            if length:  # a page stands first, mostly: nothing of its hundred stretches moves
                splices += [(length + at, splice) for at, splice in piece.splices]
                pages += [one._replace(start=length + one.start, stop=length + one.stop) for one in piece.pages]
            else:
                splices += piece.splices
                pages += piece.pages
            length += len(piece.text)
        return Content("".join(text), tuple(splices), tuple(pages))

    def _part(self, part: Any, where: str) -> Content:
        if isinstance(part, str):
            return Content(part)
        if not isinstance(part, Mapping) or "type" not in part:
            raise PromptError(f"a part of {where} is {part!r:.80}; expected a dict with a `type`")
        kind = part["type"]
        read = _PARTS.get(kind) if isinstance(kind, str) else None
        if read is None:
            near = did_you_mean(str(kind), _PARTS)
            raise PromptError(f"unknown part type `{kind}` in {where}.{near} Types are {', '.join(_PARTS)}.")
        return read(self, part, where)

    def slots(self, part: Mapping[str, Any], where: str, role: Role, segment: str, size: int | None) -> Splice:
        """The slots of one part: as many as the part says itself, else as `sizes` says for its name."""
        kind = part["type"]
        name = part.get("name", segment)
        if not isinstance(name, str) or not name:
            raise PromptError(f"a part of {where} has the name {name!r}; expected a segment name such as `{segment}`")
        count = part.get("count", self.sizes.get(name, self.sizes.get(name.split(":")[0], size)))
        if count is None:
            near = did_you_mean(name, self.sizes)
            raise PromptError(
                f"{where} has a part `{name}`, and nothing gives how many slots it takes.{near} "
                f"Give sizes={{'{name}': …}}, or a `count` in the part. Sizes are {dict(self.sizes)}."
            )
        _positive(count, f"the slot count of `{name}` in {where}")
        anchored = kind in self.anchored or name in self.anchored or name.split(":")[0] in self.anchored
        return Splice(role, segment=name, count=int(count), anchored=anchored)


def _text(reader: MessageReader, part: Mapping[str, Any], where: str) -> Content:
    text = part.get("text")
    if not isinstance(text, str):
        raise PromptError(f"a text part of {where} has the text {text!r:.80}; expected a string under `text`")
    return Content(text)


def _image(reader: MessageReader, part: Mapping[str, Any], where: str) -> Content:
    return Content("", ((0, reader.slots(part, where, Role.IMAGE, "image", None)),))


def _vector(reader: MessageReader, part: Mapping[str, Any], where: str) -> Content:
    return Content("", ((0, reader.slots(part, where, Role.VECTOR, "proprio", 1)),))


def _page(reader: MessageReader, part: Mapping[str, Any], where: str) -> Content:
    """The lines of a page, each with the slot of its box."""
    slot: Splice | None = None
    if part.get("slot") != "none":
        slot = reader.slots(part, where, Role.PAGE, "boxes", 1)
        slot.anchored = False
    return page_content(part, where, slot)


def _action(reader: MessageReader, part: Mapping[str, Any], where: str) -> Content:
    """The ids of an action, or the slots that parallel decoding fills."""
    if "ids" not in part:
        return Content("", ((0, reader.slots(part, where, Role.ACTION, "action", None)),))
    if "count" in part:
        raise PromptError(f"an action of {where} has both `ids` and `count`; ids are tokens, a count makes slots")
    if isinstance(part["ids"], str) or not isinstance(part["ids"], Iterable):
        raise PromptError(f"an action of {where} has the ids {part['ids']!r:.80}; expected a list of integers")
    ids = list(part["ids"])
    wrong = [value for value in ids if isinstance(value, bool) or not _is_id(value)]
    if wrong:
        raise PromptError(f"an action of {where} holds {wrong[:4]}; action ids are integers from 0 on")
    return Content("", ((0, Splice(Role.ACTION, ids=tuple(int(value) for value in ids))),))


_PARTS: dict[str, Callable[[MessageReader, Mapping[str, Any], str], Content]] = {
    "text": _text,
    "image": _image,
    "page": _page,
    "vector": _vector,
    "action": _action,
}


def part_types() -> list[str]:
    """Every type of a part, in the order in which errors name them."""
    return list(_PARTS)


def _is_id(value: Any) -> bool:
    return hasattr(value, "__index__") and int(value) >= 0


def _positive(count: Any, what: str) -> None:
    if isinstance(count, bool) or not hasattr(count, "__index__") or int(count) < 1:
        raise PromptError(f"{what} is {count!r}; expected a whole number from 1 on")
