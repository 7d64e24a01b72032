"""How commands print: tables to standard output as wide as they need where nobody looks, and JSON as JSON.

Nothing printed is read as markup: prompts are full of square brackets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vertebra.cli.terminal import writes_all_characters
from vertebra.folders import named_file

_WIDE = 180
"""Columns in a pipe or a file, where folding would break what people search for."""
STYLES = {"pass": "green", "fail": "bold red", "skip": "dim"}


def console(*, stderr: bool = False) -> Console:
    """A console for now: where output goes may change between two calls."""
    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not found.is_terminal and "COLUMNS" not in found._environ:
        found.width = _WIDE
    return found


def print_json(data: Any) -> None:
    """The data alone, so that it can be piped on, and as JSON whatever the terminal's encoding."""
    print(json.dumps(data, ensure_ascii=not writes_all_characters(), indent=1))


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A plain table without a frame; cells are text."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def print_unfolded(out: Console, made: Table) -> None:
    """A table of names that people copy: a narrow terminal may wrap its lines, but no name is cut in two."""
    own = out.width
    out.width = max(own, out.measure(made, options=out.options.update(max_width=1000)).maximum)
    try:
        out.print(made)
    finally:
        out.width = own


def facts_table(facts: dict[str, str]) -> Table:
    """Names and values, one a line."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in facts.items():
        made.add_row(Text(name), Text(value))
    return made


def write_page(path: Path, page: str) -> None:
    """A page into a file that the user named."""
    with named_file(path):
        path.write_text(page, encoding="utf-8")
