"""The parts of a model that can be trained apart: language model, encoders ("vision"), projectors, heads.

A backbone alone has one part; a `Model` has an encoder and a projector for each kind of outside embedding, heads for
actions, and learned queries, which count as heads. An encoder that comes without knowledge (boxes, patches) is kept apart from
those that are pretrained: it trains wherever its projector does. Any other module is a language model of its own, or holds
one as `lm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from vertebra.backbone.interface import LLMBackbone
from vertebra.errors import ConfigError
from vertebra.model.model import Model


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A model, taken apart; parts by their names in the model."""

    model: nn.Module
    backbone: Any | None
    """The backbone with its tokenizer; None for a module that is none of ours."""
    lm: Any
    """The Hugging Face model itself, head included."""
    outside: Mapping[str, Any] = field(default_factory=dict)
    """What fills slots, by segment; nothing for a language model alone."""
    answering: Mapping[str, Any] = field(default_factory=dict)
    """Heads for actions, by segment."""
    record: dict[str, Any] = field(default_factory=dict)
    """What else belongs to the model, as plain data."""
    prefix: str = ""
    """What the names of the backbone's tensors begin with in the model."""
    vision: dict[str, nn.Module] = field(default_factory=dict)
    """Pretrained encoders."""
    scratch: dict[str, nn.Module] = field(default_factory=dict)
    """Encoders that are made from scratch, and would stay random if no stage but the full one trained them."""
    projector: dict[str, nn.Module] = field(default_factory=dict)
    heads: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, first to last."""
        if self.backbone is not None:
            return self.backbone.layers
        lists = [m for m in self.lm.modules() if isinstance(m, nn.ModuleList) and len({type(x) for x in m}) == 1]
        if not lists:
            raise ConfigError(f"{type(self.lm).__name__} has no list of layers; name what trains by patterns")
        return max(lists, key=lambda found: sum(p.numel() for p in found.parameters()))

    @property
    def last_layer(self) -> list[nn.Module]:
        """What last-layer fine-tuning trains: embedding, last layer and head."""
        if self.backbone is not None:
            return [module for module in self.backbone.last_layer_finetune_modules if module is not None]
        lm = self.lm
        return [m for m in (lm.get_input_embeddings(), self.layers[-1], lm.get_output_embeddings()) if m is not None]

    def module(self, name: str) -> nn.Module | None:
        """An encoder, projector or head by its name in the model."""
        return (self.encoders | self.projector | self.heads).get(name)

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """Encoders of both kinds."""
        return self.vision | self.scratch

    @property
    def untrained(self) -> list[str]:
        """Projectors that are bit for bit as they were drawn: nothing has trained them yet."""
        return [name for name in self.projector if self.outside[name.split(".")[1]].untrained]


def parts_of(model: Any) -> Parts:
    """The parts of a `Model`, of a backbone, or of any other module."""
    if isinstance(model, LLMBackbone):
        return Parts(model=model, backbone=model, lm=model.llm)
    if not isinstance(model, Model):
        return Parts(model=model, backbone=None, lm=getattr(model, "lm", model))
    found = Parts(
        model=model,
        backbone=model.backbone,
        lm=model.lm,
        outside=dict(model.parts.items()),
        answering=dict(model.heads.items()),
        record=model.record,
        prefix="backbone.",
    )
    for name, part in found.outside.items():
        if isinstance(getattr(part, "encoder", None), nn.Module):
            kind = found.vision if getattr(part.encoder, "pretrained", True) else found.scratch
            _keep(kind, f"parts.{name}.encoder", part.encoder)
            _keep(found.projector, f"parts.{name}.projector", part.projector)
        elif getattr(part, "learned", True):  # queries may be fixed
            _keep(found.heads, f"parts.{name}", part)
    for name, head in found.answering.items():
        _keep(found.heads, f"heads.{name}", head)
    return found


def _keep(kind: dict[str, nn.Module], name: str, module: nn.Module) -> None:
    if any(True for _ in module.parameters()):
        kind[name] = module
