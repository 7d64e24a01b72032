"""`FusedTowers`: several towers look at the same image, and their features stand side by side in each patch.

DINOv2 knows where things are and SigLIP what they are; together they are what OpenVLA sees with. The towers must cut
the image into the same patches. Each normalises the shared pixels in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vertebra.errors import ConfigError
from vertebra.model.encoders.images import Preparation
from vertebra.model.encoders.pixels import PixelEncoder
from vertebra.model.encoders.vision.tower import VisionTower


class FusedTowers(PixelEncoder):
    """Towers of one image size and one number of patches; the width is the sum of theirs."""

    kind = "fused vision"
    pretrained = True

    def __init__(
        self,
        towers: Sequence[VisionTower | dict[str, Any]],
        *,
        preparation: Preparation | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        built = [VisionTower(**tower) if isinstance(tower, dict) else tower for tower in towers]
        if len(built) < 2:
            raise ConfigError(f"{len(built)} towers to fuse; expected two or more, or a VisionTower by itself")
        shapes = {(tower.image_size, tower.slots) for tower in built}
        if len(shapes) > 1:
            sizes = ", ".join(f"`{tower.name}`: {tower.image_size} pixels, {tower.slots} patches" for tower in built)
            raise ConfigError(f"fused towers must cut an image alike; these do not: {sizes}")
        self.towers = nn.ModuleList(built)
        self.preparation = Preparation.of(preparation or built[0].preparation, built[0].image_size)
        self.width, self.slots = sum(tower.width for tower in built), built[0].slots
        self.reads_text = any(tower.reads_text for tower in built)

    def forward(self, values: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        return torch.cat([tower(values, text) for tower in self.towers], -1)

    def about(self) -> str:
        return " + ".join(tower.about() for tower in self.towers)  # type: ignore[operator]

    def settings(self) -> dict[str, Any]:
        towers = [tower.settings() for tower in self.towers]  # type: ignore[operator]
        return {"towers": towers, "preparation": self.preparation.settings()}
