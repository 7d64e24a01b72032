"""Prompt builders: a conversation becomes a string turn by turn, or pieces for `render`; the formats are data.

The string interface is OpenVLA's: roles `human` and `gpt` (here also `user`, `assistant`, and `system` first), and no
BOS where the tokenizer adds one. It knows no tokenizer, so it cannot protect a prompt from typed control tokens:
`render` does.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

from vertebra import log
from vertebra.errors import ConfigError, PromptError, did_you_mean
from vertebra.prompt.content import Content
from vertebra.prompt.conversation import Message, MessageReader, check_order
from vertebra.prompt.pieces import End, PromptPiece, text_of
from vertebra.prompt.templates import Template
from vertebra.sequence.roles import Role

SystemChoice = Literal["native", "fold"]
_READERS = {False: MessageReader(), True: MessageReader(empty_questions=True)}


class PromptBuilder(ABC):
    """Builds one conversation turn by turn.

    `system_prompt` is the system's text; None means the format's own default, an empty string means nothing. A
    format without a place for it raises, unless `system="fold"` puts it before the first question.
    """

    name: ClassVar[str] = ""
    bos: str | None = None
    """The BOS token that rendering puts before the text once, if the tokenizer knows it."""
    stop: str | None = None
    """The token that ends an answer, if the format names it."""
    empty_questions: ClassVar[bool] = False
    """A user may say nothing."""
    follows_tokenizer: ClassVar[bool] = False
    """The tokenizer's own chat template says everything, BOS included."""

    def __init__(self, model_family: str, system_prompt: str | None = None, *, system: SystemChoice = "native") -> None:
        if system_prompt is not None and not isinstance(system_prompt, str):
            raise PromptError(f"a system prompt is a string or None, not {system_prompt!r:.80}")
        if system not in ("native", "fold"):
            near = did_you_mean(str(system), ("native", "fold"))
            raise ConfigError(
                f"system={system!r}:{near} `native` uses the format's own place, `fold` the first question."
            )
        self.model_family, self.system_prompt, self.system = model_family, system_prompt, system
        self._messages: list[Message] = []

    @abstractmethod
    def add_turn(self, role: str, message: str) -> str:
        """Add a turn of `human` or `gpt`; returns the text by which the prompt grew."""

    @abstractmethod
    def get_potential_prompt(self, message: str) -> str:
        """The prompt that would ask `message` next, ready for an answer; the builder stays as it is."""

    @abstractmethod
    def get_prompt(self) -> str:
        """The prompt so far; after a question, ready for its answer."""

    @abstractmethod
    def layout(self, messages: Sequence[Message], end: End, tokenizer: Any = None) -> list[PromptPiece]:
        """A whole conversation as pieces. `tokenizer` is for formats that a tokenizer carries."""

    def writes_bos(self, tokenizer: Any) -> bool:
        """Whether the text itself begins with BOS."""
        return False

    @property
    def turn_count(self) -> int:
        """How many turns of `human` and `gpt` were added."""
        return sum(message.role != "system" for message in self._messages)

    def system_text(self) -> str | None:
        """The system prompt where the conversation itself has none."""
        return self.system_prompt

    def with_system(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with this builder's system prompt in front, unless it has one."""
        if messages and messages[0].role == "system":
            own = messages[0].content.text
            if self.system_prompt is not None and self.system_prompt != own:
                raise PromptError(
                    f"two system prompts: the builder has {self.system_prompt!r:.60}, the conversation {own!r:.60}. "
                    "Give one of them."
                )
            return list(messages)
        text = self.system_text()
        if text is None:
            return list(messages)
        return [Message("system", Content(text)), *messages]

    def _read_turn(self, role: str, message: str) -> Message:
        if not isinstance(message, str):
            raise PromptError(f"a turn is a string here, not {message!r:.80}; parts and slots are for `render`")
        return _READERS[self.empty_questions].message(len(self._messages), {"role": role, "content": message})


class TurnPromptBuilder(PromptBuilder):
    """What all formats of the table share; each is a class with its `template`."""

    template: ClassVar[Template]
    ends_for: ClassVar[type[TurnPromptBuilder]]
    """The class whose answers another EOS ends; itself for the format's own."""

    def __init_subclass__(cls) -> None:
        template = cls.template
        cls.ends_for = cls.__dict__.get("ends_for", cls)
        cls.name, cls.bos, cls.stop = template.name, template.bos, template.stop.strip()
        cls.empty_questions = template.to_the_letter

    @classmethod
    def ending(cls, eos: str) -> type[TurnPromptBuilder]:
        """This format with its answers ended by another EOS; the same class for the same token."""
        return _ending(cls, eos)

    def __reduce__(self) -> Any:
        """By its format and its EOS: a class that `ending` made cannot be found by name."""
        return _restored, (self.ends_for, self.stop, self.__dict__)

    @property
    def prompt(self) -> str:
        """What the turns so far have written, as they wrote it."""
        return self._string(self._messages, "closed")

    def add_turn(self, role: str, message: str) -> str:
        before = self.prompt
        messages = [*self._messages, self._read_turn(role, message)]
        after = self._string(messages, "closed")
        self._warn_of_controls(messages[-1])
        self._messages = messages
        return after[len(before) :]

    def get_potential_prompt(self, message: str) -> str:
        asked = self._read_turn("user", message)
        if self.template.to_the_letter:
            return self._potential_as_it_was(message)
        return self._string([*self._messages, asked], "open")

    def get_prompt(self) -> str:
        asked = bool(self._messages) and self._messages[-1].role == "user"
        text = self._string(self._messages, "open" if asked else "closed")
        if self.template.to_the_letter:  # a system prompt can begin with what the tokenizer writes itself
            text = text.removeprefix(self.template.bos or "")
        return text.rstrip() if self.template.trims_open else text

    def _potential_as_it_was(self, message: str) -> str:
        """OpenVLA's `get_potential_prompt`: the message goes in uncleaned, whoever's turn it is; Phi's first has no BOS."""
        template = self.template
        before, after = template.user
        if self.turn_count:
            text = self.prompt + before
        else:
            messages = self.with_system(self._messages)
            block, inside = self._system_pieces(messages[0], True) if messages else ([], [])
            text = text_of(block) + before + text_of(inside)
        return (text + message + after).removeprefix(template.bos or "").rstrip()

    def system_text(self) -> str | None:
        return self.template.default_system if self.system_prompt is None else self.system_prompt

    def writes_bos(self, tokenizer: Any) -> bool:
        return bool(self.template.start)

    def layout(self, messages: Sequence[Message], end: End, tokenizer: Any = None) -> list[PromptPiece]:
        return self._layout(messages, end, self.template.to_the_letter)

    def _string(self, messages: Sequence[Message], end: End) -> str:
        if not messages:
            return ""
        return text_of(self._layout(self.with_system(messages), end, True))

    def _layout(self, messages: Sequence[Message], end: End, cut_mark: bool) -> list[PromptPiece]:
        check_order(messages)
        template = self.template
        pieces = [PromptPiece(template.start, Role.TEXT)] if template.start else []
        turns = [message for message in messages if message.role != "system"]
        inside: list[PromptPiece] = []
        for message in messages[: len(messages) - len(turns)]:
            block, inside = self._system_pieces(message, cut_mark)
            pieces += block
        for message in turns:
            content = self._cleaned(message, cut_mark)
            if message.role == "user":
                self._warn_of_marks(content.text)
                pieces += [
                    PromptPiece(template.user[0], Role.USER),
                    *inside,
                    PromptPiece.of(message, content),
                    PromptPiece(template.user[1], Role.USER),
                ]
                inside = []
            else:
                rest = template.answer[1].removeprefix(template.stop)
                if template.trims_open and not content.begins_with_splice:
                    pieces[-1:] = _left_to_the_answer(pieces[-1], message.weight)
                pieces += [
                    PromptPiece(template.answer[0], Role.ASSISTANT),
                    PromptPiece.of(message, content),
                    PromptPiece(template.stop, Role.ASSISTANT, message.weight),
                    PromptPiece(rest, Role.ASSISTANT),
                ]
        if end == "answer":
            return pieces[:-2]
        if end == "open":
            opening = PromptPiece(template.answer[0], Role.ASSISTANT)
            if template.trims_open:
                pieces[-1] = PromptPiece(pieces[-1].text.rstrip(), pieces[-1].role)
            pieces.append(opening)
        return pieces

    def _system_pieces(self, message: Message, cut_mark: bool) -> tuple[list[PromptPiece], list[PromptPiece]]:
        """(what stands before the turns, what stands inside the first question)."""
        template = self.template
        content = self._cleaned(message, cut_mark)
        if content.empty and (self.system == "fold" or not template.to_the_letter):
            return [], []
        if self.system == "fold":
            return [], [PromptPiece.of(message, content), PromptPiece("\n\n", Role.SYSTEM)]
        if template.system_rule == "drop":
            return [], []
        if template.system_rule == "refuse":
            raise PromptError(
                f"the `{template.name}` format has no place for a system prompt ({content.text!r:.60}). "
                'Leave it out, or put it before the first question with system="fold".'
            )
        before, after = (PromptPiece(mark, Role.SYSTEM) for mark in template.system)
        block = [before, PromptPiece.of(message, content), after]
        return ([], block) if template.system_rule == "inside" else (block, [])

    def _cleaned(self, message: Message, cut_mark: bool) -> Content:
        """A message as the format shows it."""
        template, content = self.template, message.content
        kept = template.to_the_letter and message.role == "system"
        if cut_mark and template.image_mark and not kept:
            content = content.without(template.image_mark)
        if template.strips:
            content = content.stripped()
        if message.role == "assistant" and not content.text and not content.splices:
            return Content(template.empty_answer)
        return content

    def _warn_of_marks(self, text: str) -> None:
        for mark in _marks_in(self.template, text):
            log.warn_once(
                f"a user's text holds `{mark}`, a mark of the `{self.template.name}` format that is plain text: the "
                "model cannot tell it from the real one. Prefer a format with control tokens for untrusted text."
            )

    def _warn_of_controls(self, message: Message) -> None:
        for token in _controls(self.template):
            if message.role == "user" and token in message.content.text:
                log.warn_once(
                    f"a user's text holds `{token}`, which becomes a control token when the prompt string is "
                    "tokenized. `render` keeps it text."
                )


def _left_to_the_answer(mark: PromptPiece, weight: float) -> list[PromptPiece]:
    """A mark before an answer, its last blanks apart: an open prompt ends without them, so the model must say them.

    On a SentencePiece tokenizer `Out: 3` is `Out: ▁ 3`: without its own weight nobody would ever learn the `▁`.
    """
    text = mark.text.rstrip()
    return [PromptPiece(text, mark.role), PromptPiece(mark.text[len(text) :], Role.ASSISTANT, weight)]


@cache
def _ending(cls: type[TurnPromptBuilder], eos: str) -> type[TurnPromptBuilder]:
    if eos == cls.template.stop.strip():
        return cls
    facts = {"template": cls.template.ending(eos), "ends_for": cls.ends_for, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), facts)


def _restored(cls: type[TurnPromptBuilder], eos: str, state: dict[str, Any]) -> TurnPromptBuilder:
    ended = _ending(cls, eos)
    builder = ended.__new__(ended)
    builder.__dict__.update(state)
    return builder


@cache
def _mark_pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    # `In:` is a mark; the end of `Log In:` is read as one too, that of `Plugin:` is not.
    return re.compile("|".join((r"\b" if mark[0].isalpha() else "") + re.escape(mark) for mark in marks))


def _marks_in(template: Template, text: str) -> list[str]:
    if not template.marks:
        return []
    return list(dict.fromkeys(_mark_pattern(template.marks).findall(text)))


@cache
def _controls(template: Template) -> frozenset[str]:
    """The marks that look like control tokens, such as `</s>` and `<|im_end|>`."""
    marks = "\0".join((template.start, *template.user, *template.answer, *template.system))
    return frozenset(re.findall(r"(?<!<)</?[^<>\s]+>(?!>)", marks))
