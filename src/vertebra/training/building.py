"""The model that a recipe names: a backbone (pretrained or drawn anew), added tokens, images, action slots.

`build_late` leaves what can wait: the decoder layers then come one at a time, when the model is sharded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vertebra import log
from vertebra.backbone.kernels import as_dtype
from vertebra.backbone.matrices import matrices
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.saving import load_weights
from vertebra.backbone.vocabulary import Init, grow_to
from vertebra.errors import ConfigError
from vertebra.model.encoders.part import ItemEncoder
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.stem import StemEncoder
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.encoders.vision import VisionTower
from vertebra.model.fresh import new_part, new_queries
from vertebra.model.model import Model
from vertebra.training.config import ImageConfig, RunConfig
from vertebra.training.matching import match
from vertebra.training.scale.start import Late, scratch


def build_model(config: RunConfig) -> nn.Module:
    """The model of a run, its weights a function of the recipe and its seed."""
    return _built(config, late=False)[0]


def build_late(config: RunConfig) -> tuple[nn.Module, Late | None]:
    """The same model, and what of it is yet to come; None where nothing can wait."""
    return _built(config, late=True)


def _built(config: RunConfig, *, late: bool) -> tuple[nn.Module, Late | None]:
    torch.manual_seed(config.seed)
    model = config.model
    task = config.task
    if task.for_encoder:
        encoder: nn.Module = task.load_encoder(model.backbone, config.data, pretrained=not model.scratch)
        return encoder, None
    if model.start is not None:
        return _started(config, late=late)
    options: dict[str, Any] = {
        "dtype": model.dtype,
        "attn": model.attn,
        "llm_max_length": model.max_length,
        "config_overrides": model.overrides,
        "builder": model.builder,
    }
    # an adapter is drawn from the weights that it stands on, and keys that match are their queries
    late = late and not (model.scratch and (config.tune.stage == "lora" or model.init == "matching"))
    waiting: Late | None = None
    if model.scratch:
        backbone, waiting = fresh_weights(
            load_backbone(model.backbone, inference_mode=True, **options), seed=config.seed, late=late
        )
        if model.init == "matching":
            match(backbone.llm, seed=config.seed)
    elif late:
        backbone, waiting = mapped_weights(load_backbone(model.backbone, inference_mode=True, **options))
        _cast_under_adapters(backbone, waiting, config)
    else:
        backbone = load_backbone(model.backbone, quantization=model.quantization, **options)
    grow(backbone, config)
    parts: dict[str, Any] = {}
    if model.image is not None:
        for name in image_parts(config):
            parts[name] = new_part(backbone, image_encoder(model.image), model.image.projector)
    parts |= _vectors(config, backbone, parts)
    parts |= _encoders(config, backbone, parts)
    parts |= _queries(config, backbone, parts)
    return Model(
        backbone, parts, heads=task.heads(config.data, backbone), record=task.record(config.data, backbone)
    ), waiting


def grow(backbone: Any, config: RunConfig) -> None:
    """Add the words and tokens that the recipe and its data need. Words of a model from scratch begin as all its words do."""
    init: Init = "normal" if config.model.scratch else "mean+noise"
    grow_to(backbone, config.model.words, init, special=False, seed=config.seed)
    grow_to(backbone, (*config.model.tokens, *config.task.tokens(config.data)), seed=config.seed)


def _started(config: RunConfig, *, late: bool) -> tuple[Model, Late | None]:
    """A model folder to go on from; action slots join it where it has none yet."""
    model = config.model
    if not Path(str(model.start)).is_dir():
        raise ConfigError(
            f"model.start: there is no folder `{model.start}`. It is the model that an earlier stage wrote (runs/NAME/model): "
            "run that recipe first, or name another folder (--set model.start=FOLDER)"
        )
    options: dict[str, Any] = {"attn": model.attn, "llm_max_length": model.max_length}
    waiting: Late | None = None
    if late:
        started = Model.load(str(model.start), inference_mode=True, **options)
        waiting = _mapped(started, as_dtype(model.dtype))
        _cast_under_adapters(started, waiting, config)
        started.backbone.set_to_train()
        started.train()
    else:
        started = Model.load(str(model.start), dtype=model.dtype, quantization=model.quantization, **options)
    backbone, task, had = started.backbone, config.task, dict(started.heads.items())
    needed = dict(task.heads(config.data, backbone))
    _require_same(config, started, needed)
    parts: dict[str, Any] = {**started.parts, **_vectors(config, backbone, started.parts)}
    parts |= _encoders(config, backbone, parts)
    parts |= _queries(config, backbone, parts)
    heads: Any = needed | had
    record = {**started.record, **task.record(config.data, backbone)}
    if parts.keys() != started.parts.keys() or heads.keys() != had.keys():
        started = Model(backbone, parts, heads=heads, aside=started.aside)
    started.record.update(record)
    return started, waiting


def _require_same(config: RunConfig, started: Model, needed: dict[str, Any]) -> None:
    """Slots and heads that a folder has already must be those that the task means by their names."""
    faults = []
    slots = config.task.queries(config.data)
    parts: dict[str, Any] = dict(started.parts.items())
    heads: dict[str, Any] = dict(started.heads.items())
    for name, count in slots.items():
        if name in parts and parts[name].slots != count:
            faults.append(f"`{name}` has {parts[name].slots} slots there, and {count} here")
    for name, one in config.task.encoders(config.data).items():
        if name in parts and parts[name].place != one.place:
            faults.append(f"`{name}` enters as `{parts[name].place}` there, and as `{one.place}` here")
    for name, there in heads.items():
        here = needed.get(name)
        if name in (*slots, *needed) and (here is None or here.settings() != there.settings()):
            faults.append(
                f"`{name}` is answered by {there.about()} there, by {here.about() if here else 'tokens'} here"
            )
    if faults:
        raise ConfigError(
            f"model.start: `{config.model.start}` has other heads than this recipe: {'; '.join(faults)}. Start from a model "
            "without them, or give this recipe the same head and sizes"
        )


def _queries(config: RunConfig, backbone: Any, parts: Any) -> dict[str, Any]:
    """Embeddings for the slots that the task has and that the model has none for yet."""
    needed = config.task.queries(config.data)
    return {name: new_queries(backbone, count) for name, count in needed.items() if name not in parts}


def image_parts(config: RunConfig) -> tuple[str, ...]:
    """The segments that have an image encoder of their own."""
    return config.task.cameras(config.data) if config.model.image and config.model.image.each else ("image",)


def _vectors(config: RunConfig, backbone: Any, parts: Any) -> dict[str, Any]:
    """Projectors for the plain vectors of the task that the model has none for yet."""
    needed = config.task.vectors(config.data)
    return {name: new_part(backbone, VectorEncoder(width)) for name, width in needed.items() if name not in parts}


def _encoders(config: RunConfig, backbone: Any, parts: Any) -> dict[str, Any]:
    """Encoders that the task brings and that the model has none of yet."""
    needed = config.task.encoders(config.data)
    return {
        name: new_part(backbone, one.encoder(), one.projector, place=one.place)
        for name, one in needed.items()
        if name not in parts
    }


def image_encoder(image: ImageConfig, tower: Callable[..., ItemEncoder] = VisionTower.load) -> ItemEncoder:
    """A small encoder of one's own, or a vision tower: the pretrained one, or what else `tower` makes of its name."""
    if image.encoder == "patches":
        return PatchEncoder(image.width, image_size=image.image_size or 32, patch_size=image.patch_size)
    if image.encoder == "stem":
        sizes: dict[str, Any] = {"grid": image.grid, "points": image.points, "channels": image.channels}
        return StemEncoder(image.width, image_size=image.image_size or 64, **sizes)
    if image.name is None:
        raise ConfigError("model.image.name: the `vision` encoder needs the id or folder of a vision model")
    return tower(image.name, block=image.block, pool=image.pool, image_size=image.image_size)


def fresh_weights(backbone: Any, *, seed: int = 0, late: bool = False) -> tuple[Any, Late | None]:
    """Weights drawn anew for a backbone's structure, which then trains like one that was loaded; and what of them is
    yet to come, all but the tables where `late`."""
    structure = backbone.llm
    waiting = scratch(structure, seed=seed)
    if waiting is not None:
        _tables_ready(structure, waiting) if late else waiting.ready(structure)
        return backbone.set_to_train(), waiting if late else None
    log.info(f"{type(structure).__name__} has rules of its own for new weights; every process draws the whole model")
    llm = type(structure)._from_config(
        structure.config, dtype=structure.config.dtype, attn_implementation=structure.config._attn_implementation
    )
    llm.generation_config, llm.loss_type = structure.generation_config, structure.loss_type
    backbone.llm = llm
    return backbone.set_to_train(), None


def mapped_weights(backbone: Any) -> tuple[Any, Late]:
    """Pretrained weights for a backbone's structure, mapped as they are stored; what must be cast comes later."""
    dtype = backbone.llm.dtype
    load_weights(backbone, backbone.hf_hub_path, as_stored=True)
    waiting = Late()
    waiting.cast(backbone.llm, dtype)
    return backbone.set_to_train(), waiting


def _mapped(model: Model, dtype: torch.dtype) -> Late:
    """A mapped model whose tables have the requested type, and the rest of it later."""
    for matrix in matrices(model.backbone.llm):
        matrix.parameter.data = matrix.parameter.data.to(dtype)
    waiting = Late()
    waiting.cast(model, dtype)
    return waiting


def _cast_under_adapters(model: nn.Module, waiting: Late, config: RunConfig) -> None:
    """New adapters are rounded to the type of the weights under them, which must be what it will be."""
    if config.tune.stage == "lora" and len(waiting):
        log.info(
            f"the base is stored in another type than model.dtype={config.model.dtype}: every process casts it whole"
        )
        waiting.ready(model)


def _tables_ready(llm: Any, waiting: Late) -> None:
    """Embedding and head at once: new tokens and projectors are measured on them."""
    for module in (llm.get_input_embeddings(), llm.get_output_embeddings()):
        if module is not None:
            waiting.ready(module)
    llm.tie_weights()
