"""The data that a recipe names: samples to train on, samples to evaluate on, and the loaders of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.data.encode.added import tell_unused
from vertebra.data.encode.chat import ChatEncoder, ImageFeatures
from vertebra.data.encode.encoders import TextEncoder, WordEncoder
from vertebra.data.encode.keytokens import KeyTokens, Weighted
from vertebra.data.encode.masks import Masking, masked_blocks
from vertebra.data.encode.pairs import Classified, PairEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.encode.tokens import block_size
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import InOrder, LengthGrouped, Packed, Sampler, Shuffled
from vertebra.data.read.corpus import corpus_split
from vertebra.data.samples.causal import Blocks, fitted
from vertebra.data.samples.samples import Picked, Samples
from vertebra.errors import DataError
from vertebra.training.config import STDLIB, RunConfig
from vertebra.training.squares import Squares


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What a run reads."""

    train: Samples
    held_out: Samples | None
    collator: Collator
    shift: bool
    """Whether the loss shifts: not for encoders."""
    capacity: int

    def loader(self, config: RunConfig, *, rank: int, world: int) -> Loader:
        sampler = _sampler(config, self.capacity)
        workers = config.data.workers
        return Loader(self.train, sampler, self.collator, rank=rank, world=world, workers=workers, shift=self.shift)

    def eval_loader(self, config: RunConfig, *, rank: int, world: int) -> Loader | None:
        if self.held_out is None:
            return None
        sampler = InOrder(config.optim.batch)
        return Loader(self.held_out, sampler, self.collator, rank=rank, world=world, shift=self.shift)


def build_data(config: RunConfig, model: Any) -> RunData:
    """Read and encode everything; a fault in the data shows here and not at step 1000."""
    kind = config.data.kind
    make = {"text": _text, "masked": _masked, "chat": _chat, "pairs": _pairs, "squares": _squares}[kind]
    train, held_out = make(config, model)
    limit = config.data.limit
    if limit is not None and len(train) > limit:
        train = Picked(train, np.arange(limit))
        held_out = held_out and Picked(held_out, np.arange(min(len(held_out), limit)))
    features = ImageFeatures(model.parts["image"].encoder.preparation) if "image" in model.parts else None
    return RunData(
        train=train,
        held_out=held_out,
        collator=Collator(int(model.tokenizer.pad_token_id), features=features),
        shift=not config.data.for_encoder,
        capacity=_block(config, model),
    )


def _block(config: RunConfig, model: Any) -> int:
    """Positions in a row: what is asked for, at most the model's context."""
    longest, context = config.model.max_length, model.context
    limit = context if config.data.for_encoder else min(longest, context or longest)
    return block_size(model.tokenizer, limit, config.data.block)


def _tables(config: RunConfig, encoder: Any) -> tuple[Any, Any | None]:
    """The table to train on and the one to evaluate on, the latter only where the data itself is split."""
    data = config.data
    if data.path == STDLIB:
        parts = corpus_split("source", valid=max(0.01, data.held_out), seed=0, megabytes=_megabytes(data.limit))
        return prepare(parts["train"], encoder), prepare(parts["valid"], encoder)
    format = data.format or ("pairs" if data.kind == "pairs" else None)
    options: dict[str, Any] = {"format": format, "on_bad": data.on_bad}
    table = prepare(data.path, encoder, **options)
    tell_unused(table, encoder.tokenizer, config.model.tokens, spoken=data.kind == "chat")
    return table, prepare(data.eval_path, encoder, **options) if data.eval_path else None


def _megabytes(limit: int | None) -> float:
    return 4.0 if limit is None else 0.3


def _apart(samples: Samples, held_out: float) -> tuple[Samples, Samples | None]:
    """Some samples held out, the same ones in every run."""
    count = int(len(samples) * held_out)
    if not held_out:
        return samples, None
    if not 0 < count < len(samples):
        count = min(1, len(samples) - 1)
    if not count:
        return samples, None
    order = np.random.default_rng(0).permutation(len(samples))
    return Picked(samples, np.sort(order[count:])), Picked(samples, np.sort(order[:count]))


def _text(config: RunConfig, model: Any) -> tuple[Samples, Samples | None]:
    tokenizer, size = model.tokenizer, _block(config, model)
    table, other = _tables(config, TextEncoder(tokenizer))
    train: Samples = Blocks(table, size)
    held_out: Samples | None
    if other is not None:
        held_out = Blocks(other, size)
    else:
        train, held_out = _apart(train, config.data.held_out)
    if config.data.keys:
        keys = KeyTokens(tokenizer, config.data.keys)
        train = Weighted(train, keys, boost=config.data.key_weight, by="token")
    return train, held_out


def _masked(config: RunConfig, model: Any) -> tuple[Samples, Samples | None]:
    table, other = _tables(config, WordEncoder(model.tokenizer))
    size = _block(config, model)
    masking, still = Masking(seed=config.seed), Masking(seed=config.seed, fixed=True)
    train = masked_blocks(table, model.tokenizer, context=model.context, size=size, masking=masking)
    if other is not None:
        return train, masked_blocks(other, model.tokenizer, context=model.context, size=size, masking=still)
    fixed = masked_blocks(table, model.tokenizer, context=model.context, size=size, masking=still)
    kept, held_out = _apart(train, config.data.held_out)
    return kept, Picked(fixed, held_out.indices) if isinstance(held_out, Picked) else None


def _chat(config: RunConfig, model: Any) -> tuple[Samples, Samples | None]:
    backbone = model.backbone
    encoder = ChatEncoder.of(
        backbone,
        system=config.data.system,
        fold_system=config.data.fold_system,
        sizes=model.sizes,
        anchored=model.anchored,
        trusted=config.data.trusted,
    )
    table, other = _tables(config, encoder)
    size, choice = _block(config, model), config.data.too_long
    train = fitted(table, size, too_long=choice)
    if other is not None:
        return train, fitted(other, size, too_long=choice)
    return _apart(train, config.data.held_out)


def _pairs(config: RunConfig, model: Any) -> tuple[Samples, Samples | None]:
    encoder = PairEncoder(model.tokenizer, model.labels, max_length=_block(config, model))
    table, other = _tables(config, encoder)
    if other is not None:
        return Classified(table), Classified(other)
    return _apart(Classified(table), config.data.held_out)


def _squares(config: RunConfig, model: Any) -> tuple[Samples, Samples | None]:
    data = config.data
    options = {"parallel": data.parallel, "shuffled": data.shuffled_images}
    held_out = max(8, int(data.count * data.held_out))
    return (
        Squares(model, data.count, seed=config.seed, **options),
        Squares(model, held_out, seed=config.seed + 1, **options),
    )


def _sampler(config: RunConfig, capacity: int) -> Sampler:
    batch, seed = config.optim.batch, config.seed
    # blocks are full already, an encoder reads one sample a row, and rows with images are of one length
    if config.data.kind == "chat" and config.data.batching == "packed":
        return Packed(batch, capacity, seed=seed)
    if config.data.batching == "grouped":
        return LengthGrouped(batch, seed=seed)
    return Shuffled(batch, seed=seed)


def check_size(data: RunData, config: RunConfig, world: int) -> None:
    """Fewer samples than ranks cannot be shared out."""
    if len(data.train) < world:
        raise DataError(
            f"{len(data.train)} samples for {world} ranks: some would have nothing. Use at most {len(data.train)} ranks, "
            "or more data"
        )
