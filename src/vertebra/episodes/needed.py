"""The two packages of the extra `robots`, imported when something is read or written, each with the line to install it."""

from __future__ import annotations

from typing import Any

from vertebra.errors import MissingPartError


def parquet(what: str = "a set of episodes") -> Any:
    """`pyarrow.parquet`."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingPartError(what, "pyarrow", "robots") from None
    return pyarrow.parquet


def arrow(what: str = "a set of episodes") -> Any:
    """`pyarrow`."""
    parquet(what)
    import pyarrow

    return pyarrow


def video(what: str = "a video of a set of episodes") -> Any:
    """PyAV."""
    try:
        import av
    except ImportError:
        raise MissingPartError(what, "av", "robots") from None
    return av
