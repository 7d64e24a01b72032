"""`Task`: one kind of work, whole: what it reads, what it adds to a model, what a sample is, what is measured and shown.

    data ──► encoder ──► table ──► samples ──► trained ──► batches            all but the encoder has a default
                                      └──────► held out ──► measure · shown

A kind of your own is a subclass, made known by `register_task` or named in the recipe as `package.module:Class`. It does
not know the trainer.
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from vertebra import config as configs
from vertebra.data.encode.encoders import Encoder, SequenceEncoder
from vertebra.data.loaders.samplers import LengthGrouped, Packed, Sampler, Shuffled
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.formats import FORMATS
from vertebra.data.read.rows import digest
from vertebra.data.samples.causal import fitted
from vertebra.data.samples.samples import Samples
from vertebra.data.samples.table import Table
from vertebra.errors import ConfigError
from vertebra.sequence.tokens import TokenSequence
from vertebra.tasks.config import DataConfig

Features = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What `Samples.extra` says → the raw items of a sample's slots."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task's data, for one model."""

    data: DataConfig
    model: ModelFacts
    seed: int = 0
    tokens: tuple[str, ...] = ()
    """Those that the vocabulary was grown by for this data."""

    @property
    def size(self) -> int:
        """Positions in a row."""
        return self.model.block(self.data.block)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What an evaluation sees."""

    samples: Samples
    batches: Callable[[], Iterable[Any]]
    """The batches of this rank, from the first."""
    world: int = 1

    def over_ranks(self, numbers: Any) -> Any:
        """A tensor of counts, added up over all ranks."""
        import torch.distributed as dist

        if self.world > 1:
            dist.all_reduce(numbers)
        return numbers


@dataclass(frozen=True, kw_only=True)
class NewEncoder:
    """A part that a model gets where it has none of that name yet."""

    encoder: Callable[[], Any]
    """Makes it, with weights of its own."""
    projector: str = "linear"
    place: Literal["slots", "anchored", "added"] = "slots"


class Task(ABC):
    """One kind of work; its facts are read before anything loads."""

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    """Formats of the rows that it takes; none: it makes its own samples (`drawn`)."""
    format: ClassVar[str | None] = None
    """What all rows are taken for, where their columns could mean something else; None: what they spell."""
    settings: ClassVar[tuple[str, ...]] = ("block", "too_long")
    """Settings of `data` that not every kind has, and this one has; any other that is given is refused."""
    Options: ClassVar[type | None] = None
    """A frozen dataclass of further settings, given as `data.options`."""
    for_encoder: ClassVar[bool] = False
    """Whether it trains an encoder, and no language model."""
    shift: ClassVar[bool] = True
    """Whether the loss shifts: a position's target stands one place behind it."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Parts that the model must have."""
    supervised: ClassVar[float] = 1.0
    """Roughly which share of the positions is supervised, for plans."""

    def tiny(self, data: DataConfig) -> DataConfig:
        """The data of a run on a tiny scale; a kind that can make some of its own does so where a recipe names none."""
        return data

    # What it adds to a model

    def tokens(self, data: DataConfig) -> tuple[str, ...]:
        """Tokens that the vocabulary is grown by."""
        return ()

    def queries(self, data: DataConfig) -> Mapping[str, int]:
        """Slots that nothing outside fills, by segment: the model gets learned embeddings for so many."""
        return {}

    def cameras(self, data: DataConfig) -> tuple[str, ...]:
        """Segments of images that may each have an encoder of their own (`model.image.each`)."""
        return ("image",)

    def vectors(self, data: DataConfig) -> Mapping[str, int]:
        """Segments of plain vectors that the model gets a projector for, and how many numbers one has."""
        return {}

    def encoders(self, data: DataConfig) -> Mapping[str, NewEncoder]:
        """Other parts that the model gets for this data, by segment: encoders of boxes, say."""
        return {}

    def heads(self, data: DataConfig, backbone: Any) -> Mapping[str, Any]:
        """Action heads that the model gets, by segment; `backbone` may be without weights."""
        return {}

    def record(self, data: DataConfig, backbone: Any) -> Mapping[str, Any]:
        """What belongs to the model and is saved with it, as plain data: for a task that acts, its record as a policy."""
        return {}

    def example(self, job: Job) -> tuple[Any, str] | None:
        """For a task that acts: an observation (a mapping, as policies take it) and an instruction, of which the model's folder
        keeps the action that it leads to. None: the folder keeps none."""
        return None

    def load_encoder(self, name: str, data: DataConfig, *, pretrained: bool) -> Any:
        """The encoder that it trains, where it trains one."""
        raise ConfigError(f"kind `{self.name}` trains no encoder; one that does defines `load_encoder`")

    # What a sample is

    def sequence(self, sample: Any, job: Job) -> TokenSequence:
        """One row (a `Text`, `Conversation`, `Pair`) as the model reads it, with what is learned of it in `weight`."""
        raise ConfigError(
            f"kind `{self.name}` defines neither `sequence` nor `encoder`; one of them makes samples of rows"
        )

    def encoder(self, job: Job) -> Encoder:
        """What makes vectors of many rows at once."""
        return SequenceEncoder(
            job.model.tokenizer,
            partial(self.sequence, job=job),
            takes=tuple(FORMATS[name].makes for name in self.reads),
            key=_source_of(type(self)),
            slots=bool(job.model.sizes),
        )

    def samples(self, table: Table, job: Job) -> Samples:
        """What is evaluated, and what training starts from: the rows, or a view of them, of at most `job.size` positions."""
        return fitted(table, job.size, too_long=job.data.too_long)

    def trained(self, samples: Samples, job: Job) -> Samples:
        """The same samples as training sees them: otherwise weighed, otherwise masked in every epoch."""
        return samples

    def drawn(self, job: Job) -> tuple[Samples, Samples | None]:
        """Samples to train on and to evaluate on, of a kind that reads nothing."""
        raise ConfigError(f"kind `{self.name}` reads nothing (`reads`) and draws nothing; it has to define `drawn`")

    def sees(self, data: DataConfig) -> bool:
        """Whether the model that an earlier stage leaves for it has eyes; so has what `--tiny` puts there."""
        return not self.for_encoder

    def packs(self, data: DataConfig) -> bool:
        """Whether samples are of any length: several may share a row of a batch, and some may be too long."""
        return not self.for_encoder

    def sampler(self, job: Job, batch: int) -> Sampler:
        """Which samples share a batch of so many rows."""
        if job.data.batching == "packed" and self.packs(job.data):
            return Packed(batch, job.size, seed=job.seed)
        return (LengthGrouped if job.data.batching == "grouped" else Shuffled)(batch, seed=job.seed)

    def features(self, job: Job) -> Features | None:
        """How the raw items of slots are made: here, the pixels of images."""
        from vertebra.data.encode.chat import ImageFeatures

        how = job.model.preparation
        return None if how is None else ImageFeatures(how)

    # What is measured and shown

    def checked(self, job: Job) -> Any:
        """What `vertebra data check` reports of a kind that reads its data itself, as a `DataReport`; None: nothing."""
        return None

    def pictured(self, samples: Samples, index: int, epoch: int = 0) -> Any:
        """A sample as a picture, for `vertebra data show`; None: it has none."""
        return None

    def measure(self, learner: Any, held_out: HeldOut) -> dict[str, float]:
        """What an evaluation finds beside the loss. `learner(call=f)` gives `f(model)`, all ranks together."""
        return {}

    def prompt(self, text: str, job: Job) -> TokenSequence:
        """A prompt of the report as the model reads it: what stands before an answer stood there in training."""
        return TokenSequence.of(job.model.tokenizer(text).input_ids)

    def shown(self, model: Any, job: Job, prompts: Sequence[str], length: int) -> list[dict[str, str]]:
        """What the report shows before and after the training: a prompt, an answer, and an image where there is one."""
        return [{"prompt": text, "answer": answered(model, self.prompt(text, job), length)} for text in prompts]

    def options(self, data: DataConfig) -> Any:
        """The settings of its own kind, as it declares them."""
        if self.Options is None:
            raise ConfigError(f"data.options: kind `{self.name}` declares none")
        return configs.build(self.Options, data.options, where="data.options")


def _source_of(kind: type) -> str:
    """The code of a kind, so that a change of it meets no old cache."""
    module = sys.modules.get(kind.__module__)
    try:
        code = inspect.getsource(module or kind)
    except (OSError, TypeError):  # typed at a prompt
        code = repr((kind.sequence.__code__.co_code, kind.sequence.__code__.co_consts))  # type: ignore[attr-defined]
    return digest(kind.__qualname__, code)


def answered(model: Any, prompt: TokenSequence, length: int) -> str:
    """What a model answers greedily, in at most `length` tokens; tokens that were added for the training are seen."""
    import torch

    from vertebra.backbone.vocabulary import new_row_ids
    from vertebra.decode.call import generate

    with torch.random.fork_rng(devices=[]):
        made = generate(model, prompt, max_new_tokens=length)
    tokenizer, added = model.tokenizer, set(new_row_ids(model.backbone))
    if not added.intersection(made.tokens[0]):
        return str(made.text[0])
    special = set(tokenizer.all_special_ids) - added  # they are special themselves, and left out of texts
    kept = [token for token in made.tokens[0] if token not in special]
    return str(tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))
