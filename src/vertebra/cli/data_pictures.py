"""Pictures of the samples in the first batch that `vertebra data show` shows: for kinds that draw theirs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from vertebra.folders import named_file
from vertebra.webpage import data_url


def of_rows(made: Any, rows: int) -> list[str]:
    """For each row of the first batch the pictures of its samples, as HTML."""
    return ["".join(_tag(picture) for picture in _drawn(made, own)) for own in _members(made, rows)]


def write_first(made: Any, path: Path, *, rows: int) -> None:
    """The picture of the first sample, as a PNG file."""
    from vertebra.cli.output import console
    from vertebra.errors import ConfigError

    found = [picture for own in _members(made, rows) for picture in _drawn(made, own)]
    if not found:
        raise ConfigError(f"--picture: kind `{made.task.name}` draws no pictures of its samples; leave it out")
    with named_file(path):
        found[0].save(path, "PNG")
    console().print(f"written to {path}", soft_wrap=True)


def _members(made: Any, rows: int) -> list[list[int]]:
    """The samples of each row of the first batch; of a stream nobody knows them."""
    if made.train is None:
        return [[] for _ in range(rows)]
    share = made.loader(rows, rank=0, world=1).plan.share(0, 0, 1)
    return [list(row) for row in share.rows] + [[] for _ in range(rows - len(share.rows))]


def _drawn(made: Any, members: list[int]) -> list[Any]:
    return [picture for index in members if (picture := made.task.pictured(made.train, index)) is not None]


def _tag(picture: Any) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f'<img alt="page" style="max-width:100%" src="{data_url(file.getvalue())}">'
