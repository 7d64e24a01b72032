"""The vision models that we know, as rows: their classes, and which of their outputs are no patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import transformers

from vertebra.errors import CheckpointError, did_you_mean


@dataclass(frozen=True)
class VisionFamily:
    """What differs between two vision transformers."""

    model_cls: str
    config_cls: str
    class_tokens: int
    """Outputs before the first patch, registers not counted."""
    unused: tuple[str, ...]
    """Parameters of the embeddings that no image reaches; kept, they would never see a gradient."""
    interpolate: str | None
    """The option that fits its positions to images of another size; None: it does so by itself."""
    before: str | None = None
    """A norm between embeddings and blocks."""


VISION_FAMILIES: dict[str, VisionFamily] = {
    "siglip_vision_model": VisionFamily("SiglipVisionModel", "SiglipVisionConfig", 0, (), "interpolate_pos_encoding"),
    "clip_vision_model": VisionFamily(
        "CLIPVisionModel", "CLIPVisionConfig", 1, (), "interpolate_pos_encoding", before="pre_layrnorm"
    ),
    "dinov2": VisionFamily("Dinov2Model", "Dinov2Config", 1, ("mask_token",), None),
    "dinov2_with_registers": VisionFamily(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", 1, ("mask_token",), None
    ),
}
# Whole models whose config holds that of a vision half.
_HALVES = {"siglip": "siglip_vision_model"}


def vision_config(config: Mapping[str, Any], where: str) -> Any:
    """The config of the vision model (or of the vision half) of a checkpoint."""
    model_type = str(config.get("model_type"))
    family = VISION_FAMILIES.get(_HALVES.get(model_type, model_type))
    if family is None:
        known = [*VISION_FAMILIES, *_HALVES]
        raise CheckpointError(
            f"`{where}` is of model type `{model_type}`, which is no image encoder known here."
            f"{did_you_mean(model_type, known)} Known: {', '.join(known)}"
        )
    config_cls = getattr(transformers, family.config_cls)
    return config_cls.from_dict(dict(config.get("vision_config", {}) if model_type in _HALVES else config))


def family_of(config: Any) -> VisionFamily:
    return VISION_FAMILIES[config.model_type]


def model_class(config: Any) -> Any:
    return getattr(transformers, family_of(config).model_cls)
