"""A small set of episodes, and runs that learn it, for tests of policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.episodes.made import write_set
from tests.training.models import config

SENTENCES = ("push the cube", "pull it")
LENGTHS = (7, 1, 12, 9)
OPTIONS: dict[str, Any] = {
    "l1": {"hidden": 16, "one_slot": True}, "flow": {"width": 16}, "tokens": {"bins": 8}, "parallel": {"bins": 8}
}  # fmt: skip


def small_set(folder: Path, lengths: Any = LENGTHS, **more: Any) -> Path:
    write_set(folder, lengths, sentences=SENTENCES, codec="image", **more)
    return folder


def episodes(
    path: Path | str | None, head: str = "l1", *, options: Any = None, data: Any = None, **changes: Any
) -> Any:
    """A small run on a set, in chunks of three."""
    tree: dict[str, Any] = {
        "model__image": {
            "encoder": "stem", "width": 16, "image_size": 16, "grid": 2, "points": 4, "channels": 8, "each": True,
            "projector": "linear",
        },
        "data": {
            "kind": "episodes", **({"path": str(path)} if path else {}), "head": head, "chunk": 3, "held_out": 0.25,
            "batching": "shuffled", "options": {**OPTIONS[head], **(options or {})}, **(data or {}),
        },
        "tune__stage": "vla-full-train", "tune__freeze": ["*lm_head.weight", "parts.action.*"],
        "steps": 6, "save__every": 3, "eval__every": 3, "watch__every": 1, "optim__batch": 4,
    }  # fmt: skip
    if head in ("tokens", "parallel"):
        tree["tune__freeze"] = []
    if head == "flow":  # it reads keys: nothing behind those of the last layer learns
        tree["tune__zero_gradient"] = ["*"]
    return config(**tree | changes)
