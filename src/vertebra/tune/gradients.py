"""The check at step 1: every tensor that should train has a gradient, finite and not zero.

A tensor without a gradient is the quietest fault of training: the loss falls all the same. Some gradients must be
zero at the start (`lora_A`, since `lora_B` starts at zero), and what an action head does not read has none where no words are
learned beside it; those are listed, and nothing else is let through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from vertebra.backbone.vocabulary import restricted_parameters
from vertebra.backbone.weights import some
from vertebra.errors import TrainingError
from vertebra.tune.parts import parts_of
from vertebra.tune.stages import matching

# Why: B starts at zero, so that A gets nothing; a key's bias adds the same to every score of a softmax; a first batch
# may hold none of the new tokens, and no item that says "no box".
ZERO_AT_START = ("*.lora_A.*", "*.k_proj.bias", "*.trainable_tokens_delta*", "*.encoder.none")

# What keys and values of a layer are made by, as the families call it.
_BEFORE_KEYS = (
    "k_proj",
    "v_proj",
    "k_norm",
    "qkv",
    "query_key_value",
    "c_attn",
    "input_layernorm",
    "attn_layer_norm",
    "ln_1",
)


@dataclass(frozen=True, kw_only=True)
class GradientCheck:
    """What the first step showed."""

    tensors: int
    missing: tuple[str, ...]
    """Trainable, but no gradient came."""
    not_finite: tuple[str, ...]
    zero: tuple[str, ...]
    allowed_zero: tuple[str, ...]
    """Zero, and on the list of those that may be."""
    allowed: tuple[str, ...] = ZERO_AT_START
    """That list, as patterns."""

    @property
    def good(self) -> bool:
        return not (self.missing or self.not_finite or self.zero)

    def __str__(self) -> str:
        if self.good:
            zero = f". Zero, as they may be: {', '.join(self._grouped())}" if self.allowed_zero else ""
            return f"step 1: all {self.tensors} trainable tensors have a finite gradient{zero}"
        lines = [
            f"  {what}: {some(names, 12)}"
            for what, names in (
                ("no gradient", self.missing),
                ("NaN or infinite", self.not_finite),
                ("zero", self.zero),
            )
            if names
        ]
        return (
            "step 1: some trainable tensors do not learn:\n" + "\n".join(lines) + "\nFreeze them (`freeze`), or name "
            "them in `zero_gradient` where a zero is right."
        )

    def _grouped(self) -> list[str]:
        """The zeros by the pattern that lets them through: a LoRA has hundreds of them."""
        left, found, alone = list(self.allowed_zero), [], []
        for pattern in self.allowed:
            these = matching(left, pattern)
            left = [name for name in left if name not in these]
            if len(these) > 1:
                found.append(f"{len(these)} × {pattern}")
            alone += these if len(these) == 1 else []
        few = alone if len(alone) <= 3 else [*alone[:2], f"{len(alone) - 2} more"]
        return [*found, *few]

    def require_good(self) -> None:
        if not self.good:
            raise TrainingError(str(self))


def check_gradients(model: nn.Module, allowed: Sequence[str] = ()) -> GradientCheck:
    """Look at every trainable tensor's gradient; on sharded tensors all ranks must call it."""
    missing: list[str] = []
    not_finite: list[str] = []
    zero: list[str] = []
    may: list[str] = []
    count = 0
    patterns = (*ZERO_AT_START, *allowed, *_new_rows_alone(model), *_unread(model))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        count += 1
        if parameter.grad is None:
            missing.append(name)
            continue
        size = _norm(parameter.grad)
        if size != size or size == float("inf"):
            not_finite.append(name)
        elif size == 0:
            (may if any(matching([name], pattern) for pattern in patterns) else zero).append(name)
    return GradientCheck(
        tensors=count,
        missing=tuple(missing),
        not_finite=tuple(not_finite),
        zero=tuple(zero),
        allowed_zero=tuple(may),
        allowed=patterns,
    )


def _new_rows_alone(model: nn.Module) -> list[str]:
    """Tables of which only new tokens' rows train: the first batch may hold none of them."""
    backbone = parts_of(model).backbone
    tables = {id(p) for p in restricted_parameters(backbone)} if backbone is not None else set()
    return [name for name, parameter in model.named_parameters() if id(parameter) in tables]


def _norm(gradient: Any) -> float:
    """The largest entry: unlike a norm it neither overflows nor vanishes in 16 bits. NaN stays NaN."""
    largest = gradient.detach().abs().amax()
    return float(largest.full_tensor() if hasattr(largest, "full_tensor") else largest)


def _unread(model: nn.Module) -> list[str]:
    """What stands behind all that action heads read: the output matrix, and the last layer's tensors behind its keys."""
    parts = parts_of(model)
    if not parts.answering or parts.backbone is None:
        return []
    unread = {id(p) for p in parts.lm.get_output_embeddings().parameters()}
    if all(head.reads == "keys" for head in parts.answering.values()):
        last = parts.layers[-1].named_modules()
        behind = [one for name, one in last if not any(part in name for part in _BEFORE_KEYS)]
        behind += [parts.backbone.final_norm] if parts.backbone.final_norm is not None else []
        unread |= {id(p) for module in behind for p in module.parameters(recurse=False)}
    return [name for name, parameter in model.named_parameters() if id(parameter) in unread]
