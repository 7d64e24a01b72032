"""What clients send as an observation, read into ours: names of cameras, instruction and state in everybody's spelling.

    OpenVLA     image, instruction, unnorm_key            OFT         full_image, wrist_image, state, instruction
    openpi      observation/image, …/state, prompt        vla-eval    images {camera: …}, task_description, states
    starVLA     image [, …], lang, state                  X-VLA       image0, image1, proprio, language_instruction
    GR00T       video, state, language, each of several robots
    ours        images {camera: …}, proprio, instruction, unnorm_key, session, done

A camera is found by its own name, by `rename`, by what others call it, or because one image and one camera are left. Images
are pixels or the bytes of a file, never a path: a client reads no files of the server. It knows records, and no models.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vertebra import log
from vertebra.action.record import ActionRecord
from vertebra.errors import DataError, did_you_mean
from vertebra.policies.observation import Observation
from vertebra.wire.bounds import Bounds
from vertebra.wire.text import from_json

TEXTS = ("instruction", "prompt", "task_description", "language_instruction", "lang", "task")
STATES = ("proprio", "state", "states")
OTHERS = ("unnorm_key", "session", "done", "history", "images", "observation", "domain_id", "steps", "timestamp")
FRONT = (
    "image",
    "full_image",
    "image0",
    "image_0",
    "agentview",
    "primary",
    "base_0_rgb",
    "cam_high",
    "exterior_image_1_left",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ObservationRequest:
    """What one client asks."""

    observation: Observation
    instruction: Any
    unnorm_key: str | None = None
    session: str | None = None
    done: int | None = None


def asked_of(
    given: Any, record: ActionRecord, *, rename: Mapping[str, str] | None = None, bounds: Bounds | None = None
) -> ObservationRequest:
    """One request, in whatever spelling. Its values are held against the policy later."""
    bounds = bounds or Bounds()
    flat, images = _flattened(given)
    _require_once(flat)
    text = next((flat.pop(name) for name in TEXTS if name in flat), None)
    state = _state(flat, record)
    found = {name: image for name, image in images.items() if image is not None}
    history = flat.pop("history", ())
    beside = {name: flat.pop(name, None) for name in ("unnorm_key", "session", "done")}
    unknown = [name for name in flat if name not in OTHERS]
    if unknown:
        near = did_you_mean(unknown[0], (*TEXTS, *STATES, *record.cameras))
        raise DataError(f"the request has the entries {unknown[:4]}, which nothing is made of.{near}")
    named = _by_camera(found, record, rename or {})
    read = {name: _image(image, bounds, f"camera `{name}`") for name, image in named.items()}
    past = [
        {name: _image(image, bounds, f"history, camera `{name}`") for name, image in one.items()}
        for one in _past(history)
    ]
    return ObservationRequest(
        observation=Observation(images=read, proprio=state, history=past),
        instruction=text,
        unnorm_key=_text(beside["unnorm_key"], "unnorm_key"),
        session=_text(beside["session"], "session"),
        done=_done(beside["done"]),
    )  # fmt: skip


def groots_rows(seen: Any) -> list[dict[str, Any]]:
    """Each of the B robots of {video: {camera: BTHWC}, state: {part: BTD}, language: {name: [[text]]}}, in our spelling."""
    parts = {name: seen.get(name) or {} for name in ("video", "state", "language")} if isinstance(seen, Mapping) else {}
    if not parts or not all(isinstance(part, Mapping) for part in parts.values()) or not parts["language"]:
        raise DataError("`observation` is none of GR00T's; expected {video: {…}, state: {…}, language: {…}}")
    arrays = {f"video.{name}": (one, 5) for name, one in parts["video"].items()}
    arrays |= {f"state.{name}": (one, 3) for name, one in parts["state"].items()}
    for name, (one, axes) in arrays.items():
        if np.ndim(one) != axes or 0 in np.shape(one):
            raise DataError(f"`{name}` has the shape {np.shape(one)}; expected {'BTHWC' if axes == 5 else 'BTD'}")
    texts = next(iter(parts["language"].values()))
    counts = {len(one) for one, _ in arrays.values()} | {len(texts) if isinstance(texts, list) else 0}
    if len(counts) != 1:
        raise DataError(f"the parts of `observation` are of {sorted(counts)} robots; expected as many of each")
    made = []
    for at in range(counts.pop()):
        text = texts[at][0] if isinstance(texts[at], list) and texts[at] else texts[at]
        row: dict[str, Any] = {
            "images": {name: one[at, -1] for name, one in parts["video"].items()},
            "instruction": text,
        }
        times = min((one.shape[1] for one in parts["video"].values()), default=1)
        row["history"] = [
            {name: one[at, -1 - t] for name, one in parts["video"].items()} for t in range(times - 1, 0, -1)
        ]
        if parts["state"]:
            row["state"] = np.concatenate([one[at, -1] for one in parts["state"].values()])
        made.append(row)
    return made


def _flattened(given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(everything but images, images), each by its bare name."""
    if not isinstance(given, Mapping):
        raise DataError(f"the request is a {type(given).__name__}; expected a mapping with images and an instruction")
    flat: dict[str, Any] = {}
    images: dict[str, Any] = {}
    for key, value in given.items():
        name = str(key.decode("utf-8", "replace") if isinstance(key, bytes) else key)
        bare = name.replace(".", "/").split("/")[-1]
        if bare == "observation" and isinstance(value, Mapping):
            inner, more = _flattened(value)
            flat, images = flat | inner, images | more
        elif bare == "images" and isinstance(value, Mapping):
            images |= {str(camera): image for camera, image in value.items()}
        elif bare == "image" and isinstance(value, list) and value and not isinstance(value[0], list | int | float):
            images |= {f"image{number}" if number else "image": image for number, image in enumerate(value)}
        elif _is_image(bare, value):
            images[bare] = value
        else:
            flat[bare] = value
    return flat, images


def _require_once(flat: Mapping[str, Any]) -> None:
    """What would be left out though it is meant: images that no camera's name stands before, and a second instruction."""
    for name in ("images", "observation"):
        if flat.get(name) is not None:
            what = "cameras, {camera: image}" if name == "images" else "images, proprio and what else there is"
            raise DataError(f"`{name}` is a {type(flat[name]).__name__}; expected a mapping of {what}")
    texts = [name for name in TEXTS if name in flat]
    if len(texts) > 1:
        raise DataError(f"the instruction came as {', '.join(f'`{name}`' for name in texts)}; send one of them")


def _is_image(name: str, value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim >= 2 and name not in STATES  # starVLA's clients send a state as [1, D]
    return isinstance(value, bytes) or (
        name not in (*TEXTS, *STATES, *OTHERS) and isinstance(value, str | list) and ("image" in name or "cam" in name)
    )


def _state(flat: dict[str, Any], record: ActionRecord) -> Any:
    """The robot's numbers. Clients of others always send them; to a policy that has no use for them they are not given."""
    came = {name: value for name in STATES if (value := flat.pop(name, None)) is not None}
    if not came:
        return None
    name, state = next(iter(came.items()))
    if name != "proprio" and record.proprio is None and record.frame == "absolute":
        log.warn_once(f"clients send `{name}`, and this policy asks for no proprio: it is left out")
        return None
    return state.reshape(-1) if isinstance(state, np.ndarray) else state


def _by_camera(found: Mapping[str, Any], record: ActionRecord, rename: Mapping[str, str]) -> dict[str, Any]:
    cameras = record.cameras
    named = {rename.get(name, name): image for name, image in found.items() if rename.get(name, name) in cameras}
    left = {name: image for name, image in found.items() if rename.get(name, name) not in cameras}
    free = [camera for camera in cameras if camera not in named]
    for camera in list(free):
        wrist = "wrist" in camera
        fits = [name for name in left if ("wrist" in name if wrist else name in FRONT)]
        if fits and (wrist or camera == cameras[0]):
            named[camera] = left.pop(fits[0])
            free.remove(camera)
    if len(free) == 1 and len(left) == 1:
        named[free.pop()] = left.popitem()[1]
    if left and free:
        raise DataError(
            f"images came as {', '.join(found)}, and the policy's cameras are {', '.join(cameras)}; use these names, or start "
            f"the server with --camera {next(iter(left))}={free[0]}"
        )
    if left:
        log.warn_once(f"clients send images that this policy does not see, and they are left out: {', '.join(left)}")
    return {name: named[name] for name in cameras if name in named}


def _image(image: Any, bounds: Bounds, where: str) -> Any:
    """Pixels, or the bytes of a file of a bounded size."""
    if isinstance(image, str):
        image = _from_text(image, where)
    if isinstance(image, list):
        try:
            image = np.asarray(image)
        except ValueError:
            raise DataError(f"{where}: the lists of its pixels have different lengths") from None
        if image.dtype.kind in "iu" and image.size and image.min() >= 0 and image.max() <= 255:
            image = image.astype(np.uint8)
    if isinstance(image, bytes):
        return bounded_image(image, bounds, where)
    if isinstance(image, np.ndarray):
        if image.ndim == 4 and len(image) == 1:
            image = image[0]
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3, 4):
            image = np.ascontiguousarray(image.transpose(1, 2, 0))  # as ALOHA's clients send them
        _require_pixels(image.size // max(1, image.shape[2] if image.ndim == 3 else 1), bounds, where)
        return image
    raise DataError(f"{where}: it is a {type(image).__name__}; expected pixels, or the bytes of a PNG or JPEG file")


def bounded_image(data: bytes, bounds: Bounds, where: str) -> bytes:
    """The bytes of a file, its size read off its head."""
    width, height = _size(data, where)
    _require_pixels(width * height, bounds, where)
    return data


def _from_text(text: str, where: str) -> Any:
    """A data URL, base64, or an array that was encoded on its own."""
    if text.startswith("{"):
        return from_json(text)
    data = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(
            f"{where}: it is text that is no base64 ({text[:40]!r}); paths and addresses are not read by a server"
        ) from None


def _size(data: bytes, where: str) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP", "GIF")) as opened:
            return opened.size
    except Image.DecompressionBombError:
        raise DataError(f"{where}: it has too many pixels") from None
    except Exception:  # whatever the reader of a damaged file throws
        raise DataError(f"{where}: its {len(data):,} bytes are no PNG, JPEG, WebP, BMP or GIF file") from None


def _require_pixels(count: int, bounds: Bounds, where: str) -> None:
    if count > bounds.pixels:
        raise DataError(f"{where}: it has {count:,} pixels; expected at most {bounds.pixels:,}")


def _past(history: Any) -> list[Mapping[str, Any]]:
    if history is None:
        return []
    if not isinstance(history, list | tuple) or not all(isinstance(one, Mapping) for one in history):
        raise DataError("`history` holds something else than mappings of cameras; expected [{camera: image}, …]")
    return list(history)


def _text(given: Any, what: str) -> str | None:
    if given is None or (isinstance(given, str) and len(given) <= 200):
        return given
    raise DataError(f"`{what}` is {given!r:.60}; expected text of at most 200 characters")


def _done(given: Any) -> int | None:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given >= 0):
        return given
    raise DataError(f"`done` is {given!r:.60}; expected how many actions of the chunk are carried out")
