"""The builder that follows a tokenizer's own chat template, and finds out which of its text is whose.

The template is rendered twice: with the texts themselves, and once per shape of conversation with a private mark in place of
each text (the skeleton, kept). What lies between the marks are the template's own words; the first rendering must be
the skeleton with the texts filled in, or the template rewrites them and it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vertebra import log
from vertebra.errors import PromptError
from vertebra.prompt.builders import PromptBuilder, SystemChoice
from vertebra.prompt.content import Content
from vertebra.prompt.conversation import ROLES, Message, check_order
from vertebra.prompt.pieces import End, PromptPiece, until_last_content
from vertebra.prompt.template_words import ShownMessage, TemplateWords, words_of
from vertebra.sequence.roles import Role

_MARK = "\U0010f0fc{}\U0010f0fd"
_FIND_MARK = re.compile("\U0010f0fc(\\d+)\U0010f0fd")
_KEPT_SKELETONS = 512


class TemplatePromptBuilder(PromptBuilder):
    """Follows the tokenizer's own chat template; ids equal those of its `apply_chat_template(tokenize=True)`.

    `tokenizer` may be left out where `render` is given one. `arguments` go to the template (`enable_thinking=False`).
    """

    name: ClassVar[str] = "template"
    follows_tokenizer: ClassVar[bool] = True
    tokenizer: Any = None

    def __init__(
        self,
        model_family: str,
        system_prompt: str | None = None,
        *,
        system: SystemChoice = "native",
        tokenizer: Any = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model_family, system_prompt, system=system)
        if tokenizer is not None:
            self.tokenizer = tokenizer
        self.arguments = dict(arguments or {})

    @classmethod
    def of(cls, tokenizer: Any) -> type[TemplatePromptBuilder]:
        """The class with a tokenizer bound to it, so that it is made like every other builder."""
        return type(cls.__name__, (cls,), {"tokenizer": tokenizer, "__doc__": cls.__doc__})

    def add_turn(self, role: str, message: str) -> str:
        before = self._string(self._messages, False) if self._messages else ""
        messages = [*self._messages, self._read_turn(role, message)]
        after = self._string(messages, False)
        self._messages = messages
        same = 0  # not `len(before)`: a template may rewrite what went before
        while same < min(len(before), len(after)) and before[same] == after[same]:
            same += 1
        return after[same:]

    def get_potential_prompt(self, message: str) -> str:
        return self._string([*self._messages, self._read_turn("user", message)], True)

    def get_prompt(self) -> str:
        return self._string(self._messages, self._messages[-1].role != "assistant") if self._messages else ""

    def writes_bos(self, tokenizer: Any) -> bool:
        return "bos_token" in words_of(self._source(tokenizer)).source

    def layout(self, messages: Sequence[Message], end: End, tokenizer: Any = None) -> list[PromptPiece]:
        messages = self._ordered(messages)
        source = self._source(tokenizer)
        template = words_of(source)
        _warn_of_marks(messages, template)
        shown = [template.split(message) for message in messages]
        opened = end == "open"
        visible = [template.visible(message) for message in messages]
        skeleton = _skeleton(source, template, messages, shown, opened, self.arguments)
        text = _apply(
            source, [(m.role, content) for m, content in zip(messages, visible, strict=True)], opened, self.arguments
        )
        filling = _fill(text, skeleton, messages, shown, visible)
        pieces = _pieces(filling, messages, shown, template, opened)
        return until_last_content(pieces) if end == "answer" else pieces

    def _ordered(self, messages: Sequence[Message]) -> list[Message]:
        check_order(messages, tools=True)
        messages = list(messages)
        if self.system == "fold" and len(messages) > 1 and messages[0].role == "system":
            asked = messages[1].content.behind(messages[0].content.text + "\n\n")
            messages[:2] = [replace(messages[1], content=asked)]
        return messages

    def _source(self, tokenizer: Any) -> Any:
        source = self.tokenizer if self.tokenizer is not None else tokenizer
        if source is None:
            raise PromptError(
                "the `template` builder follows a tokenizer's chat template and has no tokenizer: give "
                "TemplatePromptBuilder(…, tokenizer=tokenizer)"
            )
        return source

    def _string(self, messages: Sequence[Message], opened: bool) -> str:
        ordered = self._ordered(self.with_system(messages))
        return _apply(
            self._source(None), [(message.role, message.content.text) for message in ordered], opened, self.arguments
        )


def _warn_of_marks(messages: Sequence[Message], template: TemplateWords) -> None:
    if template.marks is None:
        return
    for message in messages:
        for mark in template.marks.findall(message.content.text) if message.role == "user" else ():
            log.warn_once(
                f"a user's text holds `{mark}`, a mark of the tokenizer's chat template that is plain text: the model "
                "cannot tell it from the real one."
            )


@dataclass(frozen=True, slots=True)
class _Filled:
    """One text of a message where it stands in the rendered prompt, and the template's words behind it."""

    message: int
    content: Content
    words: str


def _skeleton(
    source: Any,
    template: TemplateWords,
    messages: Sequence[Message],
    shown: Sequence[ShownMessage],
    opened: bool,
    arguments: Mapping[str, Any],
) -> list[str]:
    """The template around the texts of a conversation of this shape: words, number, words, number, … words."""
    roles = tuple(message.role for message in messages)
    key = (roles, tuple((one.words, len(one.texts)) for one in shown), opened, repr(sorted(arguments.items())))
    known = template.skeletons.get(key)
    if known is not None:
        return known
    number = 0
    conversation = []
    for role, one in zip(roles, shown, strict=True):
        content = one.words[0]
        for word in one.words[1:]:
            content += _MARK.format(number) + word
            number += 1
        conversation.append((role, content))
    made = _FIND_MARK.split(_apply(source, conversation, opened, arguments))
    if len(template.skeletons) >= _KEPT_SKELETONS:
        template.skeletons.clear()
    template.skeletons[key] = made
    return made


def _fill(
    text: str,
    skeleton: Sequence[str],
    messages: Sequence[Message],
    shown: Sequence[ShownMessage],
    visible: Sequence[str],
) -> tuple[str, list[_Filled]]:
    """(the template's first words, each text with the words behind it); raise unless that gives `text` exactly."""
    owners = [(index, stretch) for index, one in enumerate(shown) for stretch in one.texts]
    numbers = [int(number) for number in skeleton[1::2]]
    _check_nothing_dropped(messages, shown, {owners[number][0] for number in numbers})
    stretches = [(owners[number], words) for number, words in zip(numbers, skeleton[2::2], strict=True)]
    choices = [
        [
            (left, right, visible[index][start + left : start + right] + words)
            for left, right in _trimmings(visible[index][start:stop])
        ]
        for (index, (start, stop)), words in stretches
    ]
    chosen, reached = _fitting(text, len(skeleton[0]), [[candidate for *_, candidate in some] for some in choices])
    if not text.startswith(skeleton[0]) or chosen is None:
        message = messages[stretches[reached][0][0] if stretches else 0]
        raise PromptError(
            f"the chat template rewrites {message.where} ({message.role}: {message.content.text!r:.60}), so that "
            "nobody can say which of its text is trained on. Give the message as the template would write it."
        )
    filled = []
    for taken, some, ((index, (start, _)), words) in zip(chosen, choices, stretches, strict=True):
        left, right, _ = some[taken]
        filled.append(_Filled(index, messages[index].content.cut(start + left, start + right), words))
    return skeleton[0], filled


def _fitting(text: str, start: int, choices: Sequence[Sequence[str]]) -> tuple[list[int] | None, int]:
    """(which of each choice, one behind the other, is the rest of a text; the choice where no way went on).

    White space of one text may as well belong to the words behind it, so that what fits first is not always right; from a place
    that led nowhere no way is tried twice.
    """
    nowhere: set[tuple[int, int]] = set()
    taken: list[int] = []
    places = [start]
    following = [0]
    reached = 0
    while len(taken) < len(choices) or places[-1] != len(text):
        number = len(taken)
        reached = max(reached, min(number, len(choices) - 1))
        some = choices[number] if number < len(choices) and (number, places[-1]) not in nowhere else ()
        for one in range(following[-1], len(some)):
            if text.startswith(some[one], places[-1]):
                taken.append(one)
                places.append(places[-1] + len(some[one]))
                following.append(0)
                break
        else:
            nowhere.add((number, places.pop()))
            following.pop()
            if not taken:
                return None, reached
            following[-1] = taken.pop() + 1
    return taken, reached


def _check_nothing_dropped(messages: Sequence[Message], shown: Sequence[ShownMessage], present: set[int]) -> None:
    for index, (message, one) in enumerate(zip(messages, shown, strict=True)):
        has_content = any(message.content.text[a:b].strip() for a, b in one.texts) or bool(message.content.splices)
        if index not in present and (has_content or message.role == "assistant"):
            hint = ' Use system="fold" to put it before the first question.' if message.role == "system" else ""
            raise PromptError(
                f"the chat template leaves out {message.where} ({message.role}: {message.content.text!r:.60}).{hint}"
            )


def _trimmings(text: str) -> list[tuple[int, int]]:
    """What a template may leave of a text: all, or without outer white space or newlines on one or both sides."""
    whole = len(text)
    ends = []
    for characters in (None, "\n"):
        left = whole - len(text.lstrip(characters))
        right = max(left, len(text.rstrip(characters)))
        ends += [(left, right), (left, whole), (0, len(text.rstrip(characters)))]
    return list(dict.fromkeys([(0, whole), *ends]))


def _pieces(
    filling: tuple[str, list[_Filled]],
    messages: Sequence[Message],
    shown: Sequence[ShownMessage],
    template: TemplateWords,
    opened: bool,
) -> list[PromptPiece]:
    """Texts and words as pieces: an answer goes from its first text or own word to its stop token."""
    first, filled = filling
    bos = template.bos if template.bos and first.startswith(template.bos) else ""
    pieces = [PromptPiece(bos, Role.TEXT)]
    before: int | None = None
    words = first[len(bos) :]
    for one in [*filled, None]:
        after = None if one is None else one.message
        if before is not None and before == after:
            pieces.append(PromptPiece(words, ROLES[messages[before].role], messages[before].weight))
        else:
            if before is not None:
                closing, words = _closing(words, messages[before], shown[before], template)
                pieces += closing
            pieces += _opening(words, messages, shown, before, after, opened)
        if one is not None:
            pieces.append(PromptPiece.of(messages[one.message], one.content))
            before, words = one.message, one.words
    return pieces


def _closing(
    words: str, message: Message, shown: ShownMessage, template: TemplateWords
) -> tuple[list[PromptPiece], str]:
    """(what ends a message: its own last word, the stop token, the space behind it; the words that are left)"""
    role = ROLES[message.role]
    own = shown.words[-1] if words.startswith(shown.words[-1]) else ""
    words = words[len(own) :]
    match = template.stop.match(words)
    if match is None and message.weight and message.role == "assistant":
        log.warn_once("the chat template writes no stop token after an answer: a model trained so will not stop")
    stop = match[0] if match else ""
    rest = words[len(stop) :]
    space = rest[: len(rest) - len(rest.lstrip())]
    weight = message.weight if message.role == "assistant" else 0.0
    pieces = [PromptPiece(own, role, message.weight), PromptPiece(stop, role, weight), PromptPiece(space, role)]
    return pieces, rest[len(space) :]


def _opening(
    words: str,
    messages: Sequence[Message],
    shown: Sequence[ShownMessage],
    before: int | None,
    after: int | None,
    opened: bool,
) -> list[PromptPiece]:
    """What leads to a message, or to the answer that is awaited; a word that the message itself begins with is its."""
    if after is None:
        role = Role.TEXT if before is None else ROLES[messages[before].role]
        return [PromptPiece(words, Role.ASSISTANT if opened else role)]
    message = messages[after]
    own = shown[after].words[0].strip()
    at = words.rfind(own) if own else -1
    at = len(words) if at < 0 else at
    role = ROLES[message.role]
    return [PromptPiece(words[:at], role), PromptPiece(words[at:], role, message.weight)]


def _apply(source: Any, conversation: Sequence[tuple[str, str]], opened: bool, arguments: Mapping[str, Any]) -> str:
    """The template's own rendering, as `apply_chat_template` gives it, within a budget."""
    from jinja2 import TemplateError

    from vertebra.prompt.sandbox import rendered

    messages = [{"role": role, "content": content} for role, content in conversation]
    given = {"tools": None, "documents": None, **source.special_tokens_map, **arguments}
    text = source.get_chat_template(given.pop("chat_template", None), given["tools"])
    try:
        return rendered(text, messages, {**given, "add_generation_prompt": opened})
    except TemplateError as error:
        roles = ", ".join(role for role, _ in conversation)
        hint = ' A system prompt can be put before the first question with system="fold".' if "system" in roles else ""
        raise PromptError(f"the chat template refuses this conversation ({roles}): {error}.{hint}") from error
