"""What a tokenizer really does, found by encoding and never by reading its flags, which lie in both directions.

The habits (BOS or none, the lone-space token), the anchor that follows from them, the choice of a pad token, and the
fingerprint that tells two tokenizers apart. It knows tokenizers, not models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vertebra.backbone.families.models import Anchor
from vertebra.errors import FingerprintError, VocabularyError

# Each tells two kinds of tokenizers apart: case, digits, spaces in a row, line ends, scripts, marks, code.
PROBES = (
    "In: What action should the robot take to pick up the red block?\nOut:",
    "The quick brown fox jumps over 12 345.67 lazy dogs.",
    "  two leading spaces, a\ttab,\n\n  and two line ends ",
    "def f(x):\n    return x[1:-1] != None",
    "Größe, naïve, Ελλάδα, Москва, 数据, データ, 🙂",
    "[INST] USER: <box> ASSISTANT:",
    "a",
    " a",
)


@dataclass(frozen=True)
class TokenizerHabits:
    """A tokenizer, probed."""

    bos_id: int | None
    """The id that it puts before every text by itself; None: it puts none."""
    eos_id: int | None
    """The id that it puts after every text by itself; None: it puts none."""
    lone_space_id: int | None
    """The token that is a single space (`▁`, `Ġ`): OpenVLA's actions follow it."""

    @property
    def adds_bos(self) -> bool:
        return self.bos_id is not None


def token_id(tokenizer: Any, token: str) -> int | None:
    """The id of a token; None where the vocabulary has none of this name. A fast tokenizer need not list all of them for it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found = tokenizer.get_vocab().get(token) if backend is None else backend.token_to_id(token)
    return None if found is None else int(found)


def probe(tokenizer: Any) -> TokenizerHabits:
    """Encode a letter with and without special tokens, and look at what was put around it."""
    plain = tokenizer("a", add_special_tokens=False).input_ids
    dressed = tokenizer("a").input_ids
    start = next((i for i in range(len(dressed)) if dressed[i : i + len(plain)] == plain), None)
    if start is None:
        raise VocabularyError(
            f"the tokenizer encodes 'a' as {plain} alone but {dressed} in a text; it cannot be anchored"
        )
    if start > 1:
        raise VocabularyError(
            f"the tokenizer puts {start} tokens {dressed[:start]} before every text; expected one or none"
        )
    after = dressed[start + len(plain) :]
    lone = next((i for i in (token_id(tokenizer, token) for token in ("▁", "Ġ")) if i is not None), None)
    return TokenizerHabits(bos_id=dressed[0] if start else None, eos_id=after[0] if after else None, lone_space_id=lone)


def anchor_of(habits: TokenizerHabits) -> Anchor:
    """The policy of a tokenizer that no family row describes."""
    return "bos" if habits.adds_bos else "none"


def check_anchor(anchor: Anchor, habits: TokenizerHabits, tokenizer: Any, who: str) -> None:
    """Fail when the tokenizer does not do what its family's policy says: embeddings would enter at a wrong place."""
    wrong = None
    if anchor == "bos" and not habits.adds_bos:
        wrong = "adds no BOS by itself"
    elif anchor != "bos" and habits.adds_bos:
        wrong = f"adds BOS {habits.bos_id} by itself"
    elif anchor == "prepend bos" and tokenizer.bos_token_id is None:
        wrong = "has no BOS token to put first"
    if habits.eos_id is not None:
        wrong = f"adds token {habits.eos_id} after every text, so that no answer could follow a prompt"
    if wrong:
        raise VocabularyError(
            f"`{who}` has the anchor policy `{anchor}`, but its tokenizer ({type(tokenizer).__name__}) {wrong}. Use the "
            "tokenizer that belongs to the model, or register a family with the other policy"
        )


def eos_ids(tokenizer: Any, generation_config: Any = None) -> tuple[int, ...]:
    """Every id that ends an answer: the tokenizer's and the ones that the checkpoint's generation settings name."""
    found = [tokenizer.eos_token_id]
    shipped = getattr(generation_config, "eos_token_id", None)
    found += shipped if isinstance(shipped, list) else [shipped]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))


def choose_pad(tokenizer: Any, ends: Iterable[int]) -> str | None:
    """The token to pad with that ends nothing: an existing pad, else unk, else a reserved token; None: add one."""
    ends = set(ends)
    for token in (tokenizer.pad_token, tokenizer.unk_token):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in ends:
            return token
    added = {token: i for token, i in tokenizer.get_added_vocab().items() if i not in ends}
    marks = ("pad", "reserved", "unused")
    for mark in marks:
        named = sorted((i, token) for token, i in added.items() if mark in token.lower())
        if named:
            return named[0][1]
    return None


def fingerprint_probes(tokenizer: Any) -> dict[str, list[int]]:
    """The ids of fixed strings, alone and behind the end of an answer, and of every added token: two tokenizers that
    agree on all of it are the same to us."""
    probes = {text: list(tokenizer(text).input_ids) for text in (*PROBES, *_behind_an_end(tokenizer))}
    probes.update({f"added token {token}": [i] for token, i in sorted(tokenizer.get_added_vocab().items())})
    return probes


def _behind_an_end(tokenizer: Any) -> tuple[str, ...]:
    """The second turn of a conversation: some tokenizers put a blank before it, some do not, and one text tells both."""
    end = tokenizer.eos_token
    return () if end is None else (f"a{end}In: b", f"a{end} b{end}\n")


def fingerprint(tokenizer: Any) -> str:
    """A short hash that changes when any id of any probe changes."""
    return _digest(fingerprint_probes(tokenizer))


def _digest(probes: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(probes, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint_record(tokenizer: Any) -> dict[str, Any]:
    """What a checkpoint keeps: the hash, and the probes that explain a mismatch."""
    probes = fingerprint_probes(tokenizer)
    return {"hash": _digest(probes), "probes": probes}


def check_fingerprint(tokenizer: Any, recorded: dict[str, Any], where: str) -> None:
    """Compare with what a checkpoint was made with; on a mismatch show which strings differ."""
    now = fingerprint_probes(tokenizer)
    if _digest(now) == recorded["hash"]:
        return
    before: dict[str, list[int]] = recorded.get("probes", {})
    for text in _behind_an_end(tokenizer) if before else ():
        if text not in before:  # the record of an older version, which did not ask for it
            del now[text]
    differing = [text for text in {**before, **now} if before.get(text) != now.get(text)]
    if before and not differing:
        return
    shown = "\n".join(f"  {text!r}: then {before.get(text)}, now {now.get(text)}" for text in differing[:6])
    raise FingerprintError(
        f"the tokenizer is not the one that `{where}` was made with; {len(differing)} probes differ:\n{shown}\n"
        "Use the tokenizer files that were saved with the weights (and the same tokenizer class)."
    )
