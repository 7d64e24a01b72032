"""What a robot sees, as each protocol names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.errors import DataError, did_you_mean

KNOWN = ("images", "proprio", "history")


def observed(given: Any) -> dict[str, Any]:
    """An observation as plain data: a mapping of its fields, or one image. Files are read here, not by the server."""
    fields: dict[str, Any]
    if not isinstance(given, Mapping):
        fields = (
            {name: getattr(given, name) for name in KNOWN} if hasattr(given, "images") else {"images": {"image": given}}
        )
    else:
        fields = dict(given)
    unknown = [name for name in fields if name not in KNOWN]
    if unknown:
        raise DataError(
            f"an observation has the entries {unknown}.{did_you_mean(str(unknown[0]), KNOWN)} Known: {', '.join(KNOWN)}"
        )
    made: dict[str, Any] = {"images": _images(fields.get("images") or {})}
    if fields.get("proprio") is not None:
        made["proprio"] = np.asarray(fields["proprio"])
    if fields.get("history"):
        made["history"] = [_images(one) for one in fields["history"]]
    return made


def _images(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _image(image) for name, image in given.items() if image is not None}


def _image(given: Any) -> Any:
    if isinstance(given, str | Path):
        try:
            return Path(given).read_bytes()
        except OSError as error:
            raise DataError(f"the image `{given}` cannot be read ({error.strerror})") from None
    return given if isinstance(given, bytes | np.ndarray) else np.asarray(given)


def openvla(seen: dict[str, Any], instruction: str, key: str | None) -> dict[str, Any]:
    """OpenVLA's names: one camera."""
    images = list(seen["images"].values())
    if len(images) != 1:
        raise DataError(f"OpenVLA's protocol has one image, and {len(images)} came")
    return {"image": images[0], "instruction": instruction} | ({} if key is None else {"unnorm_key": key})


def oft(seen: dict[str, Any], instruction: str, key: str | None) -> dict[str, Any]:
    """OFT's names: the first camera is `full_image`, the others keep theirs."""
    (_, first), *others = seen["images"].items() or [("", None)]
    state = {} if "proprio" not in seen else {"state": seen["proprio"]}
    return {"full_image": first, **dict(others), **state, "instruction": instruction} | (
        {} if key is None else {"unnorm_key": key}
    )


def openpi(
    seen: dict[str, Any], instruction: str, key: str | None, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """openpi's names; `names`: those that another robot's configuration has."""
    names = names or {}
    images = {names.get(name, f"observation/{name}"): image for name, image in seen["images"].items()}
    state = {} if "proprio" not in seen else {names.get("proprio", "observation/state"): seen["proprio"]}
    return {**images, **state, names.get("instruction", "prompt"): instruction} | (
        {} if key is None else {"unnorm_key": key}
    )
