"""Image encoders as timm names them, and as transformers does: facts, names, and what has no place in ours.

    featurizer.blocks.3.attn.qkv.weight [3 D, D]  ◄──►  encoder.layer.3.attention.{q,k,v}_proj.weight [D, D]
    featurizer.pos_embed [1, patches, D]          ◄──►  embeddings.position_embeddings, a zero before it: timm gives the
                                                        class token no position, and what was learned goes into the token

One table a kind of tower. Blocks behind the chosen one, the last norm and the pooling head are in the files and are never
run; their names are the allow-list of what is kept aside for writing back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vertebra.errors import CheckpointError, UnknownNameError

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Tower:
    """What a timm id says that no shape does."""

    kind: str
    """A key of `KINDS`."""
    heads: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch: int = 14


_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _tower(kind: str, heads: int, statistics: Any, patch: int = 14) -> Tower:
    return Tower(kind=kind, heads=heads, mean=statistics[0], std=statistics[1], patch=patch)


TOWERS: dict[str, Tower] = {
    "vit_small_patch14_reg4_dinov2.lvd142m": _tower("dinov2", 6, _IMAGENET),
    "vit_base_patch14_reg4_dinov2.lvd142m": _tower("dinov2", 12, _IMAGENET),
    "vit_large_patch14_reg4_dinov2.lvd142m": _tower("dinov2", 16, _IMAGENET),
    "vit_base_patch16_siglip_224": _tower("siglip", 12, _HALF, 16),
    "vit_so400m_patch14_siglip_224": _tower("siglip", 16, _HALF),
    "vit_so400m_patch14_siglip_384": _tower("siglip", 16, _HALF),
    "vit_base_patch16_clip_224.openai": _tower("clip", 12, _CLIP, 16),
    "vit_large_patch14_clip_224.openai": _tower("clip", 16, _CLIP),
    "vit_large_patch14_clip_336.openai": _tower("clip", 16, _CLIP),
}
"""Towers by their timm ids. The number of heads is in no tensor, so that an id must be here."""


@dataclass(frozen=True, kw_only=True)
class Rename:
    """One row: their name, ours (as many as theirs is split into), `{i}` for the number of a block."""

    theirs: str
    ours: tuple[str, ...]
    read: Callable[[torch.Tensor], list[torch.Tensor]] = lambda tensor: [tensor]
    write: Callable[[list[torch.Tensor]], torch.Tensor] = lambda tensors: tensors[0]


def _thirds(tensor: torch.Tensor) -> list[torch.Tensor]:
    return list(tensor.chunk(3))  # views: a mapped tensor is not read for it


def _class_and_patches(tensor: torch.Tensor) -> list[torch.Tensor]:
    return [torch.cat([tensor.new_zeros(1, 1, tensor.shape[2]), tensor], 1)]


def _both(theirs: str, ours: str, **how: Any) -> list[Rename]:
    """A weight and its bias."""
    return [
        Rename(theirs=f"{theirs}.{leaf}", ours=tuple(f"{one}.{leaf}" for one in ours.split()), **how)
        for leaf in ("weight", "bias")
    ]


def _qkv(ours: str) -> list[Rename]:
    return _both("blocks.{i}.attn.qkv", ours, read=_thirds, write=torch.cat)


def _squeezed(theirs: str, ours: str) -> Rename:
    return Rename(
        theirs=theirs, ours=(ours,), read=lambda tensor: [tensor[0]], write=lambda tensors: tensors[0].unsqueeze(0)
    )


_SCALES = [
    Rename(theirs=f"blocks.{{i}}.ls{n}.scale_factor", ours=(f"encoder.layer.{{i}}.layer_scale{n}.lambda1",))
    for n in (1, 2)
]
_DINOV2 = [
    Rename(theirs="cls_token", ours=("embeddings.cls_token",)),
    Rename(theirs="reg_token", ours=("embeddings.register_tokens",)),
    Rename(
        theirs="pos_embed",
        ours=("embeddings.position_embeddings",),
        read=_class_and_patches,
        write=lambda tensors: tensors[0][:, 1:].contiguous(),
    ),
    *_both("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    *_both("blocks.{i}.norm1", "encoder.layer.{i}.norm1"),
    *_qkv(" ".join(f"encoder.layer.{{i}}.attention.{letter}_proj" for letter in "qkv")),
    *_both("blocks.{i}.attn.proj", "encoder.layer.{i}.attention.o_proj"),
    *_SCALES,
    *_both("blocks.{i}.norm2", "encoder.layer.{i}.norm2"),
    *_both("blocks.{i}.mlp.fc1", "encoder.layer.{i}.mlp.fc1"),
    *_both("blocks.{i}.mlp.fc2", "encoder.layer.{i}.mlp.fc2"),
]
_LAYERS = [
    *_both("blocks.{i}.norm1", "encoder.layers.{i}.layer_norm1"),
    *_qkv(" ".join(f"encoder.layers.{{i}}.self_attn.{letter}_proj" for letter in "qkv")),
    *_both("blocks.{i}.attn.proj", "encoder.layers.{i}.self_attn.out_proj"),
    *_both("blocks.{i}.norm2", "encoder.layers.{i}.layer_norm2"),
    *_both("blocks.{i}.mlp.fc1", "encoder.layers.{i}.mlp.fc1"),
    *_both("blocks.{i}.mlp.fc2", "encoder.layers.{i}.mlp.fc2"),
]
_SIGLIP = [
    _squeezed("pos_embed", "embeddings.position_embedding.weight"),
    *_both("patch_embed.proj", "embeddings.patch_embedding"),
    *_LAYERS,
]
_CLIP_NAMES = [
    Rename(
        theirs="cls_token",
        ours=("embeddings.class_embedding",),
        read=lambda tensor: [tensor[0, 0]],
        write=lambda tensors: tensors[0][None, None],
    ),
    _squeezed("pos_embed", "embeddings.position_embedding.weight"),
    Rename(theirs="patch_embed.proj.weight", ours=("embeddings.patch_embedding.weight",)),
    *_both("norm_pre", "pre_layrnorm"),
    *_LAYERS,
]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of tower: its names, and the config that transformers builds it from."""

    names: tuple[Rename, ...]
    aside: tuple[str, ...]
    """What lies behind the chosen block: patterns of names."""
    marks: tuple[str, ...]
    """Tensors by which a file shows that its tower is of this kind."""
    config: Mapping[str, Any]


_BEHIND = (r"norm\.(weight|bias)",)
KINDS: dict[str, Kind] = {
    "dinov2": Kind(
        names=tuple(_DINOV2),
        aside=_BEHIND,
        marks=("reg_token", "blocks.0.ls1.scale_factor"),
        config={"model_type": "dinov2_with_registers", "layer_norm_eps": 1e-6, "hidden_act": "gelu", "qkv_bias": True},
    ),
    "siglip": Kind(
        names=tuple(_SIGLIP),
        # the pooling head has a query of its own
        aside=(*_BEHIND, r"attn_pool\..+"),
        marks=("attn_pool.latent",),
        # timm's is the exact GELU, while transformers' own default for SigLIP is the approximate one
        config={"model_type": "siglip_vision_model", "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    ),
    "clip": Kind(
        names=tuple(_CLIP_NAMES),
        aside=_BEHIND,
        marks=("norm_pre.weight",),
        config={"model_type": "clip_vision_model", "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
    ),
}


def tower_named(timm_id: str, heads: int | None = None) -> Tower:
    """The facts of a timm id; `heads` in place of the table's."""
    if timm_id not in TOWERS:
        raise UnknownNameError("image encoder of timm", timm_id, TOWERS, hint="Its number of heads is in no tensor.")
    row = TOWERS[timm_id]
    return row if heads is None else Tower(kind=row.kind, heads=heads, mean=row.mean, std=row.std, patch=row.patch)


def config_of(tower: Tower, shapes: Mapping[str, tuple[int, ...]], image_size: int, where: str) -> dict[str, Any]:
    """The config of a tower: what its shapes say, and what its id says."""
    width, _, patch, _ = _shape(shapes, "patch_embed.proj.weight", 4, where)
    inner = _shape(shapes, "blocks.0.mlp.fc1.weight", 2, where)[0]
    config: dict[str, Any] = {
        **KINDS[tower.kind].config,
        "hidden_size": width,
        "num_hidden_layers": 1 + max(number for name in shapes if (number := block_of(name)) is not None),
        "num_attention_heads": tower.heads,
        "image_size": image_size,
        "patch_size": patch,
    }
    if width % tower.heads:
        raise CheckpointError(f"{where} is {width} wide, which {tower.heads} heads do not divide; give its heads")
    if tower.kind == "dinov2":
        return {**config, "mlp_ratio": _ratio(inner, width, where), "num_register_tokens": shapes["reg_token"][1]}
    return {**config, "intermediate_size": inner}


def check_kind(tower: Tower, timm_id: str, shapes: Mapping[str, Any], where: str) -> None:
    """Refuse a tower of another kind than its id says, as it is where two are swapped."""
    missing = [mark for mark in KINDS[tower.kind].marks if mark not in shapes]
    if not missing:
        return
    seen = [name for name, kind in KINDS.items() if all(mark in shapes for mark in kind.marks)]
    found = f"its tensors are those of {seen[0]}" if seen else f"it lacks {', '.join(missing)}"
    raise CheckpointError(
        f"{where} is `{timm_id}` by the config, which is {tower.kind}, and {found}. Are the two towers swapped? Correct "
        "`timm_model_ids`, or copy the folder again"
    )


def block_of(name: str) -> int | None:
    """The number of the block that a name belongs to."""
    found = re.match(r"blocks\.(\d+)\.", name)
    return int(found[1]) if found else None


def is_behind(kind: str, name: str, kept: int) -> bool:
    """Whether a name is on the allow-list of what is never run: behind the `kept` blocks."""
    number = block_of(name)
    if number is not None:
        return number >= kept
    return any(re.fullmatch(pattern, name) for pattern in KINDS[kind].aside)


def renames(kind: str, blocks: int) -> list[Rename]:
    """The rows of a kind of tower, written out for its blocks."""
    rows = []
    for row in KINDS[kind].names:
        numbers = range(blocks) if "{i}" in row.theirs else (0,)
        rows += [
            Rename(
                theirs=row.theirs.replace("{i}", str(i)),
                ours=tuple(one.replace("{i}", str(i)) for one in row.ours),
                read=row.read,
                write=row.write,
            )
            for i in numbers
        ]
    return rows


def film_renames(blocks: int) -> list[Rename]:
    """The rows of what OFT's FiLM adds to each block."""
    return [
        Rename(theirs=f"blocks.{i}.{what}.{leaf}", ours=(f"film.{what}.{i}.{leaf}",))
        for i in range(blocks)
        for what in ("scale", "shift")
        for leaf in ("weight", "bias")
    ]


def fold_class_position(state: Tensors) -> dict[str, torch.Tensor]:
    """The class token with its position in it, as timm has no place for one; nothing changes where it is still zero."""
    name, positions = "embeddings.cls_token", state["embeddings.position_embeddings"]
    if not bool(positions[:, :1].any()):
        return dict(state)
    return {**state, name: state[name] + positions[:, :1]}


def _ratio(inner: int, width: int, where: str) -> int | float:
    """What transformers multiplies the width by; it must come out at the inner width again."""
    ratio = inner // width if inner % width == 0 else inner / width
    if int(width * ratio) != inner:
        raise CheckpointError(f"{where} has inner layers {inner} wide at a width of {width}, which cannot be built")
    return ratio


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, dims: int, where: str) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != dims:
        raise CheckpointError(f"{where} has `{name}` of shape {shapes.get(name)}; expected {dims} dimensions")
    return shapes[name]
