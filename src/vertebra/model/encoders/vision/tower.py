"""`VisionTower`: the patch features of one block of a pretrained vision transformer.

    pixels 0..1 ──► normalise ──► embeddings ──► blocks 1 … n - 1 │ block n, norm, pooling head
                                                                  ▼
                                        class and register tokens dropped: one vector a patch

What lies behind the chosen block is not kept: it would cost memory and time, and its parameters would never see a
gradient. It does not know language models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vertebra import compat
from vertebra.backbone.source import CheckpointSource, find, read_json, weight_files
from vertebra.backbone.weights import parameters_on_meta
from vertebra.errors import CheckpointError, ConfigError, InjectionError
from vertebra.model.encoders.images import Preparation
from vertebra.model.encoders.pixels import PixelEncoder, scaled
from vertebra.model.encoders.vision.families import family_of, model_class, vision_config
from vertebra.model.encoders.vision.film import Film, through

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as processors write them


class VisionTower(PixelEncoder):
    """A SigLIP or DINOv2-with-registers encoder. `load` brings weights; the class itself builds the structure."""

    kind = "vision"
    pretrained = True
    embeddings: nn.Module
    encoder: nn.Module

    def __init__(
        self,
        config: dict[str, Any],
        *,
        block: int = -2,
        pool: int = 1,
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        preparation: Preparation | dict[str, Any] | None = None,
        name: str = "",
        film: int | None = None,
    ) -> None:
        """`film`: columns of what it film, for a tower whose blocks are modulated by the text; None: it film nothing."""
        super().__init__()
        full = vision_config(config, name or "the given config")
        size = full.image_size if image_size is None else image_size
        if size < full.patch_size or size % full.patch_size:
            raise ConfigError(
                f"images of {size} pixels do not divide into the patches of {full.patch_size} of `{name}`"
            )
        across = size // full.patch_size
        if pool < 1 or across % pool:
            raise ConfigError(
                f"pool={pool}: an image of {across} × {across} patches has no {pool} × {pool} squares of them"
            )
        self.config, self.block, self.pool, self.name = full.to_dict(), block, pool, name
        self.recompute = False
        """Run the blocks again in the backward pass, instead of keeping what they computed."""
        self.blocks = kept_blocks(full.num_hidden_layers, block)
        self.preparation = Preparation.of(preparation, size)
        self.width, self.slots = full.hidden_size * pool**2, (across // pool) ** 2
        family = family_of(full)
        self.resized = {family.interpolate: True} if family.interpolate and size != full.image_size else {}
        self.mean, self.std = _statistics(mean, std, IMAGENET if family.class_tokens else HALF)
        self.skipped = family.class_tokens + getattr(full, "num_register_tokens", 0)
        self.before = family.before
        full.num_hidden_layers = self.blocks
        self._take(model_class(full)(full))
        self.reads_text = film is not None
        self.film = None if film is None else Film(self.blocks, film, full.hidden_size)

    def _take(self, model: nn.Module) -> None:
        """Keep what leads to the chosen block, and drop the rest."""
        inner: Any = getattr(model, "vision_model", model)  # where SigLIP's two halves share a class, it is nested
        self.embeddings, self.encoder = inner.embeddings, inner.encoder
        before = family_of(model.config).before
        if before is not None:
            self.add_module(before, getattr(inner, before))
        del blocks_of(self.encoder)[self.blocks :]
        for name in family_of(model.config).unused:
            setattr(self.embeddings, name, None)

    @classmethod
    def load(
        cls,
        where: str | Path,
        *,
        block: int = -2,
        pool: int = 1,
        image_size: int | None = None,
        preparation: Preparation | None = None,
        token: str | None = None,
    ) -> VisionTower:
        """A pretrained tower from a folder or hub name, with the preparation and statistics that it ships.

        `pool`: squares of so many patches across share a slot, their features one after the other, so that a prompt is
        shorter and loses nothing. `image_size`: None takes the size that its processor makes (224 for DINOv2, whose
        positions are of 518).
        """
        described = cls.described(where, image_size=image_size, token=token)
        with parameters_on_meta():
            tower = cls(
                **{**described, "block": block, "pool": pool, "preparation": preparation or described["preparation"]}
            )
        source = find(where, token=token)
        tower._take(_pretrained(source, vision_config(source.config, source.name), token))
        return tower

    @classmethod
    def described(cls, where: str | Path, *, image_size: int | None = None, token: str | None = None) -> dict[str, Any]:
        """What builds the structure of a pretrained tower: its config, and the preparation and statistics it ships."""
        source = find(where, token=token)
        shipped = _shipped(source, token)
        size = image_size or _shipped_size(shipped) or vision_config(source.config, source.name).image_size
        return {
            "config": source.config,
            "image_size": size,
            "mean": shipped.get("image_mean"),
            "std": shipped.get("image_std"),
            "preparation": preparation_of(shipped, size),
            "name": source.name,
        }

    def forward(self, values: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        if self.film is not None and text is None:
            raise InjectionError(f"the image encoder `{self.name}` reads the text of its row, and was given none")
        hidden = self.embeddings(self.normalized(values), **self.resized)
        if self.before is not None:
            hidden = self.get_submodule(self.before)(hidden)
        if self.recompute and torch.is_grad_enabled():
            hidden = checkpoint(self._through, hidden, text, use_reentrant=False)
        else:
            hidden = self._through(hidden, text)
        return pooled(hidden[:, self.skipped :], self.pool)

    def normalized(self, values: torch.Tensor) -> torch.Tensor:
        """Pixels as the tower reads them; computed in fp32, for bf16 cannot hold 256 shades, and then cast."""
        pixels = scaled(values, torch.float32)
        mean, std = (pixels.new_tensor(numbers)[:, None, None] for numbers in (self.mean, self.std))
        return ((pixels - mean) / std).to(next(self.encoder.parameters()).dtype)

    def _through(self, hidden: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        if self.film is not None and text is not None:
            return through(blocks_of(self.encoder), self.film, hidden, text, self.config["model_type"])
        return self.encoder(hidden).last_hidden_state

    def about(self) -> str:
        total, size = self.config["num_hidden_layers"], self.image_size
        pool = f", {self.pool} × {self.pool} patches a slot" if self.pool > 1 else ""
        return f"{self.config['model_type']}, block {self.blocks} of {total}, from {size} × {size} pixels{pool}"

    def settings(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "block": self.block,
            "pool": self.pool,
            "image_size": self.image_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "preparation": self.preparation.settings(),
            "name": self.name,
            **({} if self.film is None else {"film": self.film.scale[0].in_features}),
        }


def blocks_of(encoder: nn.Module) -> nn.ModuleList:
    """The blocks of an encoder of transformers."""
    return next(child for child in encoder.children() if isinstance(child, nn.ModuleList))


def pooled(patches: torch.Tensor, pool: int) -> torch.Tensor:
    """[M, n², W] patches -> [M, (n / pool)², W · pool²]: the features of each square of patches, row by row."""
    if pool == 1:
        return patches
    count, number, width = patches.shape
    across = round(number**0.5) // pool
    squares = patches.view(count, across, pool, across, pool, width).transpose(2, 3)
    return squares.reshape(count, across**2, pool**2 * width)


def kept_blocks(total: int, block: int) -> int:
    """How many blocks lead to the output of `block`: 1, 2 … from the first, -1, -2 … from the last."""
    kept = total + 1 + block if block < 0 else block
    if not 1 <= kept <= total:
        raise ConfigError(f"block {block} of a tower of {total}; expected 1..{total}, or -{total}..-1 from the end")
    return kept


def preparation_of(shipped: dict[str, Any], size: int) -> Preparation:
    """The steps that a checkpoint's `preprocessor_config.json` describes, for images of `size`."""
    resample = _RESAMPLE.get(shipped.get("resample", 3), "bicubic")
    shorter, made = _edge(shipped.get("size"), "shortest_edge"), _shipped_size(shipped)
    if not shipped.get("do_center_crop") or shorter is None or made is None:
        return Preparation(size=size, resample=resample)
    return Preparation(size=size, fit="crop", shorter=max(size, round(shorter * size / made)), resample=resample)


def _shipped_size(shipped: dict[str, Any]) -> int | None:
    """The side of the images that a processor makes; None where it says nothing, or makes no squares."""
    asked = shipped.get("crop_size") if shipped.get("do_center_crop") else shipped.get("size")
    return _edge(asked, "height") if _edge(asked, "height") == _edge(asked, "width") else None


def _edge(size: Any, name: str) -> int | None:
    """One side of a size, which is a number in older files."""
    return size if isinstance(size, int) else (size or {}).get(name)


def _shipped(source: CheckpointSource, token: str | None) -> dict[str, Any]:
    file = source.file("preprocessor_config.json", token=token)
    return read_json(file) if file is not None else {}


def _statistics(mean: Any, std: Any, own: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    chosen = tuple(own[0] if mean is None else mean), tuple(own[1] if std is None else std)
    if any(len(numbers) != 3 for numbers in chosen) or min(chosen[1]) <= 0:
        raise ConfigError(f"mean {chosen[0]} and std {chosen[1]}; expected three numbers each, and std above 0")
    return chosen


def _pretrained(source: CheckpointSource, config: Any, token: str | None) -> nn.Module:
    """The checkpoint's own model, whole: what it lacks is an error and never noise."""
    if source.local:
        weight_files(source.folder)
    where = str(source.folder) if source.local else source.name
    try:
        with compat.bars_only_in_terminals():
            model, report = model_class(config).from_pretrained(
                where, config=config, dtype=torch.float32, token=token, output_loading_info=True
            )
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"the image encoder `{source.name}` cannot be loaded: {error}") from error
    lacking = [str(name) for key in ("missing_keys", "mismatched_keys") for name in report.get(key, ())]
    if lacking:
        raise CheckpointError(f"`{source.name}` lacks {len(lacking)} tensors of its image encoder: {lacking[:4]}")
    return model
