"""`Observation`: what a robot sees and reports of itself at one moment; everything wrong with it is found at once.

    Observation(images={"image": array, "wrist": "wrist.png"}, proprio=[0.1, …], history=[{"image": …}, …])

It is held against the record of a policy, which names its cameras; it knows no models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vertebra.action.record import ActionRecord
from vertebra.errors import DataError, did_you_mean

Missing = Literal["refuse", "mask"]
LONGEST = 2000
"""Characters of an instruction: a longer one is a file that was read by mistake."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """One moment of one robot."""

    images: Mapping[str, Any] = field(default_factory=dict)
    """By camera: a path, the bytes of a file, a Pillow image, or 8-bit pixels [H, W, 3]."""
    proprio: Any = None
    """The robot's own numbers, in its own units."""
    history: Sequence[Mapping[str, Any]] = ()
    """Earlier images, the oldest first, for a policy that sees several; one that acts step by step remembers its own."""

    @classmethod
    def of(cls, given: Any, cameras: Sequence[str] = ()) -> Observation:
        """An observation as it is, or from a mapping of its fields, or from one image where there is one camera."""
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping):
            known = ("images", "proprio", "history")
            unknown = [str(name) for name in given if name not in known]
            if unknown:
                raise DataError(
                    f"an observation has the entries {unknown}.{did_you_mean(unknown[0], known)} Known: images (by camera), "
                    "proprio, history"
                )
            return cls(**given)
        if isinstance(given, str | Path | bytes | Image.Image | np.ndarray):
            return cls(images={cameras[0] if len(cameras) == 1 else "image": given})
        raise DataError(
            f"an observation is a {type(given).__name__}; expected an Observation, or a mapping of its fields"
        )


def faults(
    observation: Observation, instruction: Any, record: ActionRecord, *, missing: Missing = "refuse"
) -> list[str]:
    """Everything about an observation and its instruction that this policy cannot take, in words."""
    found = _image_faults(observation, record, missing)
    found += _history_faults(observation, record)
    found += _proprio_faults(observation.proprio, record)
    found += _instruction_faults(instruction)
    return found


def _image_faults(observation: Observation, record: ActionRecord, missing: Missing) -> list[str]:
    images = observation.images
    if not isinstance(images, Mapping):
        return [f"`images` is a {type(images).__name__}; expected a mapping of cameras ({', '.join(record.cameras)})"]
    found = [
        f"unknown camera `{name}`.{_nearest(str(name), record.cameras)} This policy sees: {', '.join(record.cameras)}"
        for name in images
        if name not in record.cameras
    ]
    absent = [name for name in record.cameras if images.get(name) is None]
    if absent and (missing == "refuse" or len(absent) == len(record.cameras)):
        how = "" if missing == "mask" else ', or leave its place out (missing_camera="mask")'
        found += [f"camera `{name}` is missing; give its image{how}" for name in absent]
    for name in record.cameras:
        if images.get(name) is not None:
            found += [f"camera `{name}`: {fault}" for fault in _of_image(images[name])]
    return found


def _nearest(name: str, cameras: Sequence[str]) -> str:
    """The camera that may be meant: a data set calls `side` `observation.images.side`."""
    return did_you_mean(name, cameras) or did_you_mean(re.split(r"[./]", name)[-1], cameras)


def _of_image(image: Any) -> list[str]:
    """What is wrong with an array, the one kind that says nothing of itself; files are judged when they are read."""
    if not isinstance(image, np.ndarray):
        known = isinstance(image, str | Path | bytes | Image.Image)
        return [] if known else [f"it is a {type(image).__name__}; expected a path, bytes, a Pillow image or an array"]
    found = []
    if image.dtype != np.uint8:
        found.append(f"its pixels are {image.dtype}; expected uint8: only you know which value is white")
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3, 4):
        found.append(f"its shape is {image.shape}; channels come last: image.transpose(1, 2, 0)")
    elif image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        found.append(f"its shape is {image.shape}; expected [H, W, 3]")
    elif 0 in image.shape:
        found.append(f"its shape is {image.shape}; an image has at least one pixel")
    return found


def _history_faults(observation: Observation, record: ActionRecord) -> list[str]:
    history = observation.history
    if not isinstance(history, Sequence) or not all(isinstance(one, Mapping) for one in history):
        return [
            "`history` holds something else than mappings of cameras; expected [{camera: image}, …], the oldest first"
        ]
    if len(history) > record.history:
        sees = f"at most {record.history}" if record.history else "none"
        return [f"`history` has {len(history)} earlier moments, and this policy sees {sees}; leave them out"]
    return [
        f"history {number}, camera `{name}`: {fault}"
        for number, images in enumerate(history)
        for name, image in images.items()
        for fault in (_of_image(image) if name in record.cameras else [f"unknown; known: {', '.join(record.cameras)}"])
    ]


def _proprio_faults(proprio: Any, record: ActionRecord) -> list[str]:
    if proprio is None:
        found = [f"`proprio` is missing; give {record.proprio} numbers"] if record.proprio else []
        if record.frame != "absolute" and not record.proprio:
            found.append(f"`proprio` is missing; its actions are {record.frame}, measured from the robot's state")
        return found
    if record.proprio is None and record.frame == "absolute":
        return ["`proprio` is given, and this policy asks for none; leave it out"]
    try:
        numbers = np.asarray(proprio, np.float64)
    except (TypeError, ValueError):
        return [f"`proprio` is {proprio!r:.60}; expected a list of numbers"]
    expected = record.proprio if record.proprio is not None else "the state's"
    if numbers.ndim != 1 or (record.proprio is not None and len(numbers) != record.proprio):
        return [f"`proprio` has the shape {numbers.shape}; expected {expected} numbers"]
    wrong = np.flatnonzero(~np.isfinite(numbers)).tolist()
    return [f"`proprio` is NaN or infinite at {wrong[:8]}; a sensor is off, or a division by zero"] if wrong else []


def _instruction_faults(instruction: Any) -> list[str]:
    if not isinstance(instruction, str):
        return [f"the instruction is a {type(instruction).__name__}; expected text"]
    if not instruction.strip():
        return ["the instruction is empty; say what is to be done"]
    if len(instruction) > LONGEST:
        return [f"the instruction has {len(instruction):,} characters; expected at most {LONGEST:,}"]
    return []
