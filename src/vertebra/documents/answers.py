"""Answers of a model with how likely each of their tokens was: fields side by side, after a page that is computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vertebra.decode.call import stream
from vertebra.decode.choose.constraint import Constraint
from vertebra.decode.choose.copying import each
from vertebra.decode.choose.text import Detokenizer
from vertebra.decode.prefilled import Prefilled
from vertebra.decode.start import eval_mode
from vertebra.layout.rows import PageRow
from vertebra.model.model import Model


@dataclass
class Answer:
    """One row's text, its tokens' log-probabilities, and where in the text each token ends."""

    text: str = ""
    logs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    reason: str = ""

    @property
    def whole(self) -> bool:
        """Whether it ended by itself."""
        return self.reason in ("eos", "constraint")

    def probability(self, start: int = 0, end: int | None = None) -> float:
        """Of the tokens that write these characters, the one that ends the answer among the last; 1 of none."""
        last = len(self.text) if end is None else end
        begins = [0, *self.ends]
        total = sum(
            log
            for log, begin, stop in zip(self.logs, begins, self.ends, strict=False)
            if (begin < last and stop > start) or (begin == stop == len(self.text) == last)
        )
        return math.exp(min(total, 0.0))


class ReadWindow:
    """A window of a document that a model has read, ready for questions."""

    def __init__(self, model: Model, rows: Sequence[PageRow]) -> None:
        """`rows`: the questions, all about the same lines."""
        self.model = model
        self.rows = [(row.sequence, model.prepare(row.items)) for row in rows]
        with eval_mode(model):
            self.page = Prefilled(model, *self.rows[0], upto=min(rows[0].head, len(rows[0].sequence) - 1))

    def ask(
        self, which: Sequence[int], constraints: Sequence[Constraint], *, tokens: int, seconds: float | None = None
    ) -> list[Answer]:
        """The answers to some of the questions, each inside of its constraint."""
        with eval_mode(self.model):
            state = self.page.begin([self.rows[number] for number in which])
            found = [Answer() for _ in which]
            writers = [Detokenizer(self.model.tokenizer) for _ in which]
            ends: set[int] = set(self.model.backbone.eos_token_ids)
            options: dict[str, Any] = {} if seconds is None else {"max_time": max(seconds, 1e-3)}
            for step in stream(self.model, state, max_new_tokens=tokens, constraint=each(constraints), **options):
                logs = _logs(step.logits, [step.tokens[row] for row in step.rows])
                for place, row in enumerate(step.rows):
                    if step.live[row]:
                        answer, token = found[row], step.tokens[row]
                        answer.logs.append(logs[place])
                        if token not in ends:
                            writers[row].add(token)
                        answer.ends.append(len(writers[row].text))
                for row, reason in step.ended.items():
                    found[row].reason = reason
        for answer, writer in zip(found, writers, strict=True):
            writer.finish()
            answer.text = writer.text
            if answer.ends and answer.whole:
                answer.ends[-1] = len(writer.text)
        return found


def _logs(logits: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """log P of each row's token among all tokens, before any constraint."""
    chosen = logits.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    return (chosen.float() - logits.float().logsumexp(-1)).tolist()
