"""From OpenVLA's `preprocessor_config.json` to a `Preparation` and each tower's mean and std.

Its constructor computes `tvf_*` from `means` and `stds`, and then the file's own `tvf_*` take their place: so they do
here. Pixels are 8-bit until each tower normalises them, so that both share one image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vertebra.errors import CheckpointError, UnknownNameError
from vertebra.interop.openvla.folder import PREPROCESSOR, OpenVLAFacts, require_one_size
from vertebra.model.encoders.images import Preparation
from vertebra.reading import reading

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

STRATEGIES = ("resize-naive", "resize-crop", "letterbox")
_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def image_facts(facts: OpenVLAFacts, *, first: tuple[str, ...] = ()) -> tuple[Preparation, list[Statistics]]:
    """How its images become pixels (`first`: steps before all others), and mean and std of every tower."""
    shipped, size = facts.preprocessor, require_one_size(facts)
    with reading(f"`{facts.where}/{PREPROCESSOR}` is damaged", "copy it again"):
        resizes = _resizes(shipped, len(facts.timm_ids), size)
        statistics = _statistics(shipped, len(facts.timm_ids))
        crops = [entry["output_size"] for entry in shipped.get("tvf_crop_params", [])]
        wrong = [crop for crop in crops if list(crop) != [size, size]]
    if wrong or any(one != resizes[0] for one in resizes):
        raise CheckpointError(
            f"`{facts.where}/{PREPROCESSOR}` resizes to {resizes} and cuts out {crops}; expected the same for every "
            f"tower, and {size} × {size} pixels"
        )
    (shape, resample), boxed = resizes[0], bool(shipped.get("tvf_do_letterbox", False))
    if "tvf_do_letterbox" not in shipped:
        boxed = shipped.get("image_resize_strategy") == "letterbox"
    ground = shipped.get("tvf_letterbox_fill") if boxed else None
    if boxed and ground is None:  # the last tower's mean: the one that the constructor leaves there
        ground = [int(value * 255) for value in shipped["means"][-1]]
    fit: Any = "letterbox" if boxed and shape == "short" else "crop" if shape == "short" else "stretch"
    if boxed and shape != "short":
        raise CheckpointError(f"`{facts.where}/{PREPROCESSOR}` both stretches images and puts them in a letterbox")
    return (
        Preparation(
            size=size,
            fit=fit,
            resample=resample,
            ground=None if ground is None else tuple(ground),
            rounding="down" if fit == "stretch" else "even",
            first=first,
        ),
        statistics,
    )


def _resizes(shipped: Mapping[str, Any], towers: int, size: int) -> list[tuple[str, str]]:
    """(`square` or `short` side, resampling) of every tower."""
    entries = shipped.get("tvf_resize_params")
    if entries is None:
        strategy = shipped.get("image_resize_strategy", "letterbox")
        if strategy not in STRATEGIES:
            raise UnknownNameError("image_resize_strategy", strategy, STRATEGIES)
        shape = "square" if strategy == "resize-naive" else "short"
        return [(shape, name) for name in shipped.get("interpolations") or ["bicubic"] * towers]
    found = []
    for entry in entries:
        given = entry["size"]
        if given not in (size, [size], [size, size]):
            raise CheckpointError(f"images are resized to {given!r:.40}; the tower takes {size} pixels")
        shape = "square" if given == [size, size] else "short"
        resample = _PILLOW.get(entry.get("interpolation", 3))
        if resample is None:
            raise CheckpointError(f"resampling {entry.get('interpolation')!r:.20} is not one of Pillow's {_PILLOW}")
        found.append((shape, resample))
    if len(found) != towers:
        raise CheckpointError(f"it describes {len(found)} towers, and config.json {towers}")
    return found


def _statistics(shipped: Mapping[str, Any], towers: int) -> list[Statistics]:
    entries = shipped.get("tvf_normalize_params")
    pairs = (
        list(zip(shipped["means"], shipped["stds"], strict=True))
        if entries is None
        else [(entry["mean"], entry["std"]) for entry in entries]
    )
    if len(pairs) != towers:
        raise CheckpointError(f"it normalises for {len(pairs)} towers, and config.json has {towers}")
    return [(tuple(map(float, mean)), tuple(map(float, std))) for mean, std in pairs]
