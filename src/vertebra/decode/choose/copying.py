"""An answer that is copied: a run of a page's pieces, letter by letter as it stands there, inside one line, or absent.

    generate(model, prompt, constraint=copied(["Invoice 17", "Total: RM64.15"]))       64.15 │ RM64.15 │ Invoice 17 │ null …

So nothing is invented, and where a value stands follows from its letters (`page.pieces`). `each` gives every row its own
constraint: fields of several pages in one batch. It knows texts of lines, and no pages, places or models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from vertebra.decode.choose.constraint import Constraint, Follower
from vertebra.decode.choose.grammar import UNFORCED, Grammar
from vertebra.errors import GenerationError
from vertebra.page.pieces import SEPARATOR, on_one_line, pieces

ABSENT = "null"
WHOLE = r"/[^ \n]([^\n]*[^ \n])?/"
"""In one line, and no blank at either end."""


def copied(
    lines: Sequence[str],
    *,
    across: bool = False,
    absent: str | None = ABSENT,
    quoted: bool = False,
    space: bool = True,
    like: str = "",
) -> Grammar:
    """A run of pieces of one of these lines, or `absent` (None: something must be copied).

    `across`: it may run over the ends of lines, with a blank between. `quoted`: as a JSON string, and `absent` without
    quotes, so that the two are never one. `space`: it may begin with a blank, as answers of many models do. `like`: a regular
    expression that it must match as a whole.
    """
    terminal = copy_terminal(lines, "COPIED", across=across, quoted=quoted, like=like)
    ways = [] if terminal is None else ['"\\"" COPIED "\\""' if quoted else "COPIED"]
    ways += [] if absent is None else [literal(absent)]
    if not ways:
        raise GenerationError(
            "there is nothing to copy from: the lines hold no text; give lines, or a word for `absent`"
        )
    start = f"start: {'/ ?/ ' if space else ''}({' | '.join(ways)})"
    return Grammar("\n".join([UNFORCED, start, terminal or ""]), "the constraint to copy")


def copy_terminal(
    lines: Sequence[str], name: str, *, across: bool = False, quoted: bool = False, like: str = ""
) -> str | None:
    """The rules of a terminal of that name in the language of Lark; None where there is nothing to copy.

    A run of chunks (pieces and the blanks between them), and of those only what neither begins nor ends with a blank.
    """
    if isinstance(lines, str):
        raise GenerationError(
            f"the lines to copy from are one text, {lines!r:.60}; expected a list of texts, one a line"
        )
    chunks: list[str] = []
    for line in lines:
        text, at = on_one_line(line), 0
        if not text:
            continue
        if chunks:
            chunks.append(" " if across else SEPARATOR)
        for start, end in pieces(text):
            chunks += [text[at:start]] if start > at else []
            chunks.append(_escaped(text[start:end]) if quoted else text[start:end])
            at = end
    if not chunks:
        return None
    run = json.dumps({"substring_chunks": chunks}, ensure_ascii=False)
    both = f"{name}_RUN & {WHOLE}" + (f" & /{like}/" if like else "")
    return f"{name}: {both}\n{name}_RUN: %regex {run}"


def literal(text: str) -> str:
    """A text as a literal of Lark."""
    return json.dumps(text, ensure_ascii=False)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


class Each(Constraint):
    """A constraint for each row; of several answers to a row, each has its own."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = list(constraints)
        if not self.constraints:
            raise GenerationError("a constraint for each row: the list of them is empty")

    def follow(
        self, rows: int, *, tokenizer: Any, vocabulary: int, ends: Sequence[int], steps: int, device: torch.device
    ) -> Follower:
        times, over = divmod(rows, len(self.constraints))
        if over:
            raise GenerationError(
                f"{len(self.constraints)} constraints for {rows} rows; give one for each row, or a single constraint"
            )
        how: dict[str, Any] = {
            "tokenizer": tokenizer, "vocabulary": vocabulary, "ends": ends, "steps": steps, "device": device
        }  # fmt: skip
        found = [one.follow(times, **how) for one in self.constraints]
        return _Each(found, times, vocabulary, device)


def each(constraints: Sequence[Constraint]) -> Each:
    """A constraint for each row of a call."""
    return Each(constraints)


class _Each(Follower):
    def __init__(self, followers: list[Follower], times: int, vocabulary: int, device: torch.device) -> None:
        self._followers, self._times, self._vocabulary, self._device = followers, times, vocabulary, device
        self._counts = [0] * (times * len(followers))

    def mask(self, rows: Sequence[int]) -> torch.Tensor:
        possible = torch.zeros(len(rows), self._vocabulary, dtype=torch.bool, device=self._device)
        for place, row in enumerate(rows):
            which, own = divmod(row, self._times)
            ids = self._followers[which].ids(self._counts[row])
            if ids is not None:
                possible[place, ids] = True
                continue
            mask = self._followers[which].mask([own])
            possible[place] = True if mask is None else mask[0]
        return possible

    def advance(self, row: int, token: int) -> bool:
        which, own = divmod(row, self._times)
        self._counts[row] += 1
        return self._followers[which].advance(own, token)
