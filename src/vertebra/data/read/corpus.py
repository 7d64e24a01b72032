"""A corpus that every Python installation has: the sources of the standard library, or its docstrings.

Made on the spot, without a network: for demos, tests and small models trained from scratch. A file is a sample, or a
docstring is; the split is by file, so that nothing of a file is both trained on and evaluated.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from vertebra.data.read.combined import Chain, split
from vertebra.data.read.files import TextFile
from vertebra.data.read.rows import Fault, Raw, Row, Source, digest
from vertebra.errors import DataError, UnknownNameError

Kind = Literal["source", "docstring"]

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "__pycache__", "pydoc_data"}


class Docstrings(Source):
    """The docstrings of one Python file, each a sample."""

    def __init__(self, path: Path) -> None:
        self.file = TextFile(path, unit="file")
        self.name = str(path)

    def raw(self, start: int = 0) -> Iterator[Raw]:
        whole = next(iter(self.file.raw()))
        if not isinstance(whole.data, str):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources are not our matter
            try:
                tree = ast.parse(whole.data)
            except (SyntaxError, ValueError):
                return
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)]
        for number, node in enumerate(nodes[start:], start):
            yield Raw(number, getattr(node, "lineno", 1), ast.get_docstring(node))

    def parse(self, raw: Raw) -> Row | Fault | None:
        return Row({"text": raw.data}, self.name, raw.line)

    def units(self) -> int | None:
        return sum(1 for _ in self.raw())

    def fingerprint(self) -> str | None:
        return digest("docstrings", self.file.fingerprint())


def python_corpus(kind: Kind = "source", *, megabytes: float | None = None) -> Chain:
    """The standard library of this Python as text, in the order of its file names.

    megabytes: stop when the files taken make about so many; the files are then spread over the whole library.
    """
    if kind not in ("source", "docstring"):
        raise UnknownNameError("kind of corpus", kind, ("source", "docstring"))
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(file for file in root.rglob("*.py") if not _LEFT_OUT & set(file.relative_to(root).parts))
    files = [file for file in files if file.stat().st_size > 0]
    if not files:
        raise DataError(f"this Python has no sources of its standard library in {root}; give another corpus")
    if megabytes is not None:
        files = _spread(files, megabytes * 1e6)
    sources: list[Source] = [TextFile(file, unit="file") if kind == "source" else Docstrings(file) for file in files]
    return Chain(sources, f"<standard library, {kind}>")


def corpus_split(
    kind: Kind = "source", *, valid: float = 0.1, seed: int = 0, megabytes: float | None = None
) -> dict[str, Source]:
    """`python_corpus` as `{"train": …, "valid": …}`, split by file."""
    return split(python_corpus(kind, megabytes=megabytes), {"train": 1 - valid, "valid": valid}, seed=seed, by="file")


def _spread(files: list[Path], size: float) -> list[Path]:
    """Files of about this size together, taken from all over the list and not from its beginning."""
    share = size / sum(file.stat().st_size for file in files)
    if share >= 1:
        return files
    taken: list[Path] = []
    due = 0.0
    held = 0
    for file in files:
        due += share * file.stat().st_size
        if held < due:
            taken.append(file)
            held += file.stat().st_size
    return taken
