"""What trains, as settings: the stage, LoRA, and name patterns. They stand apart from the code that needs torch, so that a
recipe is read and checked without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from vertebra.config import Bound, require_bounds

Stage = Literal[
    "words", "align", "finetune", "vla-train", "full-finetune", "vla-full-train", "last-layer-finetune",
    "vla-last-layer-train", "vla-sandwich-train", "last-blocks", "bitfit", "lora", "none",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """An adapter's shape. Defaults are OpenVLA's."""

    r: Annotated[int, Bound(least=1)] = 32
    alpha: float = 16
    dropout: Annotated[float, Bound(least=0, below=1)] = 0.0
    init: Literal["gaussian", "kaiming", "pissa", "olora", "orthogonal"] = "gaussian"
    targets: tuple[str, ...] = ()
    """Names of linears, or endings of names; empty: all linears of the language model, without its head."""
    layers: tuple[int, ...] = ()
    """Decoder layers that get adapters; empty: all."""
    rslora: bool = False
    dora: bool = False
    towers: bool = False
    """Put adapters on the encoders' linears too."""
    projector: bool = False
    """Put adapters on the projectors' linears too."""
    new_tokens: bool = True
    """Train the rows of tokens that were added (pads apart), in both matrices."""

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """What trains."""

    stage: Stage = "full-finetune"
    blocks: Annotated[int, Bound(least=1)] = 1
    """For `last-blocks`: how many of the last decoder layers train."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """For `lora`."""
    train: tuple[str, ...] = ()
    """Patterns over parameter names that train as well, as in `*.projector.*`."""
    freeze: tuple[str, ...] = ()
    """Patterns over parameter names that stay as they are, whatever the stage says."""
    only_new_rows: bool = False
    """Of embedding and head, train the rows of added tokens and no other, whatever the stage."""
    zero_gradient: tuple[str, ...] = ()
    """Patterns of tensors that may have a zero gradient at step 1, on top of those that must (`lora_A`)."""

    def __post_init__(self) -> None:
        require_bounds(self)
