"""A process of its own for one engine: pictures come in, pages go out, one after the other. `apart.py` starts it and ends it.

in      a line of JSON {engine: [module, class], settings, path}; then for each picture a line {mode, size} and its bytes
out     a line of JSON for each: {page} or {error: [type, text, ours]}

Nothing is unpickled. What an engine prints goes to the error output, so that answers stay answers.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import IO, Any

from vertebra.errors import VertebraError
from vertebra.page.formats import own


def answers(source: IO[bytes], sink: IO[bytes]) -> None:
    """Read pictures until there are no more."""
    from PIL import Image

    first = json.loads(source.readline())
    sys.path[:0] = [path for path in first["path"] if path not in sys.path]
    by: Any = None
    while line := source.readline():
        head = json.loads(line)
        raw = source.read(head["bytes"])
        try:
            if by is None:  # what it lacks is an answer like any other
                module, kind = first["engine"]
                by = getattr(importlib.import_module(module), kind)(**first["settings"])
            page = by.read(Image.frombytes(head["mode"], tuple(head["size"]), raw))
            answer: dict[str, Any] = {"page": own.as_dict(page)}
        except Exception as error:  # whatever an engine throws is an answer: who asked must not wait for a dead process
            answer = {"error": [type(error).__name__, str(error), isinstance(error, VertebraError)]}
        sink.write(json.dumps(answer).encode() + b"\n")
        sink.flush()


def main() -> None:
    """The process: answers leave by the first output, and nothing else does."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
