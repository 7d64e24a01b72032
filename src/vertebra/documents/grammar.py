"""A field as a grammar over the lines of a page: its shape is JSON, and its texts are copied (`decode.choose.copying`).

    total    "RM 64.15" │ null
    items    [{"name": "Rice", "price": "4.50"}, {"name": …

Numbers and dates are copied as they stand, in quotes, and become values afterwards; choices are chosen, free text is free.
A list has no more items than the window has lines. It knows no models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from vertebra.decode.choose.copying import ABSENT, copied, copy_terminal, literal
from vertebra.decode.choose.grammar import UNFORCED, Grammar
from vertebra.documents.field import Field
from vertebra.errors import ConfigError

FREE = 'FREE: /"([^"\\\\\\n]|\\\\["\\\\\\/n]){0,600}"/'
"""Free text of at most 600 characters."""
BARE = "start: /[^\\n]{1,600}/"
"""The same without quotes: the rest of a line."""
LIKE = {
    **dict.fromkeys(("number", "integer"), r"[^\d\n]*\d([\d.,'’ ]*\d)?[^\d\n]*"),
    **dict.fromkeys(("date", "datetime", "time"), r"[^\n]*\d[^\n]*"),
}
"""What a copied text of a kind looks like: one number, or something with a digit."""


def grammar_of(
    field: Field,
    lines: Sequence[str],
    *,
    quoted: bool = True,
    space: bool = True,
    absent: str = ABSENT,
    whole: bool = True,
) -> Grammar:
    """What may answer for a field. `quoted`: JSON; else a text alone stands bare, as models of questions answer, and
    `absent` is what they answer where there is none. `whole`: the lines are all that the document has, so that a list has
    its `minItems` here or nowhere."""
    if not quoted and bare(field) and field.free:
        return Grammar(f"{UNFORCED}\n{BARE}", f"the grammar of the field `{field.name}`")
    if not quoted and bare(field):
        return copied(lines, across=field.across, space=space, absent=absent, like=LIKE.get(field.kind, ""))
    rules = _Rules(lines, whole=whole)
    start = f"start: {'/ ?/ ' if space else ''}{rules.of(field, 0)}"
    return Grammar("\n".join([UNFORCED, start, *rules.made.values()]), f"the grammar of the field `{field.name}`")


def bare(field: Field) -> bool:
    """Whether the field is one text, copied or free, which may stand without quotes."""
    return not field.nested and field.kind != "choice"


class _Rules:
    """The rules of a grammar while it is written; a terminal of a kind is made once."""

    def __init__(self, lines: Sequence[str], *, whole: bool) -> None:
        self.whole = whole
        self.lines = [line for line in lines if line.strip()]
        self.made: dict[str, str] = {}

    def of(self, field: Field, depth: int) -> str:
        """The rule's right side: a value, or null."""
        if field.kind == "choice":
            ways = [literal(json.dumps(one, ensure_ascii=False)) for one in field.choices]
            return f"({' | '.join([*ways, literal(ABSENT)])})"
        if field.kind == "record":
            return f"({self._record(field, depth)} | {literal(ABSENT)})"
        if field.kind == "list":
            return self._list(field, depth)
        if field.free:
            self.made["FREE"] = FREE
            return f"(FREE | {literal(ABSENT)})"
        like = LIKE.get(field.kind, "")
        name = f"{'ACROSS' if field.across else 'COPIED'}{f'_{field.kind.upper()}' if like else ''}"
        terminal = copy_terminal(self.lines, name, across=field.across, quoted=True, like=like)
        if terminal is None:
            return literal(ABSENT)
        self.made[name] = terminal
        return f'("\\"" {name} "\\"" | {literal(ABSENT)})'

    def _record(self, field: Field, depth: int) -> str:
        parts = []
        for number, one in enumerate(field.fields):
            key = f"{'{' if number == 0 else ', '}{json.dumps(one.name, ensure_ascii=False)}: "
            parts.append(f"{literal(key)} {self.of(one, depth + 1)}")
        return f"({' '.join(parts)} {literal('}')})"

    def _list(self, field: Field, depth: int) -> str:
        assert field.item is not None
        item = self._record(field.item, depth) if field.item.kind == "record" else self.of(field.item, depth)
        rule = f"item_{depth}_{len(self.made)}"
        self.made[rule] = f"{rule}: {item}"
        most = min(int(field.rules.get("maxItems", len(self.lines))), max(len(self.lines), 1))
        least = int(field.rules.get("minItems", 0)) if self.whole else 0
        if least > most:
            raise ConfigError(
                f"the field `{field.name}` cannot be met: it needs {least} items, and {len(self.lines)} lines hold at "
                f"most {most}"
            )
        if most < 1:
            return literal("[]")
        more = f'(", " {rule}){{{max(least - 1, 0)},{most - 1}}} ' if most > 1 else ""
        some = f'"[" {rule} {more}"]"'
        return some if least else f'("[]" | {some})'
