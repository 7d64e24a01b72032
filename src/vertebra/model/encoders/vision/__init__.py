"""Image encoders from transformers: SigLIP, DINOv2 with registers, both side by side, and tiny checkpoints of them."""

from __future__ import annotations

from vertebra.model.encoders.vision.fused import FusedTowers
from vertebra.model.encoders.vision.tower import VisionTower

__all__ = ["FusedTowers", "VisionTower"]
