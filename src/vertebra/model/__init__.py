"""Outside embeddings: encoders, projectors, the one place where they enter; heads for actions; the model that holds all.

It uses sequences and backbones, and no decoding, no optimizer, and no source of images.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "model": "model_of",
        "folder": "ModelFiles",
        "description": "describe",
        "fresh": "new_part new_queries new_l1 new_flow",
        "inject": "Injection",
        "heads.interface": "ActionHead",
        "heads.l1": "L1Head",
        "heads.flow": "FlowHead",
        "heads.previous": "Previous",
        "encoders.part": "ItemEncoder Part",
        "encoders.vision.tower": "VisionTower",
        "encoders.vision.fused": "FusedTowers",
        "encoders.vision.tiny": "tiny_vision_checkpoint",
        "encoders.patches": "PatchEncoder",
        "encoders.stem": "StemEncoder",
        "encoders.boxes": "BoxTables BoxWaves",
        "encoders.vector": "VectorEncoder",
        "encoders.images": "Preparation",
    },
)
