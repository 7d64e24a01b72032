"""Parallel decoding: every slot of a row filled in one pass, by a causal model or by a masked one.

    position      0    1    2    3    4    5          a causal model reads the logits of slot 3 one before it, at 2,
    row          <s>  pick  up   □    □    □          as the loss does; an encoder reads them where the mask stands
    block         0    0    0    1    1    1
                                                      see="block"    slots see each other both ways
    ■ · · · · ·       ■ · · · · ·                         "row"      everything sees everything
    ■ ■ · · · ·       ■ ■ · · · ·                         "causal"   slots see what is before them
    ■ ■ ■ · · ·       ■ ■ ■ · · ·                         "given"    as the batch's blocks say
    ■ ■ ■ ■ ■ ■       ■ ■ ■ ■ · ·
    ■ ■ ■ ■ ■ ■       ■ ■ ■ ■ ■ ·    "block" and "causal", on the model's own code: the mask says it all
    ■ ■ ■ ■ ■ ■       ■ ■ ■ ■ ■ ■

Only the slots' rows of hidden states go through the head, and of the head only the rows of the allowed ids.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vertebra import log
from vertebra.decode.asking import ask
from vertebra.decode.choose.constraint import AllowedIds, Constraint
from vertebra.decode.choose.sampling import NEVER, Call, Context, Space, drawn, greedy, rules_of
from vertebra.decode.engine import seeds_of
from vertebra.decode.settings import DecodeConfig, about_prompt
from vertebra.decode.slots.encoder import EncoderSide, FillsMasks
from vertebra.decode.slots.places import SEES, FilledSlots, See, Slots, seen_as, slots_at
from vertebra.decode.start import eval_mode
from vertebra.decode.state.checks import check_prompt
from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.columns import given_batch
from vertebra.decode.state.decoding import DecodeState, Pass
from vertebra.decode.state.inputs import encoded
from vertebra.decode.state.language import Language, Requested, language_of
from vertebra.errors import GenerationError, UnknownNameError
from vertebra.model.model import Model, model_of
from vertebra.sequence.batch import Batch
from vertebra.sequence.masks import plan_attention

Read = Literal["before", "here"]
READS = ("before", "here")


def fill(
    model: Any,
    prompt: Any,
    *,
    at: str | int | torch.Tensor | None = None,
    see: See = "given",
    read: Read | None = None,
    allowed: Sequence[int] | Constraint | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | Sequence[int] | None = None,
    state: DecodeState | None = None,
    features: Any = None,
    **options: Any,
) -> FilledSlots:
    """Fill all slots of all rows in one pass.

    `prompt` and `options`: as for `generate`, with slots in it (a part `{"type": "action", "count": 7}`); for an
    encoder texts will do.

    `at`: where: the name of a segment (`action`), a mask [B, L], or an id that marks the places; None: `action`, or
    the mask id of an encoder. `see`: who sees whom among the slots. `read`: whether the logits one `before` a slot
    say what stands there, as in a causal model, or those `here`; None: as the model is. `allowed`: ids that may stand
    there, or a constraint with a step a slot. `state`: a prefix computed before, which `prompt` (sequences, with the
    `features` of their slots) continues; it is not changed.
    """
    for kind, name, known in (("see", see, SEES), ("read", read or "before", READS)):
        if name not in known:
            raise UnknownNameError(f"value of `{kind}`", name, known)
    settings = DecodeConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    request = _Request(at=at, see=see, read=read, allowed=allowed, settings=settings)
    with torch.inference_mode():
        if isinstance(model, FillsMasks):
            if state is not None:
                raise GenerationError(
                    "an encoder sees the whole row at once and has no prefix to continue; leave `state` out"
                )
            return _by_encoder(EncoderSide(model), prompt, request)
        asked = ask(model_of(model), prompt, about_prompt(options)) if state is None else None
        with eval_mode(model_of(model)):
            if asked is None:
                return _continued(state, prompt, features, request)  # type: ignore[arg-type]
            return _by_decoder(asked.model, asked.prompt, request)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Request:
    """What is to be filled, and how."""

    at: Any
    see: See
    read: Read | None
    allowed: Any
    settings: DecodeConfig

    def places(self, batch: Batch, at: Any, read: Read) -> Slots:
        """The slots of a batch; `at` and `read` where none were given."""
        return slots_at(batch, at if self.at is None else self.at, self.read or read)


def _by_decoder(model: Model, prompt: Any, request: _Request) -> FilledSlots:
    language = language_of(model.backbone)
    batch = given_batch(prompt, model.backbone).to(language.device)  # padding may stand on either side
    check_prompt(batch, ColumnFacts(batch), language)
    slots = request.places(batch, "action", "before")
    batch = seen_as(batch, slots.here, request.see)
    begin = time.perf_counter()
    planned = plan_attention(batch, language.facts, dtype=language.dtype)
    inputs = model.inputs(batch, 0, batch.length, encoded(model, batch))
    choice = _Choice(slots, request, language.num_logits, model.tokenizer)
    seen = language.run(inputs, planned.attention_mask, planned.position_ids, None, choice.requested(language))
    return choice.filled(seen.logits, seen.chosen, _pass(batch, begin))


def _continued(state: DecodeState, prompt: Any, features: Any, request: _Request) -> FilledSlots:
    """The slots stand in what continues a prefix."""
    if request.see == "row":
        raise GenerationError(
            'see="row" lets the prefix see the slots, and it was computed without them; leave `state` out'
        )
    if isinstance(prompt, Batch):
        raise GenerationError(
            "after a state, `prompt` is a sequence for each of its rows; a Batch has positions of its own"
        )
    fork, language = state.fork(), state.language
    chunk = fork.give(prompt, features)
    slots = request.places(chunk, "action", "before")
    if request.see != "given":
        fork.see(seen_as(chunk, slots.here, request.see, above=int(state.batch["block"].max())))
    choice = _Choice(slots, request, language.num_logits, state.model.tokenizer)
    fork.advance(requested=choice.requested(language))
    seen = fork.seen
    assert seen is not None
    return choice.filled(seen.logits, seen.chosen, tuple(fork.passes))


def _by_encoder(side: EncoderSide, prompt: Any, request: _Request) -> FilledSlots:
    batch = side.batch(prompt)
    slots = request.places(batch, side.mask_id, "here")
    if request.see != "given":
        raise GenerationError(f'see="{request.see}": an encoder sees everything both ways by nature; leave it out')
    choice = _Choice(slots, request, side.num_logits, side.tokenizer)
    begin = time.perf_counter()
    logits, states = side.run(batch, slots.columns)
    logits = logits if choice.ids is None else logits[..., choice.ids]
    return choice.filled(logits, states, _pass(batch, begin))


def _pass(batch: Batch, begin: float) -> tuple[Pass, ...]:
    return (Pass("parallel", batch.rows, batch.length, 0, time.perf_counter() - begin),)


class _Choice:
    """What may stand in each slot, and what is chosen."""

    def __init__(self, slots: Slots, request: _Request, vocabulary: int, tokenizer: Any) -> None:
        self._slots, self._settings, self._tokenizer = slots, request.settings, tokenizer
        self.ids: torch.Tensor | None = None
        self._possible: torch.Tensor | None = None
        allowed = request.allowed
        if allowed is not None:
            self._restrict(allowed if isinstance(allowed, Constraint) else AllowedIds(allowed), vocabulary)

    def requested(self, language: Language) -> Requested:
        """What a pass must show: the logits of the slots, of the ids that may stand there."""
        rows = None if self.ids is None else language.head_rows(self.ids)
        return Requested(columns=self._slots.columns, rows=rows, states=True)

    def _restrict(self, constraint: Constraint, vocabulary: int) -> None:
        most, device = self._slots.columns.shape[1], self._slots.columns.device
        follower = constraint.follow(
            len(self._slots.columns),
            tokenizer=self._tokenizer,
            vocabulary=vocabulary,
            ends=(),
            steps=most,
            device=device,
        )
        if follower.ids(0) is None:
            raise GenerationError("a grammar needs what stands before; slots are filled all at once. Allow ids by slot")
        steps: list[torch.Tensor] = []
        for slot in range(most):
            ids = follower.ids(slot)
            if ids is None:
                raise GenerationError(f"the constraint has {slot} steps, and a row has {most} slots")
            steps.append(ids)
        self.ids = torch.unique(torch.cat(steps))
        if all(one is steps[0] for one in steps):
            return
        possible = torch.zeros((most, len(self.ids)), dtype=torch.bool, device=device)
        for slot, one in enumerate(steps):
            possible[slot, torch.searchsorted(self.ids, one)] = True
        self._possible = possible

    def filled(self, logits: Any, states: Any, passes: tuple[Pass, ...]) -> FilledSlots:
        """The choice of every slot."""
        logits = logits.float()
        scores = logits if self._possible is None else logits.masked_fill(~self._possible, NEVER)
        rows, most = scores.shape[:2]
        flat = scores.flatten(0, 1)
        seeds = None
        if self._settings.samples:
            context = Context(None, Space(self.ids))
            for rule in rules_of(self._settings, Call(ends=(), vocabulary=0, last_step=0, prompt=0)):
                flat = rule(flat, context)
            seeds = seeds_of(self._settings.seed, rows)
            numbers = [torch.rand(most, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            column, value = drawn(flat, torch.stack(numbers).to(flat.device).view(-1, 1))
        elif self._settings.seed is not None:
            raise GenerationError("a seed would have no effect, for decoding is greedy; leave it out, or sample")
        else:
            column, value = greedy(flat)
        tokens = (column if self.ids is None else self.ids[column]).view(rows, most)
        sure = scores.log_softmax(-1).flatten(0, 1).gather(-1, column[:, None]).view(rows, most)
        real = self._slots.real
        failed = _failed(value.view(rows, most).cpu(), real)
        return FilledSlots(
            tokens=[row[keep].tolist() for row, keep in zip(tokens.cpu(), real, strict=True)],
            log_probs=[row[keep].tolist() for row, keep in zip(sure.cpu(), real, strict=True)],
            logits=logits, ids=self.ids, hidden=states, real=real.to(logits.device), passes=passes, seeds=seeds,
            failed=failed, tokenizer=self._tokenizer,
        )  # fmt: skip


def _failed(values: torch.Tensor, real: torch.Tensor) -> list[int]:
    """Rows with a slot whose logits are no numbers, named."""
    broken = ~values.isfinite() & real
    rows = broken.any(1).nonzero()[:, 0].tolist()
    for row in rows:
        log.warn(f"row {row}: the logits of slots {broken[row].nonzero()[:, 0].tolist()} are no numbers")
    return rows
