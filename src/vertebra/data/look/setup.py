"""From a path and a model to samples ready for batches: what the `data` commands and short runs share.

The objective follows from the format and the model (`auto`): text is cut into blocks, conversations are rendered by
the model's own prompt builder, an encoder masks words or reads pairs. Weights are not loaded for any of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.source import find
from vertebra.backbone.tiny import TINY_ENCODERS
from vertebra.data.encode.added import grow_to
from vertebra.data.encode.chat import ChatEncoder
from vertebra.data.encode.encoders import Encoder, TextEncoder, WordEncoder
from vertebra.data.encode.pairs import PairEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.encode.tokens import block_size
from vertebra.data.read.corpus import Kind, python_corpus
from vertebra.data.read.formats import Reader
from vertebra.data.read.labels import Labels
from vertebra.data.read.open import open_source
from vertebra.data.read.rows import OnBad, Source
from vertebra.data.samples.causal import Blocks, TooLong, fitted
from vertebra.data.samples.samples import Samples
from vertebra.data.samples.table import Table
from vertebra.errors import ConfigError, UnknownNameError

Objective = Literal["auto", "causal", "rows", "chat", "masked", "pairs"]
OBJECTIVES: tuple[Objective, ...] = ("auto", "causal", "rows", "chat", "masked", "pairs")

CORPUS: dict[str, Kind] = {"stdlib": "source", "stdlib:docstrings": "docstring"}
"""Names of the corpus that every Python has."""

CORPUS_SIZE = 1.0
"""Megabytes of it that are taken: enough to look at, and read in seconds."""

IMAGE_SLOTS = 16
"""Slots of an image where no model says how many it takes."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What data needs to know of a model: a tokenizer, how it speaks, how far it reads."""

    name: str
    tokenizer: Any
    pad_id: int
    context: int | None
    is_encoder: bool
    backbone: Any = None
    """The structure without weights, of a causal model."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Slots of each part, where the model folder says so."""
    anchored: tuple[str, ...] = ()
    """Parts whose slots stand right after BOS, where the model folder says so."""

    @property
    def added(self) -> tuple[str, ...]:
        """The tokens that its vocabulary was grown by, pads apart."""
        growths = () if self.backbone is None else self.backbone.growths
        return tuple(token for growth in growths if not growth.is_pad for token in growth.tokens)

    @classmethod
    def find(
        cls, name: str, *, builder: str | None = None, token: str | None = None, tokens: Sequence[str] = ()
    ) -> Model:
        """A causal model, or an encoder, by id, folder or hub name; no weights are loaded. `tokens`: to be added."""
        if name in TINY_ENCODERS or _is_encoder(name, token):
            if tokens:
                raise ConfigError(f"`{name}` is an encoder; tokens are added to language models alone")
            from vertebra.data.encode.masked_model import encoder_tokenizer

            tokenizer, config = encoder_tokenizer(name, token=token)
            pad = tokenizer.pad_token_id or 0
            return cls(
                name=name, tokenizer=tokenizer, pad_id=pad, context=config.max_position_embeddings, is_encoder=True
            )
        backbone = load_backbone(name, inference_mode=True, builder=builder, hf_token=token)
        grow_to(backbone, tokens)
        parts = (find(name).record.get("parts") or {}) if Path(name).is_dir() else {}
        return cls(
            name=name,
            tokenizer=backbone.tokenizer,
            pad_id=backbone.pad_token_id,
            context=getattr(backbone.llm.config, "max_position_embeddings", None),
            is_encoder=False,
            backbone=backbone,
            sizes={part: int(entry["slots"]) for part, entry in parts.items() if entry.get("slots")},
            anchored=tuple(part for part, entry in parts.items() if entry.get("place") == "anchored"),
        )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Data and model, put together."""

    source: Source
    reader: Reader
    model: Model
    objective: str
    encoder: Encoder
    table: Table
    """Every row, encoded: a conversation, a text, a pair."""
    samples: Samples
    """What a batch is made of: the rows, or blocks of them, masked or not."""
    limit: int
    """The most positions that the model reads."""
    labels: Labels | None = None

    @property
    def shift(self) -> bool:
        """Whether the loss shifts."""
        return not self.model.is_encoder


def set_up(
    data: Any,
    model: Model,
    *,
    objective: Objective = "auto",
    size: int | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: str | Path | None = None,
    image_slots: int | None = None,
    system: str | None = None,
    fold_system: bool = False,
    trusted: Collection[str] = (),
    labels: Sequence[str] = (),
    too_long: TooLong | None = None,
    on_bad: OnBad = "fail",
    cache: bool | str | Path = False,
    num_proc: int = 1,
    **opening: Any,
) -> Setup:
    """Read `data` for `model`.

    size: positions of a block, or of the longest sample; the model's own limit where not given. too_long: what becomes
    of longer samples (see `causal.fitted`); None leaves them as they are, for looking at them. system, fold_system,
    trusted: of conversations, see `chat.speaker` and `ChatEncoder`. labels: the classes of pairs, in order; as the data
    names them, or as most of its rows spell them, where not given.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    corpus = CORPUS.get(data) if isinstance(data, str) else None
    source = open_source(data, **opening) if corpus is None else python_corpus(corpus, megabytes=CORPUS_SIZE)
    reader = Reader(format, columns=columns, images=images)
    reader.settle(source)
    chosen = _chosen(objective, reader.name, model)
    limit = block_size(model.tokenizer, model.context, size)
    classes = Labels.of(source, Reader("pairs", columns=columns), declared=labels) if reader.name == "pairs" else None
    if labels and classes is None:
        raise ConfigError(f"labels are of pairs; this data is `{reader.name}`")
    if chosen == "chat":
        spoken = {"system": system, "fold_system": fold_system, "trusted": trusted}
        encoder: Encoder = _chat_encoder(model, classes, image_slots, **spoken)
    elif system is not None or fold_system or trusted:
        raise ConfigError(f"`{chosen}` has no speakers: a system prompt and trusted roles are of conversations")
    else:
        encoder = _encoder(chosen, model, limit, classes)
    table = prepare(
        source,
        encoder,
        format=format or (None if reader.format is None else reader.format.name),
        columns=columns,
        images=images,
        on_bad=on_bad,
        cache=cache,
        num_proc=num_proc,
    )
    return Setup(
        source=source,
        reader=reader,
        model=model,
        objective=chosen,
        encoder=encoder,
        table=table,
        samples=_samples(chosen, table, model, limit, too_long),
        limit=limit,
        labels=classes,
    )


def _chosen(objective: Objective, format: str, model: Model) -> str:
    """What to do with this format on this model; a combination that cannot work is an error."""
    if objective == "auto":
        by_format = {
            "text": "masked" if model.is_encoder else "causal",
            "pairs": "pairs" if model.is_encoder else "chat",
        }
        objective = by_format.get(format, "chat")  # type: ignore[assignment]
    needs_encoder = {"masked": True, "pairs": True, "causal": False, "rows": False, "chat": False}[objective]
    if needs_encoder != model.is_encoder:
        kind = "an encoder" if model.is_encoder else "a causal model"
        fitting = ["masked", "pairs"] if model.is_encoder else ["causal", "rows", "chat"]
        raise ConfigError(f"`{model.name}` is {kind}, which cannot do `{objective}` on {format}; it can do {fitting}")
    return objective


def _chat_encoder(model: Model, labels: Labels | None, image_slots: int | None, **spoken: Any) -> ChatEncoder:
    """What training renders with: the slots of the model's own parts, and where they stand."""
    sizes = (dict(model.sizes) or {"image": IMAGE_SLOTS}) | ({"image": image_slots} if image_slots else {})
    return ChatEncoder.of(model.backbone, sizes=sizes, anchored=model.anchored, labels=labels, **spoken)


def _encoder(objective: str, model: Model, limit: int, labels: Labels | None) -> Encoder:
    if objective == "masked":
        return WordEncoder(model.tokenizer)
    if objective == "pairs":
        assert labels is not None, "pairs have labels"
        return PairEncoder(model.tokenizer, labels, max_length=limit)
    return TextEncoder(model.tokenizer)


def _samples(objective: str, table: Table, model: Model, limit: int, too_long: TooLong | None) -> Samples:
    if objective == "causal":
        return Blocks(table, limit)
    if objective == "masked":
        from vertebra.data.encode.masks import masked_blocks

        return masked_blocks(table, model.tokenizer, size=limit)
    return table if too_long is None else fitted(table, limit, too_long=too_long)


def _is_encoder(name: str, token: str | None) -> bool:
    """Whether a folder or hub name holds an encoder; ids of the table are all causal."""
    if "/" not in name and not Path(name).is_dir():
        return False
    architectures = find(name, token=token).config.get("architectures") or []
    return any(marks in one for one in architectures for marks in ("MaskedLM", "SequenceClassification", "PreTraining"))
