"""Tokens that were added to a vocabulary, as a data set uses them: as the token, as text that spells it, or not at all.

    answer   Turn left.<ACT>      trusted: ()              < ACT >      text, several ids: the token's row learns nothing
                                  trusted: (assistant,)    <ACT>        the token

Whose text may hold such tokens is a choice. Nobody's by default, and never the user's: what people type is text, and
training must read it as inference will.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vertebra import log
from vertebra.data.read.conversations import Conversation
from vertebra.data.read.formats import Pair, Sample, Text
from vertebra.data.samples.table import Table
from vertebra.errors import UnknownNameError
from vertebra.prompt.conversation import ROLES, MessageReader

EVERYBODY = "all"
"""Every role but the user."""

TRUSTED = (*(role for role in ROLES if role != "user"), EVERYBODY)


def trusted_roles(names: Collection[str]) -> tuple[str, ...]:
    """The roles that these names mean."""
    if not isinstance(names, str) and EVERYBODY in names:
        unknown = next((name for name in names if name not in (*ROLES, EVERYBODY)), None)
        if unknown is not None:
            raise UnknownNameError("role", str(unknown), TRUSTED)
        names = {*(name for name in names if name != EVERYBODY), *TRUSTED[:-1]}
    return tuple(sorted(MessageReader(trusted=names).trusted))


def uses(table: Table, ids: Sequence[int]) -> Counter[int]:
    """How often each of these ids stands in the rows of a table."""
    found: Counter[int] = Counter()
    for chunk in table.chunks:
        column = np.asarray(chunk.columns["ids"])
        numbers, counts = np.unique(column[np.isin(column, ids)], return_counts=True)
        found.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    return found


def warn_unused(table: Table, tokenizer: Any, tokens: Collection[str], *, conversations: bool) -> None:
    """Warn of tokens that were added for this data and that nothing in it uses. `conversations`: that is what it holds."""
    vocabulary = tokenizer.get_vocab()
    known = {token: vocabulary[token] for token in tokens if token in vocabulary}
    used = uses(table, list(known.values())) if known else Counter()
    unused = [f"`{token}`" for token, number in known.items() if not used[number]]
    if unused:
        why = (
            "Where the answers spell them, say that their text may hold tokens: data.trusted=[assistant]; "
            "`vertebra data check … --add-token` counts who spells them"
            if conversations
            else "Plain text never holds added tokens; conversations may (kind chat, data.trusted=[assistant])"
        )
        log.warn(
            f"model.tokens: {', '.join(unused)} {'is' if len(unused) == 1 else 'are'} in none of the {len(table):,} "
            f"samples, so that nothing is learnt of {'it' if len(unused) == 1 else 'them'}. {why}"
        )


@dataclass
class SpelledTokens:
    """Who spells which added tokens in the texts of a data set."""

    tokens: Sequence[str]
    texts: dict[str, Counter[str]] = field(default_factory=dict)
    """Token → role → texts that hold it; the role of plain text is `text`."""

    def __post_init__(self) -> None:
        longest_first = sorted(self.tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def see(self, sample: Sample) -> None:
        if self._pattern is None:
            return
        for role, text in _texts(sample):
            for token in set(self._pattern.findall(text)):
                self.texts.setdefault(token, Counter())[role] += 1


def _texts(sample: Sample) -> Iterator[tuple[str, str]]:
    """(who says it, the text) of everything that a sample says."""
    if isinstance(sample, Text):
        yield "text", sample.text
    elif isinstance(sample, Pair):
        yield "text", f"{sample.first}\n{sample.second or ''}"
    elif isinstance(sample, Conversation):
        for message in sample.messages:
            content = message["content"]
            parts = [content] if isinstance(content, str) else [part.get("text") for part in content]
            for text in parts:
                if isinstance(text, str):
                    yield message["role"], text
