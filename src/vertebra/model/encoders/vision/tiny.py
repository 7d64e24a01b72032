"""Tiny but real vision checkpoints, made in milliseconds: what holds for them holds for the models they imitate.

    tiny-siglip   google/siglip-so400m-patch14-224         no class token; stretched; mean and std 0.5
    tiny-dinov2   facebook/dinov2-with-registers-large     class token, 4 registers; cropped; ImageNet's statistics

Both cut 28 × 28 pixels into 2 × 2 patches of 14 unless set otherwise, and load with the code that loads the large.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers

from vertebra import compat
from vertebra.backbone.tiny.write import cache_folder
from vertebra.errors import UnknownNameError
from vertebra.folders import require_free, write_whole
from vertebra.model.encoders.vision.families import model_class

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
_HALF = [0.5, 0.5, 0.5]
_STEPS = {"do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}

# name -> (config class, its settings, what preprocessor_config.json says beside the sizes)
TINY_VISION: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "tiny-siglip": (
        "SiglipVisionConfig",
        {**_SIZES, "intermediate_size": 64},
        {"image_processor_type": "SiglipImageProcessor", "image_mean": _HALF, "image_std": _HALF},
    ),
    "tiny-dinov2": (
        "Dinov2WithRegistersConfig",
        {**_SIZES, "hidden_size": 48, "mlp_ratio": 2, "num_register_tokens": 4},
        {
            "image_processor_type": "BitImageProcessor",
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "do_center_crop": True,
        },
    ),
}


def write_tiny_vision(
    name: str, folder: str | Path, *, seed: int = 0, overwrite: bool = False, **overrides: Any
) -> Path:
    """Make a tiny vision checkpoint in `folder`, whole or not at all; `overrides` go to its config."""
    folder = Path(folder)
    _row(name)
    require_free(folder, overwrite=overwrite)
    return write_whole(folder, lambda part: _write(name, part, seed, overrides), replace=True)


def tiny_vision_checkpoint(name: str) -> Path:
    """The folder of a tiny vision checkpoint in the user's cache, made once."""
    _row(name)
    recipe = hashlib.sha256(Path(__file__).read_bytes() + transformers.__version__.encode()).hexdigest()[:12]
    folder = cache_folder() / "tiny" / f"{name}-{recipe}"  # a changed recipe never meets old files
    if folder.is_dir():
        return folder
    return write_whole(folder, lambda part: _write(name, part, 0, {}), replace=False)


def _row(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    if name not in TINY_VISION:
        raise UnknownNameError("tiny vision checkpoint", name, TINY_VISION)
    return TINY_VISION[name]


def _write(name: str, part: Path, seed: int, overrides: dict[str, Any]) -> None:
    config_cls, settings, shipped = _row(name)
    known = getattr(transformers, config_cls)().to_dict()
    for key in overrides:
        if key not in known:
            raise UnknownNameError("config setting", key, known)
    config = getattr(transformers, config_cls)(**{**settings, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)(config)
        _liven(model)
    with compat.bars_only_in_terminals():
        model.save_pretrained(part)
    size = {"height": config.image_size, "width": config.image_size}
    crop = {"size": {"shortest_edge": config.image_size * 8 // 7}, "crop_size": size}
    shipped = {**_STEPS, **shipped, **(crop if shipped.get("do_center_crop") else {"size": size})}
    (part / "preprocessor_config.json").write_text(json.dumps(shipped, indent=1), encoding="utf-8")


@torch.no_grad()
def _liven(model: torch.nn.Module) -> None:
    """Fresh weights are so small that all images look alike; norms and biases so plain that losing one goes unseen."""
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim > 1 and "token" not in name and "position" not in name:
            fan_in = parameter[0].numel()
            parameter.copy_(noise / fan_in**0.5)
        else:
            parameter.add_(0.1 * noise)
