"""Text from ids as they come: what is certain is given out, what may still change is held back.

A character may take several tokens (bytes), and how a token reads may depend on the one before it (the space of
SentencePiece). So a short stretch of ids is decoded twice, with and without the new ones, and the difference is the
new text. Only bytes that never become a character may read otherwise in the end: a tokenizer with byte tokens reads a
broken run of them anew as a whole. It knows a tokenizer's `decode`, and nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_UNFINISHED = "\ufffd"  # how the bytes of half a character read


class Detokenizer:
    """One row's text, grown by ids."""

    def __init__(self, tokenizer: Any, *, special: bool = False, before: Sequence[int] = ()) -> None:
        """`special`: write special tokens too. `before`: the last ids of the prompt, after which the first id reads."""
        self._decode = tokenizer.decode
        self._special = special
        self._ids = list(before)
        self._start = 0  # the stretch that is decoded
        self._read = len(self._ids)  # the ids whose text was given out
        self.text = ""

    def add(self, token: int) -> str:
        """The text that one more id makes certain."""
        self._ids.append(token)
        return self._take(self._text(len(self._ids)))

    @property
    def pending(self) -> str:
        """What is held back, as it reads now."""
        return self._text(len(self._ids))[len(self._text(self._read)) :]

    def finish(self) -> str:
        """What was held back, as it reads now."""
        return self._take(self._text(len(self._ids)), force=True)

    def _take(self, whole: str, *, force: bool = False) -> str:
        known = self._text(self._read)
        if len(whole) <= len(known) or (whole.endswith(_UNFINISHED) and not force):
            return ""
        # one id overlaps, so that what is decoded next reads as it would in the whole text
        self._start, self._read = max(self._read - 1, 0), len(self._ids)
        new = whole[len(known) :]
        self.text += new
        return new

    def _text(self, stop: int) -> str:
        ids = self._ids[self._start : stop]
        return self._decode(ids, skip_special_tokens=not self._special, clean_up_tokenization_spaces=False)


class TextWriter:
    """One row's text for whoever reads along: what might still become a stop string is held back."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._text = Detokenizer(tokenizer)
        self._stops = stops
        self._given = 0

    def add(self, token: int, *, last: bool) -> str:
        """The text that one more id adds; with the `last` one everything that is left."""
        self._text.add(token)
        if last:
            self._text.finish()
        whole = cut_at(self._text.text, self._stops)
        end = len(whole) if last else len(whole) - _begun(whole, self._stops)
        new = whole[self._given : end]
        self._given = max(self._given, end)
        return new


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop string."""
    longest = max(map(len, stops), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


class StopStrings:
    """Whether a row's text holds one of the strings that end it."""

    def __init__(self, tokenizer: Any, strings: Sequence[str], before: Sequence[int]) -> None:
        added = tokenizer.get_added_vocab()
        special = any(token in text for text in strings for token in added)
        self._strings = strings
        self._longest = max(map(len, strings))
        self._text = Detokenizer(tokenizer, special=special, before=before)

    def add(self, token: int) -> bool:
        """Whether one more id completes a string."""
        before = self._text.text
        new = self._text.add(token) + self._text.pending
        tail = before[len(before) - self._longest + 1 :] if len(before) >= self._longest else before
        return any(text in tail + new for text in self._strings)


def cut_at(text: str, strings: Sequence[str]) -> str:
    """The text before the first of the strings."""
    found = [at for at in (text.find(string) for string in strings) if at >= 0]
    return text[: min(found)] if found else text
