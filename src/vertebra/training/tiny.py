"""Any recipe in small: the same stages on a tiny backbone, four steps of them, so that all of it can be tried in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vertebra.training.config import ImageConfig, RunConfig


def tiny_config(config: RunConfig, folder: Path | None = None) -> RunConfig:
    """The same run on a tiny backbone: every stage of it, in seconds, on a CPU."""
    model = replace(config.model, backbone=config.model.tiny, overrides={}, start=None, dtype="float32", attn=None)
    model = replace(model, quantization=None, max_length=min(model.max_length, 256))
    if config.model.start is not None and model.image is None and config.task.sees(config.data):
        # what is kept of a tower, only a pretrained one makes
        model = replace(model, image=ImageConfig(encoder="vision" if config.cache.tower else "patches"))
    if model.image is not None and model.image.encoder == "vision":
        from vertebra.model.encoders.vision.tiny import tiny_vision_checkpoint

        # unpooled: of its four patches a pool leaves one slot, behind which there is no other
        model = replace(model, image=ImageConfig(encoder="vision", name=str(tiny_vision_checkpoint("tiny-dinov2"))))
    data = config.task.tiny(config.data)
    small: dict[str, Any] = {"block": min(data.block or 128, 128), "count": min(data.count, 32)}
    if config.task.packs(data) and data.too_long == "error":
        small["too_long"] = "drop"
    own = {name: value for name, value in small.items() if name in config.task.settings}
    data = replace(data, workers=0, limit=min(data.limit or 64, 64), **own)
    optim = replace(config.optim, batch=min(config.optim.batch, 2), accumulate=min(config.optim.accumulate, 2))
    lora = replace(config.tune.lora, r=min(config.tune.lora.r, 4))
    return replace(
        config,
        name=f"{config.name}-tiny",
        model=model,
        data=data,
        optim=replace(optim, precision="fp32"),
        tune=replace(config.tune, lora=lora, blocks=1),
        eval=replace(config.eval, every=2 if config.eval.every else 0, batches=2),
        save=replace(config.save, every=2),
        watch=replace(config.watch, every=1, report_to="none", samples=config.watch.samples[:1], sample_tokens=8),
        steps=4,
        epochs=None,
        out=str(folder) if folder else config.out and f"{config.out}-tiny",
    )
