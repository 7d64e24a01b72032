"""How a model answers with a chunk of actions: four ways, each with what it adds to a model, a sequence and a batch.

    tokens     … <ACT> │ a₀ a₁ a₂ …       ids of bins, one after the other           cross entropy
    parallel   … <ACT> │ ▢ ▢ ▢ …          a slot a number, ids of bins in one pass   cross entropy
    l1         … <ACT> │ ▢ ▢ ▢ …          a slot a number, numbers in one pass       absolute error
    flow       … <ACT> │ ▢                one slot, numbers by denoising             error of the velocity

A task says what comes before and what the numbers mean (−1 … 1 here); it does not ask which way it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from vertebra import config as configs
from vertebra.action.bins import Bins
from vertebra.config import Bound, Count, Some, require_bounds
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.sequence.roles import NO_VALUE, VALUE_TARGET
from vertebra.sequence.tokens import TokenSequence

HeadName = Literal["tokens", "parallel", "l1", "flow"]
SEGMENT = "action"


@dataclass(frozen=True, kw_only=True)
class ActingConfig:
    """Sizes of the heads that have any, as `data.options`."""

    width: Some | None = None
    """For `flow`: of the expert; half the backbone's by default."""
    hidden: Some | None = None
    """For `l1`: of the network; as wide as the backbone's states by default."""
    blocks: Count = 2
    """For `l1`: residual blocks."""
    one_slot: bool = False
    """For `l1`: one slot for all numbers of a chunk, in place of one for each."""
    steps: Some = 10
    """For `flow`: denoising steps of a prediction."""
    times: Literal["beta", "uniform"] = "beta"
    """For `flow`: how training draws times."""
    delay: Count = 0
    """For `flow`: most actions of a chunk that training gives as decided."""
    insulated: bool = False
    """For `flow`: the loss of actions does not reach the backbone."""
    draws: Annotated[int, Bound(least=1)] = 1
    """For `flow`: times and noises that training draws for each chunk; the backbone's pass is shared."""

    def __post_init__(self) -> None:
        require_bounds(self)


class Acting(ABC):
    """One way to answer with `chunk` actions of `dims` numbers."""

    name: ClassVar[HeadName]
    takes: ClassVar[tuple[str, ...]] = ()
    """Settings of `ActingConfig` that it has."""
    by_tokens: ClassVar[bool] = True
    """Whether it predicts tokens, of bins; else numbers."""

    def __init__(self, *, chunk: int, dims: int, options: ActingConfig) -> None:
        self.chunk, self.dims, self.options = chunk, dims, options

    @property
    def numbers(self) -> int:
        return self.chunk * self.dims

    @property
    def slots(self) -> int:
        """Places of the segment `action` that a chunk takes."""
        return 0

    def heads(self, backbone: Any) -> dict[str, Any]:
        """Action heads that a model gets."""
        return {}

    def record(self) -> dict[str, Any]:
        """What a policy's record says of it beside its name and size."""
        return {}

    @abstractmethod
    def content(self, lead: Sequence[int], actions: np.ndarray, bins: Bins) -> list[dict[str, Any]]:
        """The answer, as parts of a message: the ids that lead, and the actions [chunk, dims]."""

    def supervised(
        self, sequence: TokenSequence, actions: np.ndarray, bins: Bins, *, pad: np.ndarray | None = None
    ) -> TokenSequence:
        """The rendered sequence with what is learned of the answer. `pad` [chunk]: actions that there are none of."""
        return sequence

    def opened(self, sequence: TokenSequence, lead: Sequence[int]) -> TokenSequence:
        """The sequence as it stands before an answer, exactly as it was trained on."""
        return sequence.cut(0, int(slots_of(sequence, SEGMENT)[-1]) + 1)

    def items(self, actions: np.ndarray, *, pad: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What a batch brings of a sample's actions beside its sequence."""
        return {}

    @abstractmethod
    def actions(self, model: Any, batch: Any, bins: Bins) -> np.ndarray:
        """[rows, chunk, dims]: what a model does in a batch of opened sequences."""

    def _shaped(self, ids: Sequence[Sequence[int]], bins: Bins) -> np.ndarray:
        return bins.decode(np.asarray(ids).reshape(len(ids), self.chunk, self.dims))

    def _weighed(self, sequence: TokenSequence, at: np.ndarray, targets: Any, pad: np.ndarray | None) -> TokenSequence:
        """The sequence with these targets at the places `at`: a place for each number, or one for all."""
        target, weight = sequence.target.copy(), sequence.weight.copy()
        each = pad is not None and len(at) == self.numbers
        target[at], weight[at] = targets, np.repeat(~pad, self.dims) if each and pad is not None else 1.0
        return replace(sequence, target=target, weight=weight)


class Tokens(Acting):
    """Ids of bins, one after the other; no other id can come between, and no early end."""

    name: ClassVar[HeadName] = "tokens"

    def content(self, lead: Sequence[int], actions: np.ndarray, bins: Bins) -> list[dict[str, Any]]:
        return [{"type": "action", "ids": [*lead, *bins.encode(actions).ravel().tolist()]}]

    def supervised(
        self, sequence: TokenSequence, actions: np.ndarray, bins: Bins, *, pad: np.ndarray | None = None
    ) -> TokenSequence:
        at = np.flatnonzero(np.isin(sequence.ids, bins.allowed))[-self.numbers :]
        ids = sequence.ids.copy()
        ids[at] = bins.encode(actions).ravel()
        return self._weighed(replace(sequence, ids=ids), at, ids[at], pad)

    def opened(self, sequence: TokenSequence, lead: Sequence[int]) -> TokenSequence:
        found = np.flatnonzero(sequence.ids == lead[-1])
        return sequence.cut(0, int(found[-1]) + 1)

    def actions(self, model: Any, batch: Any, bins: Bins) -> np.ndarray:
        from vertebra.decode.call import generate
        from vertebra.decode.choose.constraint import AllowedSteps

        made = generate(
            model, batch, max_new_tokens=self.numbers, constraint=AllowedSteps([bins.allowed] * self.numbers)
        )
        return self._shaped(made.tokens, bins)


class Parallel(Acting):
    """A slot for each number, filled with ids of bins in one pass; slots see each other both ways."""

    name: ClassVar[HeadName] = "parallel"

    @property
    def slots(self) -> int:
        return self.numbers

    def record(self) -> dict[str, Any]:
        return {"attention": "block"}

    def content(self, lead: Sequence[int], actions: np.ndarray, bins: Bins) -> list[dict[str, Any]]:
        return [{"type": "action", "ids": list(lead)}, {"type": "action", "count": self.slots}]

    def supervised(
        self, sequence: TokenSequence, actions: np.ndarray, bins: Bins, *, pad: np.ndarray | None = None
    ) -> TokenSequence:
        return self._weighed(sequence, slots_of(sequence, SEGMENT), bins.encode(actions).ravel(), pad)

    def actions(self, model: Any, batch: Any, bins: Bins) -> np.ndarray:
        from vertebra.decode.parallel import fill

        return self._shaped(fill(model, batch, at=SEGMENT, allowed=bins.allowed).tokens, bins)


class _Numbers(Parallel):
    """Slots whose answers are numbers, by an action head of the model."""

    by_tokens: ClassVar[bool] = False

    def supervised(
        self, sequence: TokenSequence, actions: np.ndarray, bins: Bins, *, pad: np.ndarray | None = None
    ) -> TokenSequence:
        return self._weighed(sequence, slots_of(sequence, SEGMENT), VALUE_TARGET, pad)

    def items(self, actions: np.ndarray, *, pad: np.ndarray | None = None) -> dict[str, np.ndarray]:
        values = np.array(actions, np.float32)
        if pad is not None:
            values[pad] = NO_VALUE
        return {SEGMENT: values[None]}

    def actions(self, model: Any, batch: Any, bins: Bins) -> np.ndarray:
        from vertebra.decode.actions import predict

        return predict(model, batch, segment=SEGMENT).double().cpu().numpy()


class Regressed(_Numbers):
    """OFT's L1 head."""

    name: ClassVar[HeadName] = "l1"
    takes: ClassVar[tuple[str, ...]] = ("hidden", "blocks", "one_slot")

    @property
    def slots(self) -> int:
        return 1 if self.options.one_slot else self.numbers

    def heads(self, backbone: Any) -> dict[str, Any]:
        from vertebra.model.fresh import new_l1

        sizes: dict[str, Any] = {name: getattr(self.options, name) for name in self.takes}
        return {SEGMENT: new_l1(backbone, chunk=self.chunk, dims=self.dims, **sizes)}


class Flowing(_Numbers):
    """Flow matching by an expert that reads the backbone's keys."""

    name: ClassVar[HeadName] = "flow"
    takes: ClassVar[tuple[str, ...]] = ("width", "steps", "times", "delay", "insulated", "draws")

    @property
    def slots(self) -> int:
        return 1

    def record(self) -> dict[str, Any]:
        return {"steps": self.options.steps}

    def heads(self, backbone: Any) -> dict[str, Any]:
        from vertebra.model.fresh import new_flow

        given = {name: getattr(self.options, name) for name in self.takes}
        return {SEGMENT: new_flow(backbone, chunk=self.chunk, dims=self.dims, **given)}


WAYS: dict[str, type[Acting]] = {way.name: way for way in (Tokens, Parallel, Regressed, Flowing)}


def acting(name: str, *, chunk: int = 1, dims: int, options: Mapping[str, Any] | ActingConfig | None = None) -> Acting:
    """The way of this name. A setting without effect on it is refused, with the ways that have it."""
    if name not in WAYS:
        raise UnknownNameError("action head", name, WAYS)
    way = WAYS[name]
    given = (
        options
        if isinstance(options, ActingConfig)
        else configs.build(ActingConfig, dict(options or {}), where="options")
    )
    other = [one.name for one in fields(given) if getattr(given, one.name) != one.default and one.name not in way.takes]
    if other:
        whose = {setting: [f"`{one.name}`" for one in WAYS.values() if setting in one.takes] for setting in other}
        message = "; ".join(f"{setting}: of {', '.join(kinds)} alone" for setting, kinds in whose.items())
        raise ConfigError(f"{message}; the head `{name}` has no use for it")
    return way(chunk=chunk, dims=dims, options=given)


def slots_of(sequence: TokenSequence, segment: str) -> np.ndarray:
    """Where the slots of a segment stand."""
    if segment not in sequence.segments:
        return np.zeros(0, int)
    return np.flatnonzero(sequence.slot[:, 0] == sequence.segments.index(segment))
