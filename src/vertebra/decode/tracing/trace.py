"""`trace`: one call of decoding step by step, as it really ran. It keeps what the engine yields; it is no second one.

    prepare inputs ─► embed ─► inject ─► decoder layers ─► norm ─► head ─► rules ─► choose ─► append ─► …

`Trace` is plain data: `trace_text` prints it to a terminal, `trace_html` writes it as one page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from vertebra.decode.asking import ask
from vertebra.decode.call import collect
from vertebra.decode.choose.sampling import Rule
from vertebra.decode.engine import DecodeRun
from vertebra.decode.result import REASONS, Step
from vertebra.decode.settings import DecodeConfig, question_of, settings_of
from vertebra.decode.start import Start, eval_mode, start
from vertebra.decode.tracing.record import Event, PassRecord, Recorder
from vertebra.decode.tracing.sheets import TraceSheet, sheets
from vertebra.errors import GenerationError
from vertebra.model.model import model_of
from vertebra.sequence.roles import Role

TOP = 8
"""Candidates that are listed of each step."""


@dataclass
class Candidate:
    """A token that could have been chosen."""

    id: int
    text: str
    probability: float
    """By the model alone."""
    after: float | None
    """After every rule; None: ruled out."""


@dataclass
class PromptToken:
    """One position of the prompt."""

    id: int
    text: str
    role: str
    segment: str | None
    """Whose outside embedding stands there."""


@dataclass
class StepTrace:
    """One token: the pass that led to it, and how it was chosen."""

    index: int
    passes: list[PassRecord]
    events: list[Event]
    candidates: list[Candidate]
    id: int | None
    """None: nothing could be chosen."""
    text: str
    probability: float
    how: str
    ended: str | None
    seconds: float
    """What was done took so long; looking on is not counted."""


@dataclass
class Trace:
    """A whole call, for one row."""

    model: str
    facts: dict[str, str]
    prompt: list[PromptToken]
    settings: str
    steps: list[StepTrace]
    text: str
    stop_reason: str
    stop_means: str
    total_seconds: float
    tokens: list[int] = field(default_factory=list)
    pages: list[TraceSheet] = field(default_factory=list)
    """Of a row with lines of pages."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def trace(
    model: Any, prompt: Any = None, settings: DecodeConfig | None = None, *, row: int = 0, **options: Any
) -> Trace:
    """Decode with our engine and report what happened, of one row. Takes what `generate` takes."""
    question, options = question_of(options)
    config = settings_of(settings, **options)
    if config.hf or config.compile:
        what = ", ".join(config.hf) or "compile"
        raise GenerationError(f"{what}: a trace shows our own engine, uncompiled; leave it out")
    asked = ask(model_of(model), prompt, question)
    with eval_mode(asked.model):
        begun = start(asked.model, asked.prompt, config)
        if not 0 <= row < begun.batch.rows:
            raise GenerationError(f"row {row} of a batch of {begun.batch.rows} rows")
        recorder = Recorder(row)
        steps: list[StepTrace] = []
        with recorder.hooks(begun.model.backbone):
            run = _Traced(recorder.watched(begun), config, recorder)
            result = collect(run, run.recorded(steps))
    reason = result.stop_reason[row]
    return Trace(
        model=begun.model.backbone.name,
        facts=_facts(begun),
        prompt=_prompt(begun, row),
        settings=_settings(config),
        steps=steps,
        text=result.text[row],
        stop_reason=reason,
        stop_means=REASONS[reason],
        total_seconds=result.timings.total,
        tokens=result.tokens[row],
        pages=sheets(begun.model, begun.batch, row, begun.model.backbone.tokenizer),
    )


class _Traced(DecodeRun):
    """A run whose choices are noted too."""

    def __init__(self, begun: Start, settings: DecodeConfig, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__(begun, settings)
        self._columns = begun.batch.length
        self.rules = [self._noted(rule) for rule in self.rules]

    @property
    def _may_leave(self) -> bool:
        return False  # rows stay, so that the one that is looked at keeps its place

    def _noted(self, rule: Rule) -> Rule:
        name = _rule_name(rule)

        def noted(scores: torch.Tensor, context: Any) -> torch.Tensor:
            self._recorder.lap()
            before, changed = _possible(scores, self._recorder.row), rule(scores, context)
            after = _possible(changed, self._recorder.row)
            detail = f"{before} possible tokens, {after} after it" if before != after else "scores changed"
            self._recorder.lap(name, detail)
            return changed

        return noted

    def choose(self, scores: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._recorder.lap()
        chosen = super().choose(scores, index)
        self._recorder.lap("choose", self._how(index))
        return chosen

    def _how(self, index: int) -> str:
        if self._uniform is None:
            return "greedy: the highest score"
        return f"drawn with the number {float(self._uniform[self._recorder.row, index]):.4f}"

    def recorded(self, steps: list[StepTrace]) -> Any:
        """The steps, each noted before it is handed on."""
        seen = 0
        for step in self.go():
            row = self._recorder.row
            if not step.live[row] and step.ended.get(row) is None:
                yield step  # others go on
                continue
            where = self._columns + step.index
            self._recorder.lap("append", f"column {where} of the row" + self._ending(step))
            passes, seen = self._recorder.passes[seen:], len(self._recorder.passes)
            steps.append(self._traced(step, passes))
            yield step
            self._recorder.lap()

    def _ending(self, step: Step) -> str:
        reason = step.ended.get(self._recorder.row)
        return f"; the row ends: {REASONS[reason]}" if reason else ""

    def _traced(self, step: Step, passes: list[PassRecord]) -> StepTrace:
        row, tokenizer = self._recorder.row, self.backbone.tokenizer
        raw, scores = step.logits[row].softmax(-1), step.scores[row].softmax(-1)
        token = step.tokens[row] if step.live[row] else None
        columns = raw.topk(min(TOP, len(raw))).indices.tolist()
        ids = list(range(len(raw))) if step.ids is None else step.ids.tolist()
        if token is not None and ids.index(token) not in columns:
            columns[-1] = ids.index(token)
        candidates = [
            Candidate(
                id=ids[column],
                text=shown(tokenizer, ids[column]),
                probability=float(raw[column]),
                after=float(scores[column]) if float(scores[column]) > 0 else None,
            )
            for column in columns
        ]
        events = self._recorder.take()
        return StepTrace(
            index=step.index,
            passes=passes,
            events=events,
            candidates=candidates,
            id=token,
            text="" if token is None else shown(tokenizer, token),
            probability=0.0 if token is None else float(raw[ids.index(token)]),
            how=self._how(step.index),
            ended=step.ended.get(row),
            seconds=sum(event.seconds for event in events),
        )


def _rule_name(rule: Callable[..., Any]) -> str:
    """`top_k` of the closure that `top_k(5)` made."""
    return rule.__qualname__.partition(".<locals>")[0]


def _possible(scores: torch.Tensor, row: int) -> int:
    return int(torch.isfinite(scores[row]).sum())


def shown(tokenizer: Any, token: int) -> str:
    """A token as a person can see it: blanks and line ends made visible."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if piece.startswith("▁") and not text.startswith(" "):
        text = " " + text  # decoded alone, a token loses the blank before it
    elif not text or "\ufffd" in text:
        text = piece
    text = text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)


def _prompt(begun: Start, row: int) -> list[PromptToken]:
    batch, tokenizer = begun.batch, begun.model.backbone.tokenizer
    tokens = []
    real = batch["attention_mask"][row].bool()
    for id_, role, (segment, _) in zip(
        batch["input_ids"][row, real].tolist(), batch["role"][row, real].tolist(), batch["slot"][row, real].tolist(),
        strict=True,
    ):  # fmt: skip
        name = batch["segments"][segment] if segment >= 0 else None
        tokens.append(PromptToken(id_, shown(tokenizer, id_), Role(role).name.lower(), name))
    return tokens


def _facts(begun: Start) -> dict[str, str]:
    language, config = begun.language, begun.language.llm.config
    window = language.facts.window if language.facts.windowed else None
    return {
        "class": type(language.llm).__name__,
        "layers": str(config.num_hidden_layers),
        "width": str(config.hidden_size),
        "vocabulary": f"{language.num_logits} rows of the head",
        "attention": language.facts.kernel + (f", windows of {window} positions" if window else ""),
        "numbers": f"{str(language.dtype).removeprefix('torch.')} on {language.device}",
        "positions": "no limit known" if language.limit is None else f"at most {language.limit}",
    }


def _settings(settings: DecodeConfig) -> str:
    """What differs from the defaults."""
    text = ", ".join(f"{name}={getattr(settings, name)!r:.60}" for name in settings.differing)
    return text or "defaults: greedy, to an end id or 256 tokens"
