"""`DataConfig`: the `data` of a recipe: what is read, and what is trained on it. It knows no kinds: each says which of
these settings are its own."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from vertebra.config import Amount, Count, Place, Share, Some
from vertebra.data.reading import Reading
from vertebra.errors import ConfigError

Trusted = Literal["assistant", "system", "tool", "all"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Reading):
    """What a model is trained on."""

    kind: str
    """text, masked, chat, pairs, squares, orders, look; one that was registered; or `package.module:Task`, one of your own."""
    held_out: Share = 0.05
    """The share of samples that evaluation gets, where `eval_path` names none."""
    eval_path: Place | None = None
    eval_split: str | None = None
    """Which split evaluation gets: of `eval_path`, or of the same dataset."""
    block: Some | None = None
    """Positions in a row; the model's context by default."""
    batching: Literal["packed", "grouped", "shuffled"] = "packed"
    """`packed`: several samples a row, where a kind packs; else shuffled."""
    too_long: Literal["error", "drop", "cut", "windows"] = "error"
    labels: tuple[str | int, ...] = ()
    """The classes of pairs, in order; as the data names them, or as most of its rows spell them, where not given."""
    rows: bool = False
    """For `text`: every row is a sample, in place of blocks cut from all text."""
    keys: tuple[str, ...] = ()
    """For `text`: words that weigh more than others (`plt`, `fit` …)."""
    key_weight: Amount = 2.0
    system: str | None = None
    """For `chat`: the system prompt of every conversation; one that has another of its own is a fault."""
    fold_system: bool = False
    """For `chat`: put system prompts before the first question, for formats without a place of their own for them."""
    trusted: tuple[Trusted, ...] = ()
    """For `chat`: whose text may hold added tokens, as `<ACT>` of `model.tokens`. Nobody's by default; `all` is every
    role but the user, who types text."""
    workers: Count = 0
    count: Some = 512
    """For `squares`, `orders`, `look`: how many episodes or items are drawn."""
    head: Literal["tokens", "parallel", "l1", "flow"] = "tokens"
    """For `squares`: how an action is answered: in tokens one after the other, in tokens in one pass, or in numbers by
    regression or by flow matching."""
    chunk: Some = 1
    """For `squares`: actions that one answer holds."""
    parallel: bool = False
    """For `squares`: the older spelling of `head: parallel`."""
    shuffled_images: bool = False
    """For `squares`, `look`: show every one another one's image; a model that looks must then fail."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of a kind of your own, as its `Options` declares them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parallel and self.head not in ("tokens", "parallel"):
            raise ConfigError(f"parallel=true and head={self.head} contradict each other; give the head alone")
        if self.system in ("fold", "native"):
            raise ConfigError(
                f"system is the text of the system prompt, and `{self.system}` is where it stands: for "
                f"{'fold give data.fold_system=true' if self.system == 'fold' else 'native leave it out'}"
            )

    @property
    def named(self) -> str:
        """What messages and the model card call it; the kind's own name where nothing is read."""
        return super().named if self.path is not None or self.mix else self.kind

    @property
    def evaluated(self) -> Reading | None:
        """What evaluation reads, the way that all the rest is read; None: a share of that."""
        if self.eval_path is None and self.eval_split is None:
            return None
        first = next(iter(self.single().values()))
        shared = {one.name: getattr(first, one.name) for one in fields(Reading)}
        return Reading(**shared | {"path": self.eval_path or first.path, "split": self.eval_split, "stream": False})
