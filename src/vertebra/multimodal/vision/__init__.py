"""Image encoders from transformers: SigLIP, DINOv2 with registers, both side by side, and tiny checkpoints of them."""

from __future__ import annotations

from vertebra.multimodal.vision.fused import FusedTowers
from vertebra.multimodal.vision.tower import VisionTower

__all__ = ["FusedTowers", "VisionTower"]
