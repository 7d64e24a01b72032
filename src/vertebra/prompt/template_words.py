"""What is known of a tokenizer's chat template without running it: the words that it looks for, and the stop tokens.

Templates read what messages say: Qwen's looks for `</think>` in an answer, SmolLM's for `/no_think` in the system
prompt. Such words are left for the template to see in what system and assistant say, and hidden from it in what a
user types.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vertebra.errors import PromptError
from vertebra.prompt.conversation import Message
from vertebra.reading import reading

_BLIND = "\U0010f0fe"


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """How one message is shown to the template: stretches of its text, and the template's own words around them."""

    texts: tuple[tuple[int, int], ...]
    words: tuple[str, ...]
    """What stands before the first text, between them, and after the last: one more than texts."""


@dataclass(slots=True)
class TemplateWords:
    """One tokenizer's template: its source, its words, and the skeletons made so far."""

    source: str
    state: tuple[Any, ...]
    """What else the rendering depends on: named tokens, and how many were added."""
    words: re.Pattern[str] | None
    """Words of the template that may occur in messages."""
    allowed: re.Pattern[str] | None
    """Those among them that system and assistant may say to it: none that holds a special token."""
    marks: re.Pattern[str] | None
    """Those that are one word of plain text, such as `[INST]`: a user can type them."""
    stop: re.Pattern[str]
    """White space and one added token: what ends a message."""
    skeletons: dict[Any, list[str]] = field(default_factory=dict)

    @property
    def bos(self) -> str | None:
        return self.state[0]

    def split(self, message: Message) -> ShownMessage:
        """A message's text without the words that the template should see."""
        text = message.content.text
        found = []
        if self.allowed is not None and message.role in ("system", "assistant") and not message.content.splices:
            found = list(self.allowed.finditer(text))
        if not found:
            return ShownMessage(((0, len(text)),), ("", ""))
        texts: list[tuple[int, int]] = []
        words = [""]
        at = 0
        for start, stop in (*(match.span() for match in found), (len(text), len(text))):
            if start > at:
                texts.append((at, start))
                words.append("")
            words[-1] += text[start:stop]
            at = stop
        if not texts:  # nothing but words: an empty text behind them stands for the message
            texts, words = [(at, at)], [*words, ""]
        return ShownMessage(tuple(texts), tuple(words))

    def visible(self, message: Message) -> str:
        """A message's text as the template sees it, character for character as long as the real one."""
        text = message.content.text
        if self.words is None or message.role in ("system", "assistant"):
            return text
        return self.words.sub(lambda match: _BLIND + match[0][1:], text)


def words_of(tokenizer: Any) -> TemplateWords:
    """A tokenizer's template, read once as long as template and tokens stay what they are."""
    if not hasattr(tokenizer, "get_chat_template"):
        raise PromptError(f"{type(tokenizer).__name__} carries no chat template; use a builder of a named format")
    if not tokenizer.chat_template:
        raise PromptError(
            "this tokenizer has no chat template. Set `tokenizer.chat_template`, or use a builder of a named format"
        )
    with reading("the tokenizer's chat template cannot be chosen", "give it one", error=PromptError):
        source = tokenizer.get_chat_template()
    if not isinstance(source, str):
        raise PromptError(f"the tokenizer's chat template is a {type(source).__name__}; expected text")
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    state = (tokenizer.bos_token, tokenizer.eos_token, len(added))
    known = _known.get(tokenizer)
    if known is None or known.source != source or known.state != state:
        tokens = [token.content for token in added if token.content.strip()]
        special = [token.content for token in added if token.special]
        words = [word for word in _quoted(source) if len(word.strip()) > 2 and not word.strip().isalnum()]
        allowed = [word for word in words if not any(token in word for token in special)]
        stop = re.compile(r"\s*(?:" + _alternatives(tokens) + ")") if tokens else re.compile(r"(?!)")
        plain = {word.strip() for word in words if not any(token in word for token in tokens)}
        marks = [word for word in plain if not re.search(r"\s", word) and len(word) > 2]
        known = TemplateWords(source, state, _any_of(words), _any_of(allowed), _any_of(marks), stop)
        _known[tokenizer] = known
    return known


_known: weakref.WeakKeyDictionary[Any, TemplateWords] = weakref.WeakKeyDictionary()


def _quoted(source: str) -> list[str]:
    """The string literals of a template."""
    import jinja2

    with reading("the tokenizer's chat template is broken", "mend it", error=PromptError):
        found = [value for _, kind, value in jinja2.Environment().lex(source) if kind == "string"]
        # Escapes as jinja reads them; a literal may also hold a real newline.
        texts = [quoted[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape") for quoted in found]
    return list(dict.fromkeys(texts))


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    pattern = _alternatives(words)
    return re.compile(pattern) if pattern else None
