"""One episode as it is handed over, held against what the set has; all that does not fit comes in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.episodes.facts import BOOKKEEPING, Numbers
from vertebra.episodes.statistics import finite_rows
from vertebra.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True)
class GivenEpisode:
    """An episode that fits."""

    sentence: str
    length: int
    numbers: dict[str, np.ndarray]
    """[length, dims]"""
    images: dict[str, np.ndarray]
    """uint8 [length, H, W, 3]"""

    @classmethod
    def of(
        cls,
        sentence: str,
        numbers: Mapping[str, Any],
        images: Mapping[str, Any],
        *,
        names: Mapping[str, Sequence[str]],
        cameras: Mapping[str, tuple[int, int]],
        floats: str,
    ) -> GivenEpisode:
        faults: list[str] = []
        if not isinstance(sentence, str) or not sentence.strip():
            faults.append(f"the sentence is {sentence!r:.40}; expected what the robot is to do, in words")
        faults += _names_apart("numbers", numbers, names) + _names_apart("images", images, cameras)
        vectors = {key: _vector(key, numbers[key], len(names[key]), floats, faults) for key in names if key in numbers}
        films = {key: _film(key, images[key], cameras[key], faults) for key in cameras if key in images}
        known = {key: one for key, one in {**vectors, **films}.items() if one is not None}
        lengths = {len(one) for one in known.values()}
        if len(lengths) > 1:
            faults.append(f"lengths differ: {', '.join(f'`{key}` {len(one)}' for key, one in known.items())}")
        elif lengths == {0}:
            faults.append("it has no frame")
        if faults:
            raise DataError(f"the episode does not fit the set: {'; '.join(faults)}")
        return cls(
            sentence,
            lengths.pop(),
            {key: one for key, one in vectors.items() if one is not None},
            {key: one for key, one in films.items() if one is not None},
        )

    def require_dtypes(self, numbers: Mapping[str, Numbers]) -> None:
        """The types of the first episode are those of the set."""
        wrong = [
            f"`{key}` is {values.dtype}, and the set has {numbers[key].dtype}"
            for key, values in self.numbers.items()
            if str(values.dtype) != numbers[key].dtype
        ]
        if wrong:
            raise DataError(f"the episode does not fit those before it: {'; '.join(wrong)}; hand over one type")


def written_numbers(given: GivenEpisode, names: Mapping[str, Sequence[str]]) -> dict[str, Numbers]:
    """What the set has from its first episode on."""
    return {
        key: Numbers(str(values.dtype), (values.shape[1],), tuple(names[key]), key)
        for key, values in given.numbers.items()
    }


def require_names(cameras: Mapping[str, tuple[int, int]], numbers: Mapping[str, Sequence[str]]) -> None:
    """Names become columns and folders, so that some cannot be."""
    faults = [f"`{key}` cannot be a name: {why}" for key in (*cameras, *numbers) if (why := _no_name(key)) is not None]
    faults += [f"`{key}` is a camera and numbers at once" for key in cameras if key in numbers]
    faults += [
        f"`{key}` has the names {names!r:.60}; expected one for each dimension, in a list"
        for key, names in numbers.items()
        if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names)
    ]
    faults += [
        f"the camera `{key}` is {size!r:.40}; expected (height, width)"
        for key, size in cameras.items()
        if len(size) != 2 or min(size) < 1
    ]
    if not numbers:
        faults.append("there are no numbers; expected at least an action")
    if faults:
        raise ConfigError(f"no set can be made of this: {'; '.join(faults)}")


def _no_name(key: str) -> str | None:
    if key in BOOKKEEPING:
        return "every set has a column of that name"
    if not key or any(sign in key for sign in "/\\\0{}") or key.startswith(".") or len(key) > 200:
        return "it would be no name of a folder"
    return None


def _names_apart(what: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    missing = [f"{what} lack `{key}`" for key in expected if key not in given]
    return missing + [
        f"{what} have `{key}`, which the set does not.{did_you_mean(key, expected)}"
        for key in given
        if key not in expected
    ]


def _vector(key: str, given: Any, dims: int, floats: str, faults: list[str]) -> np.ndarray | None:
    try:
        values = np.asarray(given)
    except ValueError as error:
        faults.append(f"`{key}` must be numbers, in rows of one length ({error})")
        return None
    if values.ndim == 1 and dims == 1:
        values = values[:, None]
    if values.dtype.kind not in "fiub":
        faults.append(f"`{key}` holds {values.dtype}; expected numbers")
    elif values.ndim != 2 or values.shape[1] != dims:
        faults.append(f"`{key}` has the shape {values.shape}; expected (length, {dims})")
    elif values.dtype.kind == "f" and not finite_rows(values).all():
        row = int(np.argmin(finite_rows(values)))
        what = "beyond what 32 bits hold" if np.isfinite(values).all() else "NaN or infinite"
        faults.append(f"`{key}` is {what}, first at frame {row}")
    else:
        return values.astype({"f": floats, "i": "int64", "u": "int64", "b": "bool"}[values.dtype.kind])
    return None


def _film(key: str, given: Any, size: tuple[int, int], faults: list[str]) -> np.ndarray | None:
    try:
        images = np.asarray(given)
    except ValueError as error:
        faults.append(f"`{key}` must be images of one size ({error})")
        return None
    if images.ndim != 4 or images.shape[1:] != (*size, 3):
        faults.append(f"`{key}` has the shape {images.shape}; expected (length, {size[0]}, {size[1]}, 3)")
    elif images.dtype != np.uint8:
        faults.append(f"`{key}` holds {images.dtype}; expected uint8, from 0 to 255")
    else:
        return images
    return None
