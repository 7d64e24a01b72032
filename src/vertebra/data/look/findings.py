"""What a report can find beside lengths: the ids, the added tokens, the labels; each number with a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vertebra.data.encode.added import TRUSTED, SpelledTokens, uses
from vertebra.data.encode.chat import ChatEncoder
from vertebra.data.look.setup import Setup
from vertebra.data.read.labels import Labels

Status = Literal["pass", "note", "fail"]

SHOWN = 5
"""Places that one finding names."""

UNKNOWN = 0.001
"""More unknown tokens than this share are worth a note."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    status: Status
    value: str
    message: str = ""
    places: tuple[str, ...] = ()


def counted(name: str, found: Any, total: int, what: str, bad: Status, places: list[str]) -> Finding:
    """A finding that counts what is wrong among all."""
    count = len(found)
    value = f"{total:,}" if not count else f"{count:,} of {total:,}"
    message = f"none {what}" if not count else f"{what} ({count / max(total, 1):.2%})"
    return Finding(name, bad if count else "pass", value, message, tuple(places[:SHOWN]))


def of_ids(setup: Setup) -> list[Finding]:
    """Unknown tokens, BOS and EOS, and the range of the ids."""
    tokenizer, table = setup.model.tokenizer, setup.table
    highest = unknown = 0
    begins, ends, doubled = Counter[int](), Counter[int](), []
    # Encoders begin with CLS and end with SEP where others have BOS and EOS.
    begin, end = tokenizer.bos_token or tokenizer.cls_token, tokenizer.eos_token or tokenizer.sep_token
    bos, eos = (None if token is None else tokenizer.convert_tokens_to_ids(token) for token in (begin, end))
    unk = tokenizer.unk_token_id
    for index in range(len(table)):
        ids = table.vectors(index)["ids"]
        highest = max(highest, int(ids.max()))
        unknown += int((ids == unk).sum()) if unk is not None and unk != eos else 0
        begins[int((ids == bos).sum()) if bos is not None else 0] += 1
        ends[int((ids == eos).sum()) if eos is not None else 0] += 1
        if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
            doubled.append(table.where(index))
    share = unknown / max(table.tokens, 1)
    rows = len(tokenizer)
    status: Status = "note" if share > UNKNOWN else "pass"
    return [
        Finding("unknown tokens", status, f"{share:.3%}", "the tokenizer cannot spell these" if unknown else ""),
        Finding(
            "BOS",
            "fail" if doubled else "pass",
            _each(begins),
            f"{_token(begin)}{', doubled' if doubled else ''}",
            tuple(doubled[:SHOWN]),
        ),
        Finding("EOS", "pass", _each(ends), _token(end)),
        Finding("ids", "pass" if highest < rows else "fail", f"0 to {highest}", f"the vocabulary has {rows}"),
    ]


def of_added(setup: Setup, spelled: SpelledTokens) -> list[Finding]:
    """Tokens that this vocabulary was grown by, and others that the texts spell: what the rows make of them.

    One that was added, that an answer spells, and that no row holds as the token spoils a run: its row learns nothing.
    """
    added = setup.model.added
    tokens = list(dict.fromkeys([*added, *spelled.texts]))
    if not tokens:
        return []
    numbers = dict(zip(tokens, setup.model.tokenizer.convert_tokens_to_ids(tokens), strict=True))
    used = uses(setup.table, list(numbers.values()))
    unused = [token for token in added if not used[numbers[token]]]
    trusted = setup.encoder.trusted if isinstance(setup.encoder, ChatEncoder) else ()
    lost, places = False, []
    for token in tokens:
        spelling = {role: count for role, count in spelled.texts.get(token, {}).items() if role not in trusted}
        if spelling:
            places.append(f"`{token}` {_stays_text(spelling)}")
            lost = lost or (token in unused and bool(_trustable(spelling)))
        elif token in unused:
            places.append(f"`{token}` is nowhere in this data")
    uses_of = ", ".join(f"`{token}` {used[numbers[token]]:,}" for token in added[:SHOWN])
    about = f"never used; uses: {uses_of}" if added else "none was added to this vocabulary"
    status: Status = "fail" if lost else "note" if places else "pass"
    return [Finding("added tokens", status, f"{len(unused):,} of {len(added):,}", about, tuple(places[:SHOWN]))]


def _stays_text(spelling: Mapping[str, int]) -> str:
    """In whose texts a token stays text, and how to have it read as the token."""
    who = ", ".join(f"{role} {count:,}" for role, count in spelling.items())
    roles = _trustable(spelling)
    if not roles:
        return f"stays text where it is spelled ({who})"
    options = " ".join(f"--trusted {role}" for role in roles)
    return (
        f"stays text where it is spelled ({who}); if the token is meant: {options} (in a recipe "
        f"data.trusted=[{', '.join(roles)}])"
    )


def _trustable(roles: Iterable[str]) -> list[str]:
    return [role for role in roles if role in TRUSTED]


def _token(token: str | None) -> str:
    return "this tokenizer has none" if token is None else f"`{token}`: so many in a sample, in so many samples"


def _each(counts: Counter[int]) -> str:
    """`1 in 40, 2 in 3`: how many a sample has, in how many samples."""
    shown = [f"{number} in {count:,}" for number, count in sorted(counts.items())[:4]]
    return ", ".join(shown) + (" …" if len(counts) > 4 else "")


def of_labels(labels: Labels, rows: Mapping[str, Sequence[str]]) -> Finding:
    """The classes with their counts; those that may be slips with their places."""
    names, total = labels.names, sum(map(len, rows.values()))
    if names is None:
        return Finding("labels", "pass", "numbers", "a regression; `train` needs classes")
    counts = {name: len(rows.get(name, ())) for name in names}
    outliers = labels.outliers(counts)
    places = [
        f"`{name}` has {counts[name]:,} of {total:,} rows ({', '.join(rows[name][:SHOWN])}): mend them, or declare all "
        f"classes (--label {' --label '.join(names)}; in a recipe data.labels=[{', '.join(names)}])"
        for name in outliers
    ]
    unused = [name for name in names if not counts[name]]
    lone = len(names) - len(unused) < 2
    status: Status = "fail" if outliers or lone else "note" if unused else "pass"
    message = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    message += f"; nobody is {', '.join(unused)}" if unused else ""
    message += "; with one class there is nothing to tell apart" if lone else ""
    message += "" if labels.declared else "; inferred"
    return Finding("labels", status, f"0 to {len(names) - 1}", message, tuple(places))
