"""What rendering asks of a tokenizer, two methods, and the adapter that answers for a fast Hugging Face tokenizer.

`encode` gives the ids of whole strings and the characters behind each; inside the spans called plain no added token
is ever recognised, whatever a user typed. `facts` says which ids the tokenizer puts in front, and its named tokens.
"""

from __future__ import annotations

import re
import weakref
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tokenizers import Tokenizer as Backend

from vertebra.errors import PromptError
from vertebra.prompt.guard import Guard, guarded_tokens, plain_view

_HALF = re.compile("[\ud800-\udfff]")
Spans = Sequence[tuple[int, int]]
"""Stretches `start:stop` of a string, in order, without overlap."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Ids of a string without BOS, and the characters `start:stop` behind each; several ids may share a character."""

    ids: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    typed: bool = False
    """An added token was typed in plain text, and stayed text."""


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """A tokenizer's named tokens. An id is None where the tokenizer has no such token."""

    prefix: tuple[int, ...] = ()
    """What it puts before every text by itself: usually BOS, or nothing. Found by encoding, not by asking."""
    bos: str | None = None
    bos_id: int | None = None
    eos: str | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    added: frozenset[str] = frozenset()
    """Its added tokens, special or not."""

    @property
    def reserved_id(self) -> int:
        """A real id for positions that an outside embedding fills: pad, else EOS, else 0."""
        return next((token for token in (self.pad_id, self.eos_id) if token is not None), 0)


@runtime_checkable
class Tokenizer(Protocol):
    """The two methods."""

    def encode(self, texts: Sequence[str], plain: Sequence[Spans]) -> list[Encoding]:
        """Each text as a whole; no added token begins or ends inside its plain spans."""
        ...

    def facts(self) -> TokenizerFacts: ...


class FastTokenizer:
    """A fast tokenizer of Hugging Face, or a bare `tokenizers.Tokenizer`, as rendering wants it.

    Ordinary text takes the tokenizer's own path. Only where an added token was recognised in plain text is the string
    encoded again, by a guarded copy that is made on first need.
    """

    def __init__(
        self, tokenizer: Any, *, bos: str | None = None, eos: str | None = None, pad: str | None = None
    ) -> None:
        """`bos`, `eos`, `pad`: named tokens of a bare backend, which has no names for them."""
        backend = _backend_of(tokenizer)
        # Weak: the cache of adapters must not keep its own keys alive.
        self._owner, self._backend = weakref.ref(tokenizer), weakref.ref(backend)
        self._names = (bos, eos, pad) if tokenizer is backend else _names_of(tokenizer)
        self._post_processor = backend.post_processor
        self._own = plain_view(backend)
        decoder = backend.get_added_tokens_decoder()
        added = {token.content: number for number, token in decoder.items()}
        self._added = frozenset(added)
        self._token = {number: token for token, number in added.items()}
        kept = {token.content: number for number, token in self._own.get_added_tokens_decoder().items()}
        if kept != added:
            lost = sorted(token for token in {*added, *kept} if added.get(token) != kept.get(token))
            raise PromptError(
                f"this tokenizer does not survive saving: {lost[:8]} get other ids; number them without gaps"
            )
        self._to_guard = guarded_tokens(decoder.values())
        self._is_guarded = np.zeros(max(backend.get_vocab_size(), *added.values(), 0) + 1, bool)
        self._is_guarded[[added[token] for token in self._to_guard]] = True
        self._guard: Guard | None = None
        self._probe: Any = None

    def stale(self, tokenizer: Any) -> bool:
        """Whether tokens were added to the tokenizer since, or its backend was replaced."""
        backend = _backend_of(tokenizer)
        return backend is not self._backend() or len(backend.get_added_tokens_decoder()) != len(self._added)

    def facts(self) -> TokenizerFacts:
        owner = self._owner()
        named = owner is not None and owner is not self._backend()
        bos, eos, pad = _names_of(owner) if named else self._names
        bos_id, eos_id, pad_id = (self._own.token_to_id(name) if name else None for name in (bos, eos, pad))
        prefix = self._prefix()
        if bos_id is None and len(prefix) == 1:
            bos_id, bos = prefix[0], self._own.id_to_token(prefix[0])
        return TokenizerFacts(prefix, bos, bos_id, eos, eos_id, pad_id, self._added)

    def encode(self, texts: Sequence[str], plain: Sequence[Spans]) -> list[Encoding]:
        try:
            if len(texts) == 1:
                raw = [self._own.encode(texts[0], add_special_tokens=False)]
            else:
                raw = self._own.encode_batch(list(texts), add_special_tokens=False)
        except TypeError as error:
            raise PromptError(_why_no_text(texts)) from error
        found = []
        for text, spans, encoded in zip(texts, plain, raw, strict=True):
            encoding = _encoding(encoded)
            typed = self._typed_token(text, spans, encoding)
            found.append(self._encode_guarded(text, spans, encoding) if typed else encoding)
        return found

    def _prefix(self) -> tuple[int, ...]:
        """What the post-processor puts in front, probed on one letter."""
        backend = self._backend()
        post_processor = self._post_processor if backend is None else backend.post_processor
        if post_processor is None or post_processor.num_special_tokens_to_add(False) == 0:
            return ()
        if self._probe is None:
            self._probe = self._own.encode("a", add_special_tokens=False)
        probe = self._probe
        core, whole = probe.ids, post_processor.process(probe, None, True).ids
        for start in range(len(whole) - len(core) + 1):
            if whole[start : start + len(core)] == core:
                return tuple(whole[:start])
        raise PromptError(f"this tokenizer's post-processor changes the text's own ids: {core} became {whole}")

    def _typed_token(self, text: str, plain: Spans, encoding: Encoding) -> bool:
        """Whether an added token was recognized in plain text. Frees added tokens of the space that they swallow."""
        typed = False
        for hit in np.flatnonzero(self._is_guarded[encoding.ids]).tolist():
            start, stop = _without_outer_space(text, int(encoding.start[hit]), int(encoding.stop[hit]))
            encoding.start[hit], encoding.stop[hit] = start, stop
            typed = typed or _touches(plain, start, stop)
        return typed

    def _marks(self, text: str, plain: Spans, guard: Guard, unguarded: Encoding) -> list[tuple[int, int, str]]:
        """(start, stop, token) of the added tokens in trusted text, in order.

        Those that are matched as they are written are looked for stretch by stretch, so that nothing typed can eat
        into a mark. For those that are matched after normalizing, or as whole words, the tokenizer itself is believed.
        """
        marks: list[tuple[int, int, str]] = []
        at = 0
        for start, stop in (*plain, (len(text), len(text))):
            marks += guard.marks(text, at, start)
            at = stop
        for hit in np.flatnonzero(self._is_guarded[unguarded.ids]).tolist():
            token, start, stop = (
                self._token[int(unguarded.ids[hit])],
                int(unguarded.start[hit]),
                int(unguarded.stop[hit]),
            )
            if token not in guard.certain and not _touches(plain, start, stop):
                marks.append((start, stop, guard.name[token]))
        marks.sort()
        done = 0
        apart = []
        for mark in marks:
            if mark[0] >= done:
                apart.append(mark)
                done = mark[1]
        return apart

    def _encode_guarded(self, text: str, plain: Spans, unguarded: Encoding) -> Encoding:
        if self._guard is None:
            self._guard = Guard(self._own.to_str(), self._to_guard)
        guard = self._guard
        if guard.collides(text):
            guard = Guard(self._own.to_str(), self._to_guard, avoid=text)
        swapped, bounds = _swap(text, self._marks(text, plain, guard, unguarded))
        encoding = _encoding(guard.backend.encode(swapped, add_special_tokens=False))
        ids = np.asarray([guard.ids.get(number, number) for number in encoding.ids.tolist()], np.int64)
        encoding = Encoding(ids, bounds[encoding.start], bounds[encoding.stop], True)
        self._typed_token(text, (), encoding)
        return encoding


def tokenizer_of(tokenizer: Any) -> Tokenizer:
    """What is given, if it has the two methods; else its adapter, made once and kept as long as the tokenizer lives."""
    adapter = _known(tokenizer)  # before anything else: a protocol of two methods takes long to look at
    if adapter is None and isinstance(tokenizer, Tokenizer):
        return tokenizer
    if adapter is None or adapter.stale(tokenizer):
        _backend_of(tokenizer)
        adapter = _adapters[tokenizer] = FastTokenizer(tokenizer)
    return adapter


def _known(tokenizer: Any) -> FastTokenizer | None:
    try:
        return _adapters.get(tokenizer)
    except TypeError:  # nothing that can be a key: an adapter of one's own, or no tokenizer
        return None


_adapters: weakref.WeakKeyDictionary[Any, FastTokenizer] = weakref.WeakKeyDictionary()


def _backend_of(tokenizer: Any) -> Backend:
    backend = tokenizer if isinstance(tokenizer, Backend) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Backend):
        raise PromptError(
            f"rendering needs a fast tokenizer, for its offsets; got {type(tokenizer).__name__}. Load one with "
            "AutoTokenizer.from_pretrained, or give an object with the methods of `vertebra.prompt.tokenizer.Tokenizer`."
        )
    return backend


def _names_of(tokenizer: Any) -> tuple[str | None, str | None, str | None]:
    names = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    bos, eos, pad = (str(name) if name else None for name in names)
    return bos, eos, pad


def _encoding(encoded: Any) -> Encoding:
    ids = np.asarray(encoded.ids, np.int64)
    flat = np.fromiter(chain.from_iterable(encoded.offsets), np.int64, 2 * len(ids))
    return Encoding(ids, flat[::2].copy(), flat[1::2].copy())


def _why_no_text(texts: Sequence[str]) -> str:
    """What the backend means by `TextInputSequence must be str`."""
    for text in texts:
        half = _HALF.search(text)
        if half is not None:
            around = text[max(0, half.start() - 20) : half.start() + 20]
            return (
                f"a text holds half a character, {half[0]!r}, which no encoding has ({around!r}): JSON cut in the middle of "
                "an emoji gives such. Clean it with text.encode('utf-8', 'replace').decode()"
            )
    return "the tokenizer takes strings alone"


def _without_outer_space(text: str, start: int, stop: int) -> tuple[int, int]:
    """An added token's own characters: those that swallow white space beside them have it in their offsets."""
    found = text[start:stop]
    left, right = len(found) - len(found.lstrip()), len(found) - len(found.rstrip())
    return (start, stop) if left == len(found) else (start + left, stop - right)


def _touches(plain: Spans, start: int, stop: int) -> bool:
    """Whether `start:stop` has a character in common with a plain span."""
    last = bisect_left(plain, stop, key=lambda span: span[0]) - 1
    return last >= 0 and plain[last][1] > start


def _swap(text: str, marks: Sequence[tuple[int, int, str]]) -> tuple[str, np.ndarray]:
    """The text with each mark's private character in its place, and where each character began in `text`."""
    swapped: list[str] = []
    lengths: list[int] = []
    done = 0
    for start, stop, name in marks:
        swapped += [text[done:start], name]
        lengths += [*[1] * (start - done), stop - start]
        done = stop
    lengths += [1] * (len(text) - done)
    return "".join([*swapped, text[done:]]), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
