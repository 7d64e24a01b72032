"""Our decode engine: a `DecodeRun` yields a `Step` a token.

    prefill ─► logits ─► rules ─► choose ─► Step ─► step(tokens) ─► logits ─► …

A row that ends leaves the batch once half of the rows have, so that it slows nobody. What to do is in `DecodeConfig`,
where a call stands by its state; what a model is, this module does not know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vertebra import log
from vertebra.decode.choose.ends import Ends, ids_in
from vertebra.decode.choose.history import History
from vertebra.decode.choose.sampling import NEVER, Call, Context, Space, drawn, greedy, needs_history, rules_of
from vertebra.decode.choose.text import TextWriter
from vertebra.decode.result import Step
from vertebra.decode.settings import DecodeConfig
from vertebra.decode.start import Start, compute
from vertebra.decode.state.capture import capture_of
from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.language import Requested
from vertebra.errors import GenerationError


class DecodeRun:
    """One call of decoding: everything that changes while it goes on."""

    def __init__(self, begun: Start, settings: DecodeConfig, *, text: bool = False) -> None:
        self.begin = begun.began
        self.settings = settings
        self._hidden = capture_of(settings.output_hidden_states)
        self._attentions = capture_of(settings.output_attentions)
        self.most, self._cut_short = begun.most, begun.cut_short
        self.language, self.backbone = begun.language, begun.model.backbone
        self.prompt_length = begun.batch.length
        self.total = begun.batch.rows * settings.num_return_sequences
        self.rows = list(range(self.total))
        """The rows that are still computed."""
        self.eos, self.pad_id = ids_in(settings, self.backbone, self.language.num_logits)
        self._constrain()
        self.state = compute(begun, settings, self._requested(0))
        self.prefilled = self._wait()
        self.context = Context(self._history(), Space())
        self.ends = self._ends()
        self.seeds, self._uniform = self._streams()
        self._writers = [TextWriter(self.backbone.tokenizer, settings.stops) for _ in self.rows] if text else []
        self.tokens: list[list[int]] = [[] for _ in self.rows]
        """What each row has generated."""

    def _constrain(self) -> None:
        settings = self.settings
        self.follower = None
        # whoever looks at all logits, or changes them by their ids, needs the whole head
        self._whole_head = settings.output_logits or settings.output_scores or bool(settings.logits_processor)
        if settings.constraint is not None:
            self.follower = settings.constraint.follow(
                self.total,
                tokenizer=self.backbone.tokenizer,
                vocabulary=self.language.num_logits,
                ends=self.eos,
                steps=self.most,
                device=self.language.device,
            )

    def _history(self) -> History | None:
        columns = self.state.batch.length
        call = Call(ends=self.eos, vocabulary=self.language.num_logits, last_step=self.most - 1, prompt=columns)
        self.rules = rules_of(self.settings, call)
        if not needs_history(self.settings) and not self.settings.stops:
            return None
        ids = self.state.batch["input_ids"]
        return History(ids, self.state.text, vocabulary=self.language.num_logits, pad_id=self.pad_id)

    def _ends(self) -> Ends:
        # the end of each prompt: after it the first new token reads as it should
        history = self.context.history
        before = [ids[-4:] for ids in history.rows] if history is not None and self.settings.stops else []
        return Ends(self.settings, self.eos, self.backbone.tokenizer, before, self.follower, self.begin)

    def _streams(self) -> tuple[tuple[int, ...] | None, torch.Tensor | None]:
        """A stream of numbers a row; where no seed is given, one is drawn from torch's own stream."""
        if not self.settings.samples:
            if self.settings.seed is not None:
                raise GenerationError("a seed would have no effect, for decoding is greedy; leave it out, or sample")
            return None, None
        seeds = seeds_of(self.settings.seed, self.total)
        made = [torch.rand(self.most, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return seeds, torch.stack(made).to(self.language.device)

    def _requested(self, index: int) -> Requested:
        """What the pass before step `index` must show."""
        ids = None if self.follower is None or self._whole_head else self.follower.ids(index)
        return Requested(
            hidden=self._hidden is not None and self._hidden.at(index),
            attentions=self._attentions is not None and self._attentions.at(index),
            rows=None if ids is None else self.language.head_rows(ids),
        )

    def _wait(self) -> float:
        """Seconds since the beginning, once the device has done its work."""
        if self.language.device.type == "cuda":
            torch.cuda.synchronize(self.language.device)
        return time.perf_counter() - self.begin

    def go(self) -> Iterator[Step]:
        """The steps, one after the other."""
        last = self.begin
        for index in range(self.most):
            step = self._turn(index)
            now = time.perf_counter()
            step.seconds, last = now - last, now
            yield step
            if self.ends.all_of(self.rows):
                return

    @torch.inference_mode()
    def _turn(self, index: int) -> Step:
        """Let the model read its last tokens, and choose one token a row from its logits."""
        if index:
            self._next(index)
        self.context.step = index
        logits = self._logits(index)
        scores = self._scored(logits)
        column, value = self.choose(scores, index)
        self._chosen = self.context.space.tokens(column)
        return self._judged(index, self._chosen.tolist(), value.tolist(), logits, scores)

    def _logits(self, index: int) -> torch.Tensor:
        """[rows, columns of the space] in fp32; the space is what the constraint leaves, where all rows share it."""
        seen = self.state.seen
        assert seen is not None
        assert seen.logits is not None
        logits, ids = seen.logits.float(), seen.ids
        if ids is None and self.follower is not None and not self._whole_head:
            ids = self.follower.ids(index)  # the logits were there before the constraint was
            logits = logits if ids is None else logits[:, ids]
        self.context.space = Space(ids)
        return logits

    def _scored(self, logits: torch.Tensor) -> torch.Tensor:
        scores, context = logits, self.context
        if self.follower is not None and context.space.ids is None:
            ids = self.follower.ids(context.step)
            if ids is not None:
                scores = torch.full_like(logits, NEVER).index_copy(1, ids, logits[:, ids])
            else:
                mask = self.follower.mask(self.rows)
                scores = logits if mask is None else logits.masked_fill(~mask, NEVER)
        for rule in self.rules:
            scores = rule(scores, context)
        return scores

    def choose(self, scores: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(column, its score) of each row."""
        if self._uniform is None:
            return greedy(scores)
        return drawn(scores, self._uniform[:, index : index + 1])

    def _judged(
        self, index: int, tokens: list[int], values: list[float], logits: torch.Tensor, scores: torch.Tensor
    ) -> Step:
        """The step as it is reported: each row's token, and which rows end."""
        shown, text, live = [self.pad_id] * self.total, [""] * self.total, [False] * self.total
        ended: dict[int, str] = {}
        over = self.ends.time_is_over
        for place, row in enumerate(self.rows):
            if row in self.ends.reasons:
                continue
            token = tokens[place]
            if not math.isfinite(values[place]):
                ended[row] = self._failure(index, row, logits[place])
                continue
            shown[row], live[row] = token, True
            self.tokens[row].append(token)
            reason = self.ends.note(row, token)
            if reason is None and index + 1 == self.most:
                reason = "context" if self._cut_short else "length"
            if reason is None and over:
                reason = "time"
            if reason is not None:
                ended[row] = reason
            if self._writers:
                text[row] = self._writers[row].add(token, last=reason is not None)
        seen = self.state.seen
        step = Step(
            index=index, tokens=shown, text=text, live=live, ended=ended, rows=list(self.rows), logits=logits,
            scores=scores, ids=self.context.space.ids,
            hidden_states=self._kept(seen, "hidden_states", index), attentions=self._kept(seen, "attentions", index),
        )  # fmt: skip
        self._ask(step)
        for row, reason in ended.items():
            self.ends.end(row, reason)
        self._live = live
        return step

    def _kept(self, seen: Any, name: str, index: int) -> tuple[torch.Tensor, ...] | None:
        capture = self._hidden if name == "hidden_states" else self._attentions
        return capture.pick(getattr(seen, name)) if capture is not None and capture.at(index) else None

    def _ask(self, step: Step) -> None:
        """The caller's own word on who ends."""
        if self.settings.stop is None:
            return
        answer = list(self.settings.stop(step))
        if len(answer) != self.total:
            raise GenerationError(f"`stop` gave {len(answer)} answers for {self.total} rows; give one for each row")
        for row, stops in enumerate(answer):
            if stops and step.live[row]:
                step.ended.setdefault(row, "stopped")

    def _failure(self, index: int, row: int, logits: torch.Tensor) -> str:
        broken = not bool(torch.isfinite(logits).all())
        reason = "not a number" if broken else "nothing possible"
        what = "its logits hold NaN or infinity" if broken else "every token is ruled out"
        log.warn(f"row {row} ends at step {index}: {what}; the {len(self.tokens[row])} tokens before it are kept")
        return reason

    def _next(self, index: int) -> None:
        """Let the model read the tokens of the last step."""
        chosen, live = self._chosen, [self._live[row] for row in self.rows]
        if self.context.history is not None:
            self.context.history.add(chosen.tolist(), chosen)
        going = [place for place, row in enumerate(self.rows) if row not in self.ends.reasons]
        if 2 * len(going) <= len(self.rows) and self._may_leave:
            chosen, live = self._leave(going, chosen), [live[place] for place in going]
        real = None if all(live) else torch.tensor(live, device=chosen.device)
        if real is not None:
            chosen = chosen.masked_fill(~real, self.pad_id)
        self.state.step(chosen, live=real, requested=self._requested(index))

    @property
    def _may_leave(self) -> bool:
        """Whether rows may leave the batch: nobody wants to see them, and the cache can be narrowed."""
        given = self.settings
        kept = given.output_logits or given.output_scores or given.keep_state
        fixed = self._hidden is not None or self._attentions is not None or self.state.static_length is not None
        return not kept and not fixed and self.state.cache is not None

    def _leave(self, going: Sequence[int], chosen: torch.Tensor) -> torch.Tensor:
        """Only these rows of the batch go on."""
        places = torch.tensor(list(going), device=chosen.device)
        passes, self.state = self.state.passes, self.state.fork(going)
        self.state.passes = passes
        if self.context.history is not None:
            self.context.history = self.context.history.select(going)
        self._uniform = None if self._uniform is None else self._uniform[places]
        self.rows = [self.rows[place] for place in going]
        return chosen[places]

    def end_state(self) -> DecodeState:
        """Where the call ended, its last tokens known, to be extended."""
        live = torch.tensor([self._live[row] for row in self.rows], device=self._chosen.device)
        self.state.note(self._chosen.masked_fill(~live, self.pad_id), live=None if bool(live.all()) else live)
        return self.state


def seeds_of(seed: int | Sequence[int] | None, rows: int) -> tuple[int, ...]:
    """One seed a row; a single number counts up along the rows."""
    if seed is None:
        return tuple(torch.randint(2**31, (rows,)).tolist())
    if not isinstance(seed, Sequence):
        return tuple(int(seed) + row for row in range(rows))
    if len(seed) != rows:
        raise GenerationError(f"{len(seed)} seeds for {rows} rows; give one for each row, or a single number")
    return tuple(int(one) for one in seed)
