"""A recipe's model without weights, tokenizer or network: its language model, encoders and projectors on the meta device.

Parameters have the names that they have in the real model, so that stages and patterns mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vertebra.backbone.source import find
from vertebra.backbone.weights import parameters_on_meta
from vertebra.errors import ConfigError
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.queries import Queries
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.encoders.vision import VisionTower
from vertebra.model.folder import recorded_heads, recorded_parts
from vertebra.model.model import Model
from vertebra.model.projectors import Projector
from vertebra.training.building import image_encoder, image_parts
from vertebra.training.config import RunConfig
from vertebra.training.planning.shapes import shape_of, tower_shape
from vertebra.tune.parts import parts_of
from vertebra.tune.stages import choose


class Outline(Model):
    """A `Model` without weights: nothing of it is held against anything, since there is nothing to run."""

    def __init__(self, llm: Any, parts: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        nn.Module.__init__(self)
        self.backbone: Any = _Bare(llm)
        self.parts, self.heads = nn.ModuleDict(dict(parts)), nn.ModuleDict(dict(heads))
        self.record: dict[str, Any] = {}

    @property
    def encoded(self) -> list[Part]:
        """The parts that read items."""
        return [part for part in self.parts.values() if isinstance(part, Part)]

    @property
    def slots(self) -> int:
        """Positions that one item of each part takes."""
        return sum(part.slots for part in self.encoded)


class _Bare(nn.Module):
    """Stands for a backbone."""

    def __init__(self, llm: Any) -> None:
        super().__init__()
        self.llm = llm
        self.growths: list[Any] = []

    @property
    def layers(self) -> Any:
        return parts_of(self.llm).layers

    @property
    def last_layer_finetune_modules(self) -> tuple[Any, ...]:
        return (self.llm.get_input_embeddings(), self.layers[-1], self.llm.get_output_embeddings())


def outline(config: RunConfig, *, depth: int | None = None) -> Outline:
    """The model of a recipe, what trains chosen; with `depth`, of so many decoder layers."""
    model_cls, shape = shape_of(config.model.backbone, config.model.overrides, masked=config.task.for_encoder)
    if depth is not None:
        shape = of_depth(shape, depth)
    dtype = getattr(torch, config.model.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"model.dtype `{config.model.dtype}` is no type of torch")
    with parameters_on_meta():
        llm = model_cls._from_config(shape, dtype=dtype)
        parts = outlined_parts(config, llm.get_input_embeddings().weight.shape[1])
        heads = {**config.task.heads(config.data, _Bare(llm)), **_recorded_heads(config)}
        made = Outline(llm, parts, heads).train()
        choose(made, config.tune)
    for name, parameter in made.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # PEFT keeps adapters in fp32
    llm.enable_input_require_grads()  # as every backbone has it that trains
    return made


def of_depth(shape: Any, depth: int) -> Any:
    """The same config with fewer layers; what it says layer by layer is cut as well."""
    total = shape.num_hidden_layers
    settings = {k: v[:depth] if isinstance(v, list) and len(v) == total else v for k, v in shape.to_dict().items()}
    for name in ("num_hidden_layers", shape.attribute_map.get("num_hidden_layers")):
        if name in settings:
            settings[name] = depth
    return type(shape).from_dict(settings)


def depths(config: RunConfig) -> tuple[int, int, int] | None:
    """Two small depths and the real one, where what a deep model takes follows from shallow ones; else None."""
    shape = shape_of(config.model.backbone, config.model.overrides, masked=config.task.for_encoder)[1]
    total = int(shape.num_hidden_layers)
    tune = config.tune
    if tune.lora.layers or any(_names_a_layer(pattern) for pattern in (*tune.train, *tune.freeze)):
        return None
    kinds = list(getattr(shape, "layer_types", None) or [""])
    period = next(n for n in range(1, len(kinds) + 1) if all(k == kinds[i % n] for i, k in enumerate(kinds)))
    low = max(4, period, tune.blocks + 2 if tune.stage == "last-blocks" else 0)
    high = low + max(2, period)
    return (low, high, total) if total > high else None


def _names_a_layer(pattern: str) -> bool:
    """Whether a pattern of parameters' names may tell one layer from another: with a number, or what stands for one."""
    return any(character.isdigit() or character in "?[" for character in pattern)


def outlined_tower(name: str, *, image_size: int | None, **settings: Any) -> VisionTower:
    """A vision tower whose shape is known, or its config's."""
    size = {} if image_size is None else {"image_size": image_size, "preparation": None}
    return VisionTower(**{**tower_shape(name), **settings, **size})


def described_tower(name: str, *, image_size: int | None, **settings: Any) -> VisionTower:
    """A vision tower with the preparation that its files describe."""
    return VisionTower(**{**VisionTower.described(name, image_size=image_size), **settings})


def outlined_parts(
    config: RunConfig, width: int, tower: Callable[..., VisionTower] = outlined_tower
) -> dict[str, nn.Module]:
    """The parts of a recipe's model, with whatever weights new modules have."""
    model = config.model
    parts: dict[str, nn.Module] = {}
    if model.image is not None:
        for name in image_parts(config):
            encoder = image_encoder(model.image, tower)
            parts[name] = Part(encoder, Projector(model.image.projector, encoder.width, width))
    elif model.start is not None:
        parts = _recorded(model.start)
    vectors = {name: wide for name, wide in config.task.vectors(config.data).items() if name not in parts}
    parts |= {name: Part(VectorEncoder(wide), Projector("gelu2", wide, width)) for name, wide in vectors.items()}
    for name, one in config.task.encoders(config.data).items():
        if name not in parts:
            own = one.encoder()
            parts[name] = Part(own, Projector(one.projector, own.width, width), place=one.place)
    needed = config.task.queries(config.data)
    return parts | {name: Queries(count, width) for name, count in needed.items() if name not in parts}


def _recorded(start: str) -> dict[str, nn.Module]:
    """The parts of a model folder."""
    if not Path(start).expanduser().is_dir():
        raise ConfigError(
            f"model.start: there is no folder `{start}` yet; make it first, or plan with `model.image` set"
        )
    return recorded_parts(find(start))


def _recorded_heads(config: RunConfig) -> dict[str, nn.Module]:
    """The heads of the folder that a recipe starts from."""
    start = config.model.start
    return recorded_heads(find(start)) if start is not None and Path(start).expanduser().is_dir() else {}
