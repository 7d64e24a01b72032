"""The model that a recipe names: a backbone (pretrained or drawn anew), added tokens, images, action slots."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.data.masked.model import load_masked_lm
from vertebra.errors import ConfigError
from vertebra.multimodal.fresh import new_part, new_queries
from vertebra.multimodal.model import MultimodalModel
from vertebra.multimodal.part import Encoder
from vertebra.multimodal.patches import PatchEncoder
from vertebra.train.config import ImageConfig, RunConfig
from vertebra.train.squares import TOKENS


def build_model(config: RunConfig) -> nn.Module:
    """The model of a run, its weights a function of the recipe and its seed."""
    torch.manual_seed(config.seed)
    model = config.model
    if config.data.kind == "masked":
        return _masked(config)
    if model.start is not None:
        return _started(config)
    options: dict[str, Any] = {
        "dtype": model.dtype,
        "attn": model.attn,
        "llm_max_length": model.max_length,
        "config_overrides": model.overrides,
    }
    if model.scratch:
        backbone = fresh_weights(load_backbone(model.backbone, inference_mode=True, **options))
    else:
        backbone = load_backbone(model.backbone, quantization=model.quantization, **options)
    known = backbone.tokenizer.get_vocab()
    wanted = (*model.tokens, *(TOKENS if config.data.kind == "squares" else ()))
    new = [token for token in dict.fromkeys(wanted) if token not in known]
    if new:
        grow_vocabulary(backbone, new, seed=config.seed)
    parts: dict[str, Any] = {}
    if model.image is not None:
        parts["image"] = new_part(backbone, image_encoder(model.image), model.image.projector)
    if config.data.kind == "squares" and config.data.parallel:
        parts["action"] = new_queries(backbone, 2)
    return MultimodalModel(backbone, parts)


def _started(config: RunConfig) -> MultimodalModel:
    """A model folder to go on from; action slots join it where it has none yet."""
    model = config.model
    started = MultimodalModel.load(
        str(model.start), dtype=model.dtype, attn=model.attn, llm_max_length=model.max_length
    )
    if config.data.kind == "squares" and config.data.parallel and "action" not in started.parts:
        parts: dict[str, Any] = {**started.parts, "action": new_queries(started.backbone, 2)}
        return MultimodalModel(started.backbone, parts, record=started.record)
    return started


def _masked(config: RunConfig) -> nn.Module:
    model = config.model
    if model.overrides:
        raise ConfigError("`model.overrides` is for language models; name another encoder for masked data")
    return load_masked_lm(model.backbone, pretrained=not model.scratch)


def image_encoder(image: ImageConfig) -> Encoder:
    """A patch encoder of one's own, or a pretrained vision tower."""
    if image.encoder == "patches":
        return PatchEncoder(image.width, image_size=image.image_size, patch_size=image.patch_size)
    if image.name is None:
        raise ConfigError("model.image.name: the `vision` encoder needs the id or folder of a vision model")
    from vertebra.multimodal.vision.tower import VisionTower

    return VisionTower.load(image.name)


def fresh_weights(backbone: Any) -> Any:
    """Weights drawn anew for a backbone's structure, which then trains like one that was loaded."""
    structure = backbone.llm
    with torch.device("cpu"):
        llm = type(structure)._from_config(
            structure.config, dtype=structure.config.dtype, attn_implementation=structure.config._attn_implementation
        )
    llm.generation_config, llm.loss_type = structure.generation_config, structure.loss_type
    backbone.llm = llm.train()
    backbone.inference_mode = False
    backbone._awaiting_weights = False
    backbone.tokenizer.padding_side = "right"
    llm.enable_input_require_grads()
    return backbone
