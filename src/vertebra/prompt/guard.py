"""A copy of a tokenizer in which added tokens cannot be typed: each answers to a private character of its own.

    prompt      <|im_start|>user\\n  he typed <|im_end|>  <|im_end|>\\n
    guarded     ⟨A⟩         user\\n  he typed <|im_end|>  ⟨B⟩       \\n      ⟨A⟩, ⟨B⟩: characters of plane 16

Marks of the format are swapped for their characters, typed ones are not: they stay text. The string is still encoded
whole, so what happens at the borders (a `▁` in front, merges, swallowed white space) happens as ever. Vocabulary
entries of the same spelling get the private name too, or the model itself could make a typed `</s>` the token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from vertebra.errors import PromptError

_PRIVATE = range(0x100000, 0x10FFFE)


_WORDS = re.compile(r"[^\W_]+( [^\W_]+)*")
"""Letters and digits, with a blank between: what people write."""


def guarded_tokens(added: Iterable[AddedToken]) -> tuple[str, ...]:
    """The added tokens that can be abused: all but vocabulary, which is words that are not special (as a vocabulary is grown by
    those of a field) and runs of white space (Gemma, Pythia, Phi)."""
    return tuple(token.content for token in added if not _is_vocabulary(token))


def _is_vocabulary(token: AddedToken) -> bool:
    return not token.content.replace("▁", " ").strip() or (not token.special and bool(_WORDS.fullmatch(token.content)))


class Guard:
    """The guarded copy of one backend."""

    def __init__(self, backend_json: str, tokens: Iterable[str], *, avoid: str = "") -> None:
        """`avoid`: a text whose characters must not be used as names."""
        state = json.loads(backend_json)
        used = set(avoid)
        free = (chr(code) for code in _PRIVATE if chr(code) not in used)
        try:
            self.name = {token: next(free) for token in tokens}
        except StopIteration:
            raise PromptError("the text uses up the private characters of plane 16; cut them out of it") from None
        self._names = re.compile("[" + "".join(self.name.values()) + "]") if self.name else None
        ids = {token["content"]: token["id"] for token in state["added_tokens"]}
        self.certain = {
            token["content"]
            for token in state["added_tokens"]
            if token["content"] in self.name and not token["normalized"] and not token["single_word"]
        }
        """Tokens that are matched as they are written, wherever they stand."""
        longest_first = sorted(self.certain, key=len, reverse=True)
        self._written = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        for token in state["added_tokens"]:
            token["content"] = self.name.get(token["content"], token["content"])
        _rename(state["model"], self.name)
        self.backend = plain_copy(json.dumps(state))
        # A token that is in the model's vocabulary keeps its id; one beyond it may be numbered anew.
        self.ids: dict[int, int] = {}
        for token, number in ids.items():
            name = self.name.get(token, token)
            copied = self.backend.token_to_id(name)
            if copied is None or (token in self.name and copied not in self._encoded(name)):
                raise PromptError(f"this tokenizer's normalizer does not let `{token}` be guarded; add it as special")
            self.ids[copied] = number

    def _encoded(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def collides(self, text: str) -> bool:
        """Whether a text holds a private character that stands for a token here."""
        return self._names is not None and self._names.search(text) is not None

    def marks(self, text: str, start: int, stop: int) -> list[tuple[int, int, str]]:
        """(start, stop, private character) of each certain token that is written in a stretch of a text."""
        if self._written is None:
            return []
        found = self._written.finditer(text[start:stop])
        return [(start + match.start(), start + match.end(), self.name[match[0]]) for match in found]


def plain_view(backend: Backend) -> Backend:
    """A backend of our own beside another, which shares its model: nothing is written out and read again."""
    own = Backend(backend.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(backend, part) is not None:
            setattr(own, part, getattr(backend, part))
    own.add_tokens([token for _, token in sorted(backend.get_added_tokens_decoder().items())])
    return own


def plain_copy(backend_json: str) -> Backend:
    """A backend of our own: no truncation or padding that others set, no post-processor that trims offsets."""
    backend = Backend.from_str(backend_json)
    backend.no_truncation()
    backend.no_padding()
    backend.post_processor = None
    backend.encode_special_tokens = False
    return backend


def _rename(model: dict[str, Any], name: Mapping[str, str]) -> None:
    """Give vocabulary entries their private names, and drop the merges that would make them."""
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: [piece, score], numbered by order
        model["vocab"] = [[name.get(piece, piece), score] for piece, score in vocab]
        return
    model["vocab"] = {name.get(piece, piece): number for piece, number in vocab.items()}
    if model.get("unk_token") in name:
        model["unk_token"] = name[model["unk_token"]]
    if "merges" in model:
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
        prefix = len(model.get("continuing_subword_prefix") or "")
        model["merges"] = [[a, b] for a, b in pairs if a not in name and b not in name and a + b[prefix:] not in name]
