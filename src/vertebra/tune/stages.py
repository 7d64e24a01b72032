"""What trains: OpenVLA's stages for every family, last blocks, biases alone, LoRA, and name patterns on top.

    stage                                     vision   projector   language model          heads
    words (no language model runs)            ·        trains      ·                       ·
    align                                     ·        trains      ·                       ·
    finetune, vla-train                       ·        trains      trains                  train
    full-finetune, vla-full-train             trains   trains      trains                  train
    last-layer-finetune, vla-last-layer-train ·        ·           embedding, last, head   train
    vla-sandwich-train                        trains   trains      embedding, last, head   train
    last-blocks (blocks=n)                    ·        ·           last n layers           train
    bitfit                                    ·        ·           biases                  train
    lora                                      ·        ·           adapters                train
    none                                      ·        ·           ·                       ·

An encoder that is made from scratch (boxes, patches) is random at first, and trains wherever its projector does. `train`
and `freeze` are patterns over parameter names, applied after the stage. It does not know optimizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vertebra import log
from vertebra.backbone.vocabulary import new_row_ids, train_only_new_rows
from vertebra.errors import ConfigError, UnknownNameError, did_you_mean
from vertebra.tune.lora import Adapter, add_lora
from vertebra.tune.parts import Parts, parts_of
from vertebra.tune.settings import Stage, TuneConfig

# stage -> parts: whole ones, or the named pieces of the language model
STAGES: dict[Stage, tuple[str, ...]] = {
    "words": ("projector",),
    "align": ("projector",),
    "finetune": ("projector", "lm", "heads"),
    "vla-train": ("projector", "lm", "heads"),
    "full-finetune": ("vision", "projector", "lm", "heads"),
    "vla-full-train": ("vision", "projector", "lm", "heads"),
    "last-layer-finetune": ("last layer", "heads"),
    "vla-last-layer-train": ("last layer", "heads"),
    "vla-sandwich-train": ("vision", "projector", "last layer", "heads"),
    "last-blocks": ("last blocks", "heads"),
    "bitfit": ("biases", "heads"),
    "lora": ("heads",),
    "none": (),
}
"""What each stage trains, by the pieces of a model; `none` trains nothing."""


_OF_PEFT = (".lora_", "lora_magnitude_vector", "trainable_tokens_delta", ".modules_to_save.")

# stages that go on where `align` ended
ALIGNED_FIRST = ("finetune", "vla-train")


def choose(model: Any, config: TuneConfig, *, seed: int = 0) -> Adapter | None:
    """Set `requires_grad` everywhere; for `lora`, put the adapter in and return it."""
    if config.stage not in STAGES:
        raise UnknownNameError("stage", config.stage, STAGES)
    parts = parts_of(model)
    adapter = add_lora(model, config.lora, seed=seed) if config.stage == "lora" else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(adapter is not None and is_adapter(name))
    for name in STAGES[config.stage]:
        _set(_chosen(parts, name, config))
    if config.stage in ("words", "align", "vla-sandwich-train") and not parts.projector:
        what = "vision encoder or projector" if config.stage == "vla-sandwich-train" else "projector"
        raise ConfigError(
            f"stage `{config.stage}` trains the projector, and this model has no {what}. Stages for a language model "
            "alone: full-finetune, last-layer-finetune, last-blocks, bitfit, lora"
        )
    _by_pattern(model, config.train, True)
    _by_pattern(model, config.freeze, False)
    if config.only_new_rows:
        _restrict(parts, config)
    _warn_of_random(parts, config.stage)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"stage `{config.stage}` with freeze={list(config.freeze)} leaves nothing to train")
    return adapter


def _restrict(parts: Parts, config: TuneConfig) -> None:
    if config.stage == "lora":
        raise ConfigError(
            "only_new_rows: stage `lora` trains just the rows of added tokens by itself (lora.new_tokens)"
        )
    if parts.backbone is None or not new_row_ids(parts.backbone):
        raise ConfigError("only_new_rows: no token was added, so that no row is new; name some in model.tokens")
    train_only_new_rows(parts.backbone)


def _warn_of_random(parts: Parts, stage: str) -> None:
    """Say what would stay noise, and which stage was skipped."""
    random = parts.untrained
    frozen = [name for name in random if not any(p.requires_grad for p in parts.projector[name].parameters())]
    if frozen and stage != "none":
        log.warn(
            f"stage `{stage}` leaves {', '.join(frozen)} as it was drawn at random: the language model will look through "
            "noise. Train stage `align` or `finetune` first and start from its folder, or name it in `train`"
        )
    elif random and stage in ALIGNED_FIRST:
        log.warn(
            f"stage `{stage}` starts from an aligned projector, and {', '.join(random)} is random: its first gradients "
            "will disturb the language model. Train stage `align` first, and start from its folder (model.start)"
        )


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter, by PEFT's names."""
    return any(mark in name for mark in _OF_PEFT)


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a pattern means: `*` and `?`, or a dotted beginning (`parts.image` means all below it)."""
    return [name for name in names if fnmatchcase(name, pattern) or name.startswith(pattern + ".")]


def _set(parameters: Sequence[nn.Parameter]) -> None:
    packed = [p for p in parameters if not (p.is_floating_point() or p.is_complex())]
    if packed:
        raise ConfigError(
            f"{len(packed)} of the chosen tensors are quantized and take no gradient; train adapters on them "
            "(stage `lora`), or load the model without quantization"
        )
    for parameter in parameters:
        parameter.requires_grad_(True)


def _chosen(parts: Parts, name: str, config: TuneConfig) -> list[nn.Parameter]:
    if name == "last layer":
        return [p for module in parts.last_layer for p in module.parameters()]
    if name == "last blocks":
        layers = parts.layers
        if config.blocks > len(layers):
            raise ConfigError(f"blocks is {config.blocks}; the model has {len(layers)} layers")
        return [p for layer in list(layers)[-config.blocks :] for p in layer.parameters()]
    if name == "biases":
        biases = [p for n, p in parts.lm.named_parameters() if n.rpartition(".")[2] == "bias"]
        if not biases:
            raise ConfigError(
                f"{type(parts.lm).__name__} has no bias at all, so that `bitfit` trains nothing. GPT-2, OPT, Phi-2 and "
                "Pythia have; for this family take stage `lora`, or patterns: train=['*norm*']"
            )
        return biases
    if name == "lm":
        return list(parts.lm.parameters())
    # what stands before a projector without having learned anything has to learn with it
    kinds = {"vision": parts.vision, "projector": parts.scratch | parts.projector, "heads": parts.heads}
    return [p for module in kinds[name].values() for p in module.parameters()]


def _by_pattern(model: nn.Module, patterns: Sequence[str], trains: bool) -> None:
    named = dict(model.named_parameters())
    for pattern in patterns:
        found = matching(named, pattern)
        if not found:
            pieces = {".".join(n.split(".")[:k]) for n in named for k in range(1, n.count(".") + 2)}
            raise ConfigError(f"pattern `{pattern}` fits no parameter.{did_you_mean(pattern.rstrip('.*'), pieces)}")
        if trains:
            _set([named[name] for name in found])
        else:
            for name in found:
                named[name].requires_grad_(False)
