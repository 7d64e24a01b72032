"""Show a token sequence to a person: a coloured table in a terminal, or one self-contained HTML page.

Color says who speaks, underlining what is trained on; runs of slots are folded. A mask, if given, is drawn beside it.
It knows no tokenizers beyond asking one for the text of an id, and no rules of attention: a mask is a picture here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.errors import SequenceError
from vertebra.sequence.roles import NO_TARGET, VALUE_TARGET, Role
from vertebra.webpage import data_url, escaped, webpage

# role -> (style in a terminal, color on a page)
_COLORS: dict[Role, tuple[str, str]] = {
    Role.PAD: ("dim", "#b0b0b0"),
    Role.TEXT: ("bright_black", "#7a7a7a"),
    Role.SYSTEM: ("magenta", "#9b3fb5"),
    Role.USER: ("cyan", "#0b7a8f"),
    Role.ASSISTANT: ("green", "#1a7f37"),
    Role.TOOL: ("yellow", "#8a6d00"),
    Role.IMAGE: ("blue", "#2456d6"),
    Role.PAGE: ("bright_yellow", "#b35900"),
    Role.VECTOR: ("bright_blue", "#5b6ee1"),
    Role.ACTION: ("red", "#c0262d"),
}
_FOLD = 6
"""Longer runs of slots of one segment are folded."""
_SHADES = " ░▒▓█"
_WIDEST = 72


@dataclass(frozen=True, slots=True)
class _Line:
    """One row of the table; its cells by column."""

    role: Role
    trained: bool
    text: str
    cells: dict[str, str]


def show(
    sequence: Any,
    tokenizer: Any = None,
    *,
    html: bool = False,
    mask: Any = None,
    fold: bool = True,
    console: Any = None,
) -> str | None:
    """Print the sequence to a rich console, or return it as a page of HTML.

    `tokenizer` says what the ids mean; `mask` is a [length, length] boolean table, query by key; `fold=False` shows
    every slot.
    """
    table = _checked(mask, len(sequence))
    lines = list(_lines(sequence, tokenizer, fold))
    if html:
        return webpage("Token sequence", f"<h1>{escaped(repr(sequence))}</h1>\n{_body(lines, table)}", style=STYLE)
    _print(sequence, lines, table, console)
    return None


def body_of(sequence: Any, tokenizer: Any = None) -> str:
    """The sequence as a part of a page of somebody else's, which needs the rules of `STYLE`."""
    return _body(list(_lines(sequence, tokenizer, True)), None)


def _lines(sequence: Any, tokenizer: Any, fold: bool) -> Iterator[_Line]:
    texts = _texts(sequence.ids, tokenizer)
    targets = _targets(sequence, tokenizer)
    optional = _optional(sequence)
    number, length = 0, len(sequence)
    while number < length:
        segment = int(sequence.slot[number, 0])
        run = number + 1
        while segment >= 0 and run < length and sequence.slot[run, 0] == segment:
            run += 1
        if fold and run - number > _FOLD:
            yield _line(sequence, texts, targets, number, optional)
            hidden = run - number - 2
            name = sequence.segments[segment]
            role = Role(int(sequence.role[number]))
            yield _Line(role, False, f"… {hidden} more", {"position": "⋮", "slot": f"{name} ⋮"})
            number = run - 1
        yield _line(sequence, texts, targets, number, optional)
        number += 1


def _optional(sequence: Any) -> list[str]:
    """The vectors worth a column: those that say something here."""
    columns = []
    if (sequence.slot[:, 0] >= 0).any():
        columns.append("slot")
    columns += [name for name in ("block", "type", "document") if np.any(getattr(sequence, name) != 0)]
    return columns


def _targets(sequence: Any, tokenizer: Any) -> dict[int, str]:
    """What the positions must predict that do not predict themselves: the token and its id."""
    other = (sequence.target != sequence.ids) & (sequence.target != NO_TARGET)
    values = {VALUE_TARGET: "a number"} if (sequence.target == VALUE_TARGET).any() else {}
    ids = np.unique(sequence.target[other & (sequence.target != VALUE_TARGET)])
    texts = _texts(ids, tokenizer) if tokenizer is not None else [""] * len(ids)
    return values | {int(number): f"{text} {number}".strip() for text, number in zip(texts, ids, strict=True)}


def _line(sequence: Any, texts: list[str], targets: dict[int, str], number: int, optional: list[str]) -> _Line:
    identity, target = int(sequence.ids[number]), int(sequence.target[number])
    segment, index = (int(value) for value in sequence.slot[number])
    role, weight = Role(int(sequence.role[number])), float(sequence.weight[number])
    text = texts[number] if segment < 0 else f"‹{sequence.segments[segment]}›"
    cells = {
        "position": str(int(sequence.position[number])),
        "id": str(identity),
        "role": role.name.lower(),
        "target": "=" if target == identity else targets.get(target, ""),
        "weight": f"{weight:g}" if weight else "",
    }
    for name in optional:
        if name == "slot":
            cells[name] = f"{sequence.segments[segment]} {index}" if segment >= 0 else ""
        else:
            cells[name] = str(int(getattr(sequence, name)[number]))
    return _Line(role, weight > 0, text, cells)


def _texts(ids: np.ndarray, tokenizer: Any) -> list[str]:
    """The tokens of ids, with what cannot be seen made visible."""
    numbers = [int(number) for number in ids]
    if tokenizer is None:
        found: list[Any] = [None] * len(numbers)
    elif hasattr(tokenizer, "convert_ids_to_tokens"):
        found = tokenizer.convert_ids_to_tokens(numbers)
    elif hasattr(tokenizer, "id_to_token"):
        found = [tokenizer.id_to_token(number) for number in numbers]
    elif hasattr(tokenizer, "decode"):
        found = [tokenizer.decode([number]) for number in numbers]
    else:
        raise SequenceError(
            f"{type(tokenizer).__name__} cannot say what an id means: it has neither `convert_ids_to_tokens`, nor "
            "`id_to_token`, nor `decode`"
        )
    return [_visible(f"#{number}" if text is None else str(text)) for number, text in zip(numbers, found, strict=True)]


def _visible(text: str) -> str:
    shown = text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in shown)


def _columns(lines: list[_Line]) -> list[str]:
    names = dict.fromkeys(name for line in lines for name in line.cells)
    return [name for name in names if any(line.cells.get(name) for line in lines)] or ["position"]


def _checked(mask: Any, length: int) -> np.ndarray | None:
    if mask is None:
        return None
    table = np.asarray(mask)
    if table.shape != (length, length) or table.dtype != bool:
        raise SequenceError(
            f"a mask to show is a boolean table [{length}, {length}], query by key; got {table.dtype} {table.shape}"
        )
    return table


def _print(sequence: Any, lines: list[_Line], mask: np.ndarray | None, console: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if console is None else console
    flow = Text()
    for line in lines:
        style = _COLORS[line.role][0]
        flow.append(line.text, f"{style} underline" if line.trained else style)
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = _columns(lines)
    for name in ("position", "token", *columns[1:]):
        table.add_column(name, justify="left" if name in ("token", "role", "slot") else "right", no_wrap=True)
    for line in lines:
        style = _COLORS[line.role][0]
        token = Text(line.text, f"{style} underline" if line.trained else style)
        cells = [Text(line.cells.get(name, ""), style if name == "role" else "") for name in columns]
        table.add_row(cells[0], token, *cells[1:])
    console.print(Text(repr(sequence), "bold"))
    console.print(Text.assemble(*((f"{role.name.lower()} ", _COLORS[role][0]) for role in _present(lines))))
    console.print(flow)
    console.print(table)
    if mask is not None:
        console.print(Text("mask: query down, key across"))
        for row in _drawn(mask):
            console.print(Text(row), no_wrap=True, crop=True)


def _present(lines: list[_Line]) -> list[Role]:
    return sorted({line.role for line in lines})


def _drawn(mask: np.ndarray) -> list[str]:
    """A mask in characters: one a cell, or the share of a square that is seen, where it is too wide."""
    length = len(mask)
    if length <= _WIDEST // 2:
        return [" ".join("■" if seen else "·" for seen in row) for row in mask]
    step = -(-length // _WIDEST)
    sums = np.add.reduceat(np.add.reduceat(mask.astype(float), range(0, length, step), 0), range(0, length, step), 1)
    sides = np.diff([*range(0, length, step), length])
    shares = sums / np.outer(sides, sides)
    # Rounded up: what is seen at all is drawn.
    return ["".join(_SHADES[int(np.ceil(share * (len(_SHADES) - 1)))] * 2 for share in row) for row in shares]


STYLE = """
main { max-width: 72em; }
.flow, td { font-family: ui-monospace, monospace; white-space: pre-wrap; }
.flow span { border-radius: 3px; } .flow span:hover { background: #ffef9f; }
.trained { text-decoration: underline; text-underline-offset: 3px; }
table { margin-top: 1.5em; } td, th { padding: 1px 10px; text-align: right; border: 0; }
th { position: sticky; top: 0; background: Canvas; border-bottom: 1px solid #8888; } tr:hover { background: #8882; }
.left { text-align: left; } img { image-rendering: pixelated; border: 1px solid #8888; margin-top: .5em; }
""" + "".join(f".{role.name} {{ color: {color}; }}\n" for role, (_, color) in _COLORS.items())
"""Beside the rules that all pages share."""


def _body(lines: list[_Line], mask: np.ndarray | None) -> str:
    columns = _columns(lines)
    legend = " · ".join(f'<span class="{role.name}">{role.name.lower()}</span>' for role in _present(lines))
    flow = "".join(_span(line) for line in lines)
    head = "".join(f"<th{_left(name)}>{name}</th>" for name in (columns[0], "token", *columns[1:]))
    body = "\n".join(_row(line, columns) for line in lines)
    parts = [
        f'<p>{legend} · <span class="trained">trained on</span></p>',
        f'<p class="flow">{flow}</p>',
    ]
    if mask is not None:
        parts.append(f"<h2>Mask</h2><p>Query down, key across; dark is seen.</p>{_image(mask)}")
    parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>")
    return "\n".join(parts)


def _classes(line: _Line) -> str:
    return f"{line.role.name} trained" if line.trained else line.role.name


def _span(line: _Line) -> str:
    title = ", ".join(f"{name} {value}" for name, value in line.cells.items() if value)
    return f'<span class="{_classes(line)}" title="{escaped(title)}">{escaped(line.text)}</span>'


def _row(line: _Line, columns: list[str]) -> str:
    cells = [f"<td{_left(name)}>{escaped(line.cells.get(name, ''))}</td>" for name in columns]
    token = f'<td class="left {_classes(line)}">{escaped(line.text)}</td>'
    return f"<tr>{cells[0]}{token}{''.join(cells[1:])}</tr>"


def _left(name: str) -> str:
    return ' class="left"' if name in ("token", "role", "slot") else ""


def _image(mask: np.ndarray) -> str:
    """A mask as a picture inside the page, a pixel a cell, enlarged by the browser."""
    picture = data_url(_png(np.where(mask, 40, 245).astype(np.uint8)))
    side = len(mask) * max(1, 512 // max(len(mask), 1))
    return f'<img alt="attention mask" width="{side}" height="{side}" src="{picture}">'


def _png(gray: np.ndarray) -> bytes:
    """An 8-bit gray picture as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = gray.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), gray], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
