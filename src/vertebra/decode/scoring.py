"""`score`: how likely each of several answers is after a prompt, the prompt being computed once.

    prompt ─► state ─┬─► fork, candidate 0     one pass over a candidate's ids, all candidates of a row side by side
                     ├─► fork, candidate 1
                     └─► …                     log P(candidate | prompt) = Σ log P(id | what is before it)

It knows ids and text as continuations of a prompt; how a prompt and its answer are written is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from vertebra.decode.allowed import COUNT
from vertebra.decode.asking import AskedPrompt, ask
from vertebra.decode.settings import about_prompt
from vertebra.decode.start import eval_mode
from vertebra.decode.state.decoding import DecodeState, Pass
from vertebra.decode.state.language import Requested
from vertebra.decode.state.prefill import prefill
from vertebra.decode.state.ready import ready
from vertebra.errors import GenerationError, SequenceError
from vertebra.model.model import model_of
from vertebra.prompt.tokenizer import tokenizer_of
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence

Candidate = str | Sequence[int] | TokenSequence


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scores:
    """What each candidate of each row is worth. Rows may have different numbers of candidates.

    Printed, it is the candidates of each row by their share, from the likeliest on.
    """

    tokens: list[list[list[int]]]
    """[rows][candidates]: its ids."""
    log_probs: list[list[list[float]]]
    """[rows][candidates]: log P of each id, given all before it."""
    passes: tuple[Pass, ...]
    tokenizer: Any = None

    @cached_property
    def text(self) -> list[list[str]]:
        """[rows][candidates]: as text."""
        return [[self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in row] for row in self.tokens]

    def __str__(self) -> str:
        rows = [sorted(zip(*row, strict=True), reverse=True) for row in zip(self.probability, self.text, strict=True)]
        return "\n\n".join("\n".join(f"{share:6.1%}  {text.strip()}" for share, text in row) for row in rows)

    __repr__ = __str__

    @cached_property
    def total(self) -> list[list[float]]:
        """log P of each candidate."""
        return [[sum(values) for values in row] for row in self.log_probs]

    @cached_property
    def per_token(self) -> list[list[float]]:
        """The same by the number of ids, so that long answers are not punished for their length."""
        return [[sum(values) / len(values) for values in row] for row in self.log_probs]

    @cached_property
    def probability(self) -> list[list[float]]:
        """Each candidate among its row's candidates: they sum to 1."""
        return [torch.tensor(row, dtype=torch.float64).softmax(0).tolist() for row in self.total]

    @property
    def best(self) -> list[int]:
        """The likeliest candidate of each row."""
        return [max(range(len(row)), key=row.__getitem__) for row in self.total]


def score(
    model: Any,
    prompt: Any,
    candidates: Sequence[Candidate] | Sequence[Sequence[Candidate]],
    *,
    rows_at_once: int = 32,
    chunk: int | None = None,
    **options: Any,
) -> Scores:
    """The log-likelihood of each candidate answer.

    `prompt` and `options`: as for `generate`. `candidates`: the same for every row, or a list a row; each is text,
    ids, or a `TokenSequence` without slots. Text is cut as training would cut it after a text or a conversation, and by
    itself after anything else; it never yields a control token. `rows_at_once`: candidates computed in one pass.
    """
    if not COUNT.admits(rows_at_once):
        raise GenerationError(f"rows_at_once is {rows_at_once!r:.60}; expected {COUNT.expected}")
    asked = ask(model_of(model), prompt, about_prompt(options))
    with eval_mode(asked.model):
        state = asked.prompt if isinstance(asked.prompt, DecodeState) else None
        prompt = state or ready(asked.model, asked.prompt)
        # what is wrong with the candidates is found out before the prompt is computed
        expected = _read(candidates, prompt.batch.rows, asked, prompt.language.num_logits)
        if state is None:
            state = prefill(asked.model, prompt.batch, chunk=chunk)
        if state.logits is None:
            state = state.fork()
            state.refresh()
        return _scored(state, expected, rows_at_once)


def _read(candidates: Any, rows: int, asked: AskedPrompt, vocabulary: int) -> list[list[list[int]]]:
    """Ids of every candidate of every row."""
    if isinstance(candidates, str) or not isinstance(candidates, Sequence) or not candidates:
        raise GenerationError(
            f"candidates are {candidates!r:.60}; expected a list of answers, or such a list for each row"
        )
    nested = all(_is_list_of_candidates(one) for one in candidates)
    lists = [one for one in candidates if isinstance(one, Sequence) and not isinstance(one, str | TokenSequence)]
    if not nested and (wrong := next((one for one in lists if not _are_ids(one)), None)) is not None:
        raise GenerationError(
            f"candidates hold {wrong!r:.60}; expected answers alone, or a list of them, none empty, for each row"
        )
    if nested and len(candidates) != rows:
        raise GenerationError(f"{len(candidates)} lists of candidates for {rows} rows; give one for each row")
    per_row = candidates if nested else [candidates] * rows
    read: list[list[list[int]]] = []
    for number, row in enumerate(per_row):
        ids = [_ids(asked.answer(number, one), asked.model.tokenizer) for one in row]
        for place, one in enumerate(ids):
            where = f"candidate {place}" + (f" of row {number}" if nested else "")
            if not one:
                raise GenerationError(f"{where} is empty; nothing has no likelihood")
            wrong = [item for item in one if not 0 <= item < vocabulary]
            if wrong:
                raise GenerationError(f"{where} holds {wrong[0]}; the head has the ids 0 to {vocabulary - 1}")
        read.append(ids)
    return read


def _is_list_of_candidates(one: Any) -> bool:
    """A list of answers, as opposed to one answer that is a list of ids."""
    if isinstance(one, str | TokenSequence) or not isinstance(one, Sequence) or not one:
        return False
    return all(isinstance(item, str | Sequence | TokenSequence) for item in one)


def _ids(candidate: Any, tokenizer: Any) -> list[int]:
    if isinstance(candidate, str):
        (encoded,) = tokenizer_of(tokenizer).encode([candidate], [[(0, len(candidate))]])
        return encoded.ids.tolist()
    if isinstance(candidate, TokenSequence):
        if bool((candidate.slot[:, 0] >= 0).any()):
            raise SequenceError("a candidate with slots has no likelihood: outside embeddings are not predicted")
        return candidate.ids.tolist()
    if not hasattr(candidate, "__iter__") or not _are_ids(candidate):
        raise GenerationError(f"a candidate is {candidate!r:.60}; expected text, ids, or a TokenSequence")
    return [int(item) for item in candidate]


def _are_ids(given: Any) -> bool:
    """Whole numbers, of any library; an empty list is none, and has words of its own."""
    return all(hasattr(item, "__index__") for item in given) and not isinstance(given, str)


def _scored(state: DecodeState, expected: list[list[list[int]]], rows_at_once: int) -> Scores:
    passes = list(state.passes)
    assert state.logits is not None
    first = state.logits.float().log_softmax(-1)
    # the first id of every candidate is predicted by the prompt alone
    found = {
        (row, place): [float(first[row, ids[0]])]
        for row, every in enumerate(expected)
        for place, ids in enumerate(every)
    }
    # like with like, so that little is padding; of a candidate's last id nothing needs to be predicted
    longer = [key for key in found if len(expected[key[0]][key[1]]) > 1]
    longer.sort(key=lambda key: len(expected[key[0]][key[1]]))
    for start in range(0, len(longer), rows_at_once):
        keys = longer[start : start + rows_at_once]
        ids = [expected[row][place] for row, place in keys]
        for key, values in zip(keys, _continued(state, [row for row, _ in keys], ids, passes), strict=True):
            found[key] += values
    log_probs = [[found[row, place] for place in range(len(every))] for row, every in enumerate(expected)]
    return Scores(tokens=expected, log_probs=log_probs, passes=tuple(passes), tokenizer=state.model.tokenizer)


@torch.inference_mode()
def _continued(state: DecodeState, rows: list[int], ids: list[list[int]], passes: list[Pass]) -> list[list[float]]:
    """log P of every id but the first, in one pass over all of these candidates."""
    fork = state.fork(rows)
    longest = max(map(len, ids)) - 1
    # rows are padded to the left, so that the columns that predict end together
    columns = torch.arange(longest, device=state.language.device).expand(len(ids), -1)
    sequences = [TokenSequence.of(one[:-1], role=Role.ASSISTANT) for one in ids]
    logits = fork.extend(sequences, requested=Requested(columns=columns))
    passes += fork.passes
    logs = logits.float().log_softmax(-1)
    values = []
    for place, one in enumerate(ids):
        targets = torch.tensor(one[1:], device=logs.device)
        values.append(logs[place, longest - len(targets) :].gather(-1, targets[:, None])[:, 0].tolist())
    return values
