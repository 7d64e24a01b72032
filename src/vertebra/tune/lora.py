"""LoRA on PEFT: which linears it goes to, how new token rows train beside it, and the adapter as an object.

The language model gets one adapter, rooted at the Hugging Face model itself, so that PEFT alone can load what is
saved; encoders and projectors get adapters of their own where they are chosen. PEFT changes the modules in place: the
backbone, its names and its forward stay what they were.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vertebra.backbone.vocabulary import new_row_ids
from vertebra.errors import ConfigError, MissingPartError
from vertebra.tune.fingerprint import BasePrint, base_print
from vertebra.tune.parts import parts_of
from vertebra.tune.settings import LoraConfig

LANGUAGE = "lm"


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """The adapters of a model: one PEFT model a root (`lm`, and encoders or projectors by name where chosen)."""

    roots: dict[str, Any]
    base: BasePrint
    """What the base was before the adapter came."""
    trained: tuple[str, ...] = ()
    """Of a loaded one: what trained in full beside it, though it may be frozen now."""
    about: dict[str, Any] = field(default_factory=dict)
    """What the folder of a loaded one says beside (statistics)."""

    @property
    def language(self) -> Any:
        return self.roots[LANGUAGE]


def add_lora(model: Any, settings: LoraConfig, *, seed: int = 0) -> Adapter:
    """Put adapters into a model, in place. Its start is a function of `seed` alone."""
    peft = require_peft()
    from vertebra.tune.biased import add_bias

    parts = parts_of(model)
    if has_adapter(model):
        raise ConfigError("the model has an adapter already; merge it first, or load the base anew")
    base = base_print(parts)
    roots: dict[str, Any] = {}
    targets: dict[str, nn.Module] = {LANGUAGE: parts.lm}
    towers = {name: encoder for name, encoder in parts.encoders.items() if linears(encoder)}  # tables have none
    for setting, kind, found in (("towers", "encoder", towers), ("projector", "projector", parts.projector)):
        if getattr(settings, setting):
            if not found:
                raise ConfigError(f"lora.{setting}: the model has no {kind} with linears")
            targets |= found
    for name, root in targets.items():
        config = _peft_config(peft, parts, root, settings, language=name == LANGUAGE)
        with peft_quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            roots[name] = peft.get_peft_model(root, config)
    add_bias(roots[LANGUAGE])
    return Adapter(roots=roots, base=base)


def require_peft() -> Any:
    try:
        import peft
    except ImportError:
        raise MissingPartError("LoRA", "peft", "train") from None
    return peft


@contextmanager
def peft_quiet() -> Iterator[None]:
    """PEFT asks transformers 5.23 for a member by its old name, which warns at every model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def has_adapter(model: nn.Module) -> bool:
    return any(".lora_" in name or "trainable_tokens_delta" in name for name, _ in model.named_parameters())


def linears(root: nn.Module) -> list[str]:
    """Every linear of a module, but for the head of a language model (quantized ones are linears too)."""
    head = getattr(root, "get_output_embeddings", lambda: None)()
    return [
        name
        for name, module in root.named_modules()
        if module is not head and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]


def _peft_config(peft: Any, parts: Any, root: Any, settings: LoraConfig, *, language: bool) -> Any:
    targets = _targets(root, settings if language else LoraConfig(), parts)
    if targets == [""]:
        raise ConfigError(f"an adapter cannot sit on a bare {type(root).__name__}; train that part in full (`train`)")
    conv = any(type(root.get_submodule(name)).__name__ == "Conv1D" for name in targets)
    options: dict[str, Any] = {}
    if language:
        options["task_type"] = "CAUSAL_LM" if parts.backbone is not None else None
        rows = new_row_ids(parts.backbone) if settings.new_tokens and parts.backbone is not None else []
        if rows:
            options["trainable_token_indices"] = dict.fromkeys(_row_modules(root), rows)
    return peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        init_lora_weights=True if settings.init == "kaiming" else settings.init,
        target_modules=_shortened(root, targets),
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        fan_in_fan_out=conv,
        **options,
    )


def _targets(root: nn.Module, settings: LoraConfig, parts: Any) -> list[str]:
    found = linears(root)
    if settings.targets:
        missing = [t for t in settings.targets if not any(n == t or n.endswith("." + t) for n in found)]
        if missing:
            leaves = sorted({name.rpartition(".")[2] for name in found})
            raise ConfigError(f"lora.targets: no linear is called {', '.join(missing)}. Linears: {', '.join(leaves)}")
        found = [n for n in found if any(n == t or n.endswith("." + t) for t in settings.targets)]
    if settings.layers:
        layers = parts.layers
        outside = [i for i in settings.layers if not 0 <= i < len(layers)]
        if outside:
            raise ConfigError(f"lora.layers: {outside} of a model with layers 0 to {len(layers) - 1}")
        inside = {id(module) for i in settings.layers for module in layers[i].modules()}
        found = [name for name in found if id(root.get_submodule(name)) in inside]
    if not found:
        raise ConfigError(f"{type(root).__name__} has no linear to put an adapter on")
    return found


def _shortened(root: nn.Module, targets: list[str]) -> list[str]:
    """The endings alone where they mean the same modules: an adapter config of seven names, not of two hundred."""
    leaves = {name.rpartition(".")[2] for name in targets}
    meant = [name for name, _ in root.named_modules() if name in leaves or name.rpartition(".")[2] in leaves]
    return sorted(leaves) if set(meant) == set(targets) else targets


def _row_modules(lm: Any) -> list[str]:
    """The names of the tables with a row a token: the embedding, and the head where it is a tensor of its own."""
    embedding, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    names = {id(module): name for name, module in lm.named_modules()}
    tables = [names[id(embedding)]]
    if head is not None and head.weight is not embedding.weight:
        tables.append(names[id(head)])
    return [name.rpartition(".")[2] for name in tables]
