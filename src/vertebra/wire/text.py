"""JSON with arrays in json_numpy's form. `json` itself stays as it is: nothing is patched."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.wire.arrays import from_object, to_object
from vertebra.wire.bounds import Bounds


def from_json(text: str | bytes, bounds: Bounds | None = None) -> Any:
    """The value of a text; arrays in it are arrays."""
    bounds = bounds or Bounds()
    if len(text) > bounds.size:
        raise DataError(f"the JSON has {len(text):,} bytes; expected at most {bounds.size:,}")
    commas = text.count(b",") if isinstance(text, bytes) else text.count(",")
    if commas > bounds.items:
        raise DataError(f"the JSON holds more than {bounds.items:,} values; send arrays in json_numpy's form")
    try:
        return json.loads(text, object_hook=from_object)
    except DataError:
        raise
    except RecursionError:
        raise DataError("the JSON is nested too deeply") from None
    except ValueError as error:  # no JSON, no UTF-8, a number of ten thousand digits
        if not isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise DataError("the JSON holds a number of thousands of digits") from None
        raise DataError(f"this is no JSON: {error}"[:200]) from None


def to_json(value: Any) -> str:
    """The text of a value; its arrays in json_numpy's form."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return to_object(np.asarray(value))
    raise DataError(f"a {type(value).__name__} cannot be sent as JSON")
