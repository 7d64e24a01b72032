"""`ModelFacts`: what data needs to know of a model: its tokenizer, how it speaks, how far it reads, which slots it has.

They are found without any weights, or taken from a model that is there; either way the same samples are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.source import find
from vertebra.backbone.tiny import TINY_ENCODERS
from vertebra.data.encode.tokens import block_size
from vertebra.data.read.labels import Labels
from vertebra.errors import ConfigError
from vertebra.model.encoders.images import Preparation


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Of one model."""

    name: str
    tokenizer: Any
    context: int | None
    """Positions that a row may have; None: the model sets no limit."""
    is_encoder: bool = False
    backbone: Any = None
    """Of a language model, be it without weights."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Slots of each part."""
    anchored: tuple[str, ...] = ()
    """Parts whose slots stand right after BOS."""
    preparation: Preparation | None = None
    """How its images become pixels."""
    labels: Labels | None = None
    """The classes of a classifier."""

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def block(self, requested: int | None = None) -> int:
        """Positions in a row: the most that it reads, or fewer where requested."""
        return block_size(self.tokenizer, self.context, requested)

    @property
    def added(self) -> tuple[str, ...]:
        """The tokens that its vocabulary was grown by, pads apart."""
        growths = () if self.backbone is None else self.backbone.growths
        return tuple(token for growth in growths if not growth.is_pad for token in growth.tokens)

    @classmethod
    def of(cls, model: Any) -> ModelFacts:
        """Of a model that is there: a `Model`, or an encoder."""
        from vertebra.model.model import Model

        if not isinstance(model, Model):
            return cls(
                name=model.identifier,
                tokenizer=model.tokenizer,
                context=model.context,
                is_encoder=True,
                labels=model.labels,
            )
        return cls.of_backbone(model.identifier, model.backbone, dict(model.parts.items()))

    @classmethod
    def of_backbone(cls, name: str, backbone: Any, parts: Mapping[str, Any]) -> ModelFacts:
        """Of a language model and its parts; neither needs weights."""
        reads = getattr(backbone.llm.config, "max_position_embeddings", None)
        return cls(
            name=name,
            tokenizer=backbone.tokenizer,
            context=min(backbone.llm_max_length, reads or backbone.llm_max_length),
            backbone=backbone,
            sizes={part: made.slots for part, made in parts.items()},
            anchored=tuple(part for part, made in parts.items() if made.place == "anchored"),
            preparation=next(
                (one.encoder.preparation for part, one in parts.items() if part.split(":")[0] == "image"), None
            ),
        )

    @classmethod
    def find(
        cls, name: str, *, builder: str | None = None, token: str | None = None, tokens: Sequence[str] = ()
    ) -> ModelFacts:
        """Of a language model or an encoder, by id, folder or hub name; no weights are loaded. `tokens`: to be added."""
        if name in TINY_ENCODERS or _is_encoder(name, token):
            from vertebra.data.encode.masked_model import context_of, encoder_tokenizer

            if tokens:
                raise ConfigError(f"`{name}` is an encoder; tokens are added to language models alone")
            tokenizer, config = encoder_tokenizer(name, token=token)
            return cls(name=name, tokenizer=tokenizer, context=context_of(config), is_encoder=True)
        from vertebra.backbone.vocabulary import grow_to
        from vertebra.model.folder import recorded_parts

        backbone = load_backbone(name, inference_mode=True, builder=builder, hf_token=token)
        grow_to(backbone, tokens)
        return cls.of_backbone(name, backbone, recorded_parts(find(name)) if Path(name).is_dir() else {})


def _is_encoder(name: str, token: str | None) -> bool:
    """Whether a folder or hub name holds an encoder; ids of the table are all causal."""
    if "/" not in name and not Path(name).is_dir():
        return False
    architectures = find(name, token=token).config.get("architectures") or []
    return any(marks in one for one in architectures for marks in ("MaskedLM", "SequenceClassification", "PreTraining"))
