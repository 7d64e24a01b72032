"""A state that is stepped, extended, forked, trimmed and looked at over forty turns, beside plain lists of ids.

The twin keeps every column of every row as an id or as padding, and at the end runs each row's ids once through the
plain model: whatever logits the state gave on its way must be found there.
"""

from __future__ import annotations

import random

import pytest
import torch

from tests.contract.long import long_model
from vertebra.decode.state.prefill import prefill
from vertebra.sequence.tokens import TokenSequence

FAMILIES = ("tiny-llama2", "tiny-mistral", "tiny-gemma3", "tiny-opt", "tiny-gpt2", "tiny-qwen2+window")
PROMPT = ([*range(10, 22)], [*range(30, 35)])
TURNS = 40


class Walk:
    """A state of two rows, and the lists that say what it must hold."""

    def __init__(self, model, seed: int, **options) -> None:
        self.model, self.chance = model, random.Random(seed)
        self.state = prefill(model, [TokenSequence.of(ids) for ids in PROMPT], **options)
        longest = max(map(len, PROMPT))
        self.columns = [[None] * (longest - len(ids)) + ids for ids in PROMPT]
        self.given: list[list[tuple[list[int], torch.Tensor]]] = [[], []]
        self.check(self.state.logits)

    def ids(self, row: int) -> list[int]:
        return [one for one in self.columns[row] if one is not None]

    def check(self, logits: torch.Tensor) -> None:
        """Keep what was said of the rows whose last column is a token."""
        for row, columns in enumerate(self.columns):
            if columns[-1] is not None:
                self.given[row].append((self.ids(row), logits[row].clone()))

    def token(self) -> int:
        return self.chance.randrange(5, 700)

    def step(self, live: list[bool]) -> None:
        tokens = [self.token() if lives else 0 for lives in live]
        logits = self.state.step(torch.tensor(tokens), live=None if all(live) else torch.tensor(live))
        for columns, token, lives in zip(self.columns, tokens, live, strict=True):
            columns.append(token if lives else None)
        self.check(logits)

    def steps(self) -> None:
        """Rows end, and sometimes go on again."""
        for _ in range(self.chance.randint(2, 9)):
            self.step([self.chance.random() < 0.8, True])

    def extend(self) -> None:
        new = [[self.token() for _ in range(self.chance.randint(1, 5))] for _ in self.columns]
        logits = self.state.extend([TokenSequence.of(ids) for ids in new])
        for columns, ids in zip(self.columns, new, strict=True):
            columns.extend([None] * (max(map(len, new)) - len(ids)) + ids)
        self.check(logits)

    def look(self) -> None:
        """Whatever is looked at, the next steps are the same."""
        state = self.state
        assert state.batch["attention_mask"].tolist() == [[int(one is not None) for one in c] for c in self.columns]
        assert state.text.tolist() == [[one is not None for one in columns] for columns in self.columns]
        assert state.layout.next_position.tolist() == [[len(self.ids(row))] for row in range(2)]

    def fork(self) -> None:
        """The fork goes its own way; sometimes it is the one that is kept."""
        other, columns = self.state.fork(), [list(one) for one in self.columns]
        if self.chance.random() < 0.5:
            self.state, other = other, self.state
        other.step(torch.tensor([7, 8]))
        other.extend([TokenSequence.of([9, 10, 11]), TokenSequence.of([12])])
        assert self.columns == columns

    def trim(self) -> None:
        self.state.trim(self.chance.randint(max(12, len(self.columns[0]) - 20), len(self.columns[0])))
        self.columns = [columns[: self.state.batch.length] for columns in self.columns]
        self.check(self.state.refresh())

    def note(self) -> None:
        tokens = [self.token(), self.token()]
        self.state.note(torch.tensor(tokens))
        for columns, token in zip(self.columns, tokens, strict=True):
            columns.append(token)
        self.check(self.state.advance())

    @torch.inference_mode()
    def compare(self) -> None:
        for given in self.given:
            # a trim leaves rows that others do not begin with: each of the longest ones is run once
            runs: list[tuple[list[int], torch.Tensor]] = []
            for ids, logits in sorted(given, key=lambda one: -len(one[0])):
                whole = next((run for run in runs if run[0][: len(ids)] == ids), None)
                if whole is None:
                    whole = ids, self.model.llm(torch.tensor([ids]), use_cache=False).logits[0]
                    runs.append(whole)
                plain = whole[1][len(ids) - 1]
                assert float((plain - logits).abs().max()) <= 2e-5 * float(plain.abs().max()), len(ids)


@pytest.fixture
def small(monkeypatch):
    """Positions are made four steps ahead, so that every answer leaves what was made."""
    monkeypatch.setattr("vertebra.decode.state.decoding.AHEAD", 4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", FAMILIES)
def test_forty_turns(name):
    walk = Walk(long_model(name), seed=1)
    for _ in range(TURNS):
        walk.extend()
        walk.steps()
        getattr(walk, walk.chance.choice(["look", "fork", "trim", "note", "steps"]))()
    walk.look()
    assert len(walk.columns[0]) > 300
    walk.compare()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2"])
def test_forty_turns_in_a_static_cache(name):
    walk = Walk(long_model(name), seed=2, cache="static", max_length=1000)
    for _ in range(TURNS):
        walk.extend()
        walk.steps()
        getattr(walk, walk.chance.choice(["look", "fork", "trim", "note", "steps"]))()
    walk.compare()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [{}, {"cache": "static", "max_length": 900}])
@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma3"])
def test_looking_changes_nothing(name, options):
    """One state is looked at and forked now and then and at the seams, the other let alone."""
    model, prompts = long_model(name), [TokenSequence.of(ids) for ids in PROMPT]
    alone, looked = prefill(model, prompts, **options), prefill(model, prompts, **options)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 700, (80, 2), generator=generator)
    for number, chosen in enumerate(tokens):
        if number % 10 == 0 or number in (3, 4, 5, 7, 8, 9, 63, 64):
            assert looked.batch.length == looked.text.shape[1] == 12 + number
            assert looked.batch["input_ids"][:, 12:].T.tolist() == tokens[:number].tolist()
            twin = looked.fork([1, 0])
            logits = twin.step(chosen.flip(0))
            torch.testing.assert_close(logits.flip(0), alone.step(chosen))
            looked.step(chosen)
            torch.testing.assert_close(looked.logits, alone.logits, atol=0, rtol=0)
        else:
            torch.testing.assert_close(looked.step(chosen), alone.step(chosen), atol=0, rtol=0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", FAMILIES)
def test_back_over_the_seam(name):
    """Trimmed to the middle of what was said and to the middle of the prompt, and on from there; a row pauses often."""
    walk = Walk(long_model(name), seed=3)
    for number in range(60):
        walk.step([True, number % 7 != 6])
    for length in (45, 9):
        walk.state.trim(length)
        walk.columns = [columns[:length] for columns in walk.columns]
        walk.check(walk.state.refresh())
        for _ in range(10):
            walk.step([True, True])
        walk.look()
    walk.compare()
