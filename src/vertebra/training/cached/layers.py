"""Frozen lower layers, once a sample: what enters the first layer that trains is kept, and a step runs from there on.

    whole    ids ──► embedding ──► layers 0 … n-1 (frozen) ──► layers n … ──► head
    cached                         hidden [L, D] on disk ────► layers n … ──► head

The hidden states enter as every outside embedding does: each position of a sample is a slot of the segment `lower`,
so that packing, padding and masks need to know nothing of it. That a model's upper layers alone give what the whole
gives is shown on the run's first samples, and never assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from vertebra.data.loaders.collate import Collator
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.errors import ConfigError
from vertebra.model.encoders.part import ItemFault
from vertebra.model.model import Model
from vertebra.sequence.tokens import VECTORS
from vertebra.training.cached.store import VectorRows, rows_of, weights_of

SEGMENT = "lower"
AT_ONCE = 8
"""Samples of one pass through the lower layers."""
SHOWN = 4
"""Samples on which the upper layers alone are held against the whole model."""

_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 3e-2}
"""Of the largest logit."""

Autocast = Callable[[], AbstractContextManager[Any]]


class LowerSamples(Samples):
    """Samples whose every position is a slot, which the kept hidden state fills."""

    def __init__(self, samples: Samples, rows: VectorRows) -> None:
        self.samples, self.rows = samples, rows
        self.lengths, self.mixes = samples.lengths, samples.mixes

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        sequence = self.samples.sequence(index, epoch)
        slots = np.stack([np.zeros(len(sequence), np.int32), np.arange(len(sequence), dtype=np.int32)], 1)
        sequence = replace(sequence, slot=slots, segments=(SEGMENT,))
        return {name: getattr(sequence, name) for name in VECTORS} | {"segments": sequence.segments}

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        return {**self.samples.extra(index, epoch), SEGMENT: self.rows[index]}

    def order(self, epoch: int, seed: int, *, shuffle: bool = True) -> np.ndarray:
        return self.samples.order(epoch, seed, shuffle=shuffle)

    def where(self, index: int) -> str:
        return self.samples.where(index)

    def fingerprint(self) -> str:
        return self.samples.fingerprint()  # a run may be resumed with its layers cached, or without


def lower_features(extra: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The kept hidden states of a sample, for a collator."""
    return {SEGMENT: extra[SEGMENT]}


class UpperLayers:
    """The layers of a model from the first that trains, as a model of its own: the same modules, nothing copied."""

    def __init__(self, model: Any) -> None:
        self.backbone = model.backbone
        self.first = first_trained(model)
        if self.backbone.embed_dim != self.backbone.embedding_width:
            raise ConfigError(
                f"cache.layers: `{model.identifier}` widens its embeddings in front of its layers, where hidden states "
                "cannot enter. Leave cache.layers out"
            )
        self.model = Model(self.backbone, {SEGMENT: GivenEmbeddings(self.backbone.embedding_width)})  # type: ignore[dict-item]
        path, _, self._name = self.backbone.family.layers.rpartition(".")
        self._parent = self.backbone.llm.get_submodule(path)
        self._config = getattr(self._parent, "config", self.backbone.llm.config)

    def __call__(self, **inputs: Any) -> Any:
        """`Model.forward` of a batch of `LowerSamples`."""
        with self._alone():
            return self.model(**inputs)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While it lasts the body has no other layers: bodies walk their list, and look each layer's kind up by place."""
        whole, config = getattr(self._parent, self._name), self._config
        kinds, count = getattr(config, "layer_types", None), config.num_hidden_layers
        setattr(self._parent, self._name, nn.ModuleList(list(whole)[self.first :]))
        config.num_hidden_layers = count - self.first
        if kinds:
            config.layer_types = kinds[self.first :]
        try:
            yield
        finally:
            setattr(self._parent, self._name, whole)
            config.num_hidden_layers = count
            if kinds:
                config.layer_types = kinds


class GivenEmbeddings(nn.Module):
    """A part whose embeddings come with the batch: [M, D] -> [M, 1, D]."""

    slots, place, added = 1, "slots", False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def faults(self, values: torch.Tensor) -> list[ItemFault]:
        return []

    def forward(self, values: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        return values.unsqueeze(1)


def first_trained(model: Any) -> int:
    """The first decoder layer with anything that trains; all that lies before it must be frozen."""
    layers = model.backbone.layers
    inside = {id(parameter) for parameter in layers.parameters()}
    behind = {id(p) for module in (model.backbone.final_norm, _own_head(model)) if module for p in module.parameters()}
    before = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in inside | behind
    ]
    if before:
        raise ConfigError(
            f"cache.layers: {before[0]}{f' and {len(before) - 1} more' if before[1:] else ''} trains and lies before the "
            "decoder layers, so that what leaves them changes with every step. Freeze it, or leave cache.layers out"
        )
    trained = [n for n, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())]
    first = trained[0] if trained else len(layers)
    if not 0 < first < len(layers):
        which = "the first layer trains" if not first else "no decoder layer trains"
        advice = (
            f"train the last ones alone, as in tune.lora.layers={list(range(len(layers)))[-2:]} or stage `last-blocks`"
        )
        raise ConfigError(f"cache.layers: {which}; {advice}")
    _require_no_dropout(model, layers[:first])
    return first


def _own_head(model: Any) -> nn.Module | None:
    """The head, where its matrix is its own: a tied one is the embedding, and lies before the layers too."""
    head, table = model.backbone.llm.get_output_embeddings(), model.backbone.llm.get_input_embeddings()
    return None if head is None or head.weight is table.weight else head


def _require_no_dropout(model: Any, lower: nn.ModuleList) -> None:
    outside = [module for name, module in model.backbone.llm.named_modules() if "embd" in name or "drop" in name]
    for module in (*lower.modules(), *outside):
        shares = [module.p] if isinstance(module, nn.Dropout) else [getattr(module, "attention_dropout", 0.0)]
        if any(isinstance(share, float) and share > 0 for share in shares):
            raise ConfigError(
                "cache.layers: the frozen layers drop values at random while training, which a cache would not. Set the "
                "model's dropout to 0 (model.overrides), or leave cache.layers out"
            )


def cached_layers(
    model: Any, upper: UpperLayers, samples: Samples, collate: Collator, autocast: Autocast, *, precision: str
) -> LowerSamples:
    """Samples with what enters the first trained layer, computed for each alone."""
    prints = [samples.sequence(i).ids.tobytes() for i in range(0, len(samples), max(1, len(samples) // 64))]
    frozen = [upper.backbone.layers[: upper.first], upper.backbone.llm.get_input_embeddings(), *model.parts.values()]
    key = digest("layers", upper.first, model.identifier, weights_of(*frozen), samples.fingerprint(), prints, precision)
    order = np.argsort(samples.lengths, kind="stable")  # equal lengths together: little padding

    def compute() -> Iterator[tuple[Sequence[int], Sequence[np.ndarray]]]:
        for start in range(0, len(order), AT_ONCE):
            numbers = order[start : start + AT_ONCE].tolist()
            hidden, mask = _entering(model, upper, _batch(samples, numbers, collate).to(model.device), autocast)
            yield numbers, [row[own].cpu().numpy() for row, own in zip(hidden, mask, strict=True)]

    width = upper.backbone.embed_dim
    made = LowerSamples(samples, rows_of(f"layers-{key}", samples.lengths.tolist(), width, compute, what="samples"))
    _require_equal(model, upper, samples, made, collate, autocast, precision=precision)
    return made


def _batch(samples: Samples, numbers: Sequence[int], collate: Collator) -> Any:
    return collate([[samples.vectors(n)] for n in numbers], [[samples.extra(n)] for n in numbers])


class _Entered(Exception):
    """Carries what enters the first trained layer out of the forward pass, which need not go on."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden = hidden


@torch.no_grad()
def _entering(model: Any, upper: UpperLayers, batch: Any, autocast: Autocast) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, L, D] hidden states in front of the first trained layer, and which of them are real."""

    def stop(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _Entered(given[0] if given else named["hidden_states"])

    hook = upper.backbone.layers[upper.first].register_forward_pre_hook(stop, with_kwargs=True)
    was = model.training
    model.eval()
    try:
        with autocast():
            model(**batch, return_loss=False, logits_to_keep=1)
    except _Entered as entered:
        return entered.hidden.float(), batch["attention_mask"].bool()
    finally:
        hook.remove()
        model.train(was)
    raise AssertionError("the layer is a decoder layer, and was run")


@torch.no_grad()
def _require_equal(
    model: Any,
    upper: UpperLayers,
    samples: Samples,
    lower: LowerSamples,
    collate: Collator,
    autocast: Autocast,
    *,
    precision: str,
) -> None:
    """The upper layers alone give the whole model's logits, or the cache is refused."""
    numbers = range(min(SHOWN, len(samples)))
    whole = _batch(samples, numbers, collate).to(model.device)
    short = _batch(lower, numbers, collate.with_features(lower_features)).to(model.device)
    was = model.training
    model.eval()
    with autocast():
        expected = model(**whole, return_loss=False).logits.float()
        found = upper(**short, return_loss=False).logits.float()
    model.train(was)
    real = whole["attention_mask"].bool()
    gap = float((found - expected)[real].abs().max() / expected[real].abs().max())
    if not gap < _TOLERANCE[precision]:
        raise ConfigError(
            f"cache.layers: the last {len(upper.backbone.layers) - upper.first} layers of "
            f"`{model.identifier}` alone give other logits than the whole model ({gap:.1e} of the largest): it does more "
            "in front of its layers than a cache of hidden states can stand in for. Leave cache.layers out"
        )
