"""Grammars as constraints, through `llguidance`: a regular expression, a JSON schema, a Lark grammar, a list of answers.

    generate(model, prompt, constraint=regex(r"(left|right) [0-9]{1,3}"))

Whether the grammar can be met at all is found out before anything runs. The library is an extra, imported on first use;
this module knows tokenizers and ids, and no model.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vertebra.decode.choose.constraint import Constraint, Follower
from vertebra.errors import GenerationError, MissingPartError


class Grammar(Constraint):
    """A language that a row's text must be in. Make one with `regex`, `json_schema`, `lark` or `one_of`."""

    def __init__(self, source: str, what: str, *, unforced: str | None = None) -> None:
        """`unforced`: the same in the language of Lark, for a text that spells a control token: letters that must follow
        are cut as the tokenizer cuts them, and that would be the token."""
        self.source, self.what, self.unforced = source, what, unforced

    def follow(
        self, rows: int, *, tokenizer: Any, vocabulary: int, ends: Sequence[int], steps: int, device: torch.device
    ) -> Follower:
        spelled = re.sub(r"\\(.)", r"\1", self.unforced or "")  # without the expression's escapes
        spells = any(
            text in spelled for one in tokenizer.added_tokens_decoder.values() if (text := one.content.strip())
        )
        source = f"{UNFORCED}\n{self.unforced}" if spells else self.source
        matcher = self._matcher(_tokenizer(tokenizer, vocabulary, tuple(ends)), source)
        return _Rows([matcher, *(matcher.deep_copy() for _ in range(rows - 1))], vocabulary, device)

    def _matcher(self, tokenizer: Any, source: str) -> Any:
        matcher = _library().LLMatcher(tokenizer, source, log_level=0)
        if matcher.is_error():
            raise GenerationError(f"{self.what} cannot be followed: {matcher.get_error().strip()}")
        if not any(matcher.compute_bitmask()):
            raise GenerationError(f"{self.what} allows no text at all, or none that this tokenizer can write")
        return matcher


UNFORCED = '%llguidance {"no_forcing": true}'
"""The first line of a grammar in which the model cuts all letters itself."""
_AS_PYTHON_WRITES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def regex(pattern: str, *, space: bool = False) -> Grammar:
    """Text that matches as a whole. `space`: it may begin with one, as answers of many models do."""
    begun = f" ?({pattern})" if space else pattern
    # a slash would end a Lark expression
    unforced = "start: /" + re.sub(r"\\.|/", lambda found: found[0] if found[0] != "/" else r"\/", begun) + "/"
    source = _library().LLMatcher.grammar_from_regex(begun)
    return Grammar(source, f"the regular expression {pattern!r}", unforced=unforced)


def one_of(answers: Sequence[str], *, space: bool = False) -> Grammar:
    """One of these answers, letter by letter."""
    if isinstance(answers, str) or not answers or not all(isinstance(one, str) and one for one in answers):
        raise GenerationError(f"answers are {answers!r:.80}; expected a list of texts, none of them empty")
    return regex("|".join(f"({_literal(one)})" for one in answers), space=space)


def json_schema(schema: Mapping[str, Any] | str | None = None, *, loose: bool = False) -> Grammar:
    """JSON that is valid for a schema; any JSON object without one.

    `loose`: white space wherever JSON has it, without which a model that is unsure cannot fill a page with blanks.
    """
    given = {"type": "object"} if schema is None else schema
    options = {"whitespace_flexible": True} if loose else _AS_PYTHON_WRITES
    try:
        text = given if isinstance(given, str) else json.dumps(dict(given))
        source = _library().LLMatcher.grammar_from_json_schema(text, overrides=options)
        read = json.loads(text)
    except (ValueError, TypeError) as error:
        raise GenerationError(f"the JSON schema is no JSON: {error}") from error
    inside = {**read, "x-guidance": options} if isinstance(read, dict) else read
    return Grammar(source, "the JSON schema", unforced=f"start: %json {json.dumps(inside, ensure_ascii=False)}")


def lark(text: str) -> Grammar:
    """A grammar in the language of Lark, as llguidance reads it."""
    return Grammar(_library().LLMatcher.grammar_from_lark(text), "the Lark grammar")


def _literal(text: str) -> str:
    # the engine's expressions know fewer escapes than Python's: only what means something is escaped
    return re.sub(r"([\\.+*?()|\[\]{}^$/&~])", r"\\\1", text)


class _Rows(Follower):
    """A matcher a row."""

    def __init__(self, matchers: list[Any], vocabulary: int, device: torch.device) -> None:
        self._matchers, self._vocabulary, self._device = matchers, vocabulary, device
        self._done = [False] * len(matchers)

    def mask(self, rows: Sequence[int]) -> torch.Tensor:
        possible = np.ones((len(rows), self._vocabulary), dtype=bool)
        for place, row in enumerate(rows):
            if not self._done[row]:
                bits = np.frombuffer(self._matchers[row].compute_bitmask(), dtype=np.uint8)
                possible[place] = np.unpackbits(bits, count=self._vocabulary, bitorder="little")
        return torch.from_numpy(possible).to(self._device)

    def advance(self, row: int, token: int) -> bool:
        matcher = self._matchers[row]
        matcher.consume_token(token)
        if matcher.is_error():
            raise GenerationError(
                f"row {row} got {token}, which its grammar does not allow ({matcher.get_error().strip()}): a rule or "
                "processor that comes after the constraint made it possible"
            )
        self._done[row] = bool(matcher.is_stopped())
        return self._done[row]


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingPartError("a grammar as a constraint", "llguidance", "constrain") from error
    return llguidance


def _tokenizer(tokenizer: Any, vocabulary: int, ends: tuple[int, ...]) -> Any:
    """The library's view of a tokenizer; making one takes up to a second for a large vocabulary."""
    known = _known.setdefault(tokenizer, {})
    key = (vocabulary, ends, len(tokenizer))
    if key not in known:
        from llguidance.hf import from_tokenizer

        known[key] = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(ends) or None)
    return known[key]


_known: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()
