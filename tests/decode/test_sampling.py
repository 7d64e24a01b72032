"""Every rule beside the processor of transformers that has its name; drawing beside its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import generation as hf

from vertebra.decode.choose.history import History
from vertebra.decode.choose.sampling import (
    NEVER,
    Call,
    Context,
    Space,
    banned,
    cutoff,
    decay,
    drawn,
    forced,
    greedy,
    min_p,
    no_repeat_ngram,
    repetition_penalty,
    rules_of,
    sequence_bias,
    top_h,
    top_k,
    top_p,
    typical_p,
)
from vertebra.decode.settings import DecodeConfig

V = 23
quick = hypothesis_settings(max_examples=40, deadline=None)


def context_of(ids: torch.Tensor, step: int = 0, text: torch.Tensor | None = None) -> Context:
    text = torch.ones_like(ids, dtype=torch.bool) if text is None else text
    return Context(History(ids, text, vocabulary=V, pad_id=0), Space(), step)


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal, infinities in the same places."""
    assert torch.equal(torch.isinf(ours), torch.isinf(theirs))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@st.composite
def cases(draw):
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    scores = torch.randn(rows, V, generator=generator) * draw(st.sampled_from([0.3, 3.0, 30.0]))
    if draw(st.booleans()):  # ties, as a real head in bf16 has them
        scores = scores.round()
    return scores, torch.randint(0, 6, (rows, length), generator=generator)


@given(cases(), st.integers(1, V + 3))
@quick
def test_top_k(case, k):
    scores, ids = case
    same(top_k(k)(scores, context_of(ids)), hf.TopKLogitsWarper(k)(ids, scores))


@given(cases(), st.floats(0.05, 0.99))
@quick
def test_top_p(case, p):
    """The same scores stay; which of equals they belong to is left open there, and with us it is the later ones."""
    scores, ids = case
    ours, theirs = top_p(p)(scores, context_of(ids)), hf.TopPLogitsWarper(p)(ids, scores)
    same(ours.sort().values, theirs.sort().values)
    for before, after in zip(scores.tolist(), ours.tolist(), strict=True):
        for one in range(V):
            gone = [after[other] == NEVER for other in range(one, V) if before[other] == before[one]]
            assert gone == sorted(gone, reverse=True)


@given(cases(), st.floats(0.01, 0.9))
@quick
def test_min_p(case, p):
    scores, ids = case
    same(min_p(p)(scores, context_of(ids)), hf.MinPLogitsWarper(p)(ids, scores))


@given(cases(), st.floats(0.05, 0.99))
@quick
def test_typical_p_top_h_and_the_cutoffs(case, p):
    scores, ids = case
    scores[:, 1] = NEVER  # ruled out before
    for ours, theirs in (
        (typical_p(p), hf.TypicalLogitsWarper(p)),
        (top_h(p), hf.TopHLogitsWarper(p)),
        (cutoff(p / 3), hf.EpsilonLogitsWarper(p / 3)),
        (cutoff(p / 3, by_entropy=True), hf.EtaLogitsWarper(p / 3)),
    ):
        same(ours(scores, context_of(ids)), theirs(ids, scores))


@given(cases(), st.integers(0, 3), st.sampled_from([0.5, 1.0, 1.7]), st.integers(0, 5))
@quick
def test_decay_of_length(case, start, factor, step):
    scores, ids = case
    scores[:, 1] = NEVER
    theirs = hf.ExponentialDecayLengthPenalty((start, factor), torch.tensor([1, 4]), ids.shape[1] - step)(ids, scores)
    same(decay(start, factor, [1, 4], V)(scores, context_of(ids, step=step)), theirs)


@given(cases(), st.sampled_from([0.5, 1.3, 2.0]))
@quick
def test_repetition_penalty(case, penalty):
    scores, ids = case
    theirs = hf.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    same(repetition_penalty(penalty)(scores, context_of(ids)), theirs)


@given(cases(), st.integers(1, 4))
@quick
def test_no_repeat_ngram(case, size):
    scores, ids = case
    same(no_repeat_ngram(size)(scores, context_of(ids)), hf.NoRepeatNGramLogitsProcessor(size)(ids, scores))


@given(
    cases(),
    st.dictionaries(st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple), st.floats(-5, 5), max_size=4),
)
@quick
def test_sequence_bias(case, biases):
    """Where the library looks: it passes over sequences that are longer than the row, though their beginning may fit."""
    scores, ids = case
    biases = {sequence: bias for sequence, bias in biases.items() if len(sequence) <= ids.shape[1]}
    if biases:
        theirs = hf.SequenceBiasLogitsProcessor(sequence_bias=dict(biases))(ids, scores)
        same(sequence_bias(biases)(scores, context_of(ids)), theirs)


def test_a_bias_at_the_beginning_of_a_row():
    changed = sequence_bias({(2, 0): 1.0})(torch.zeros(1, V), context_of(torch.tensor([[2]])))
    assert changed.nonzero().tolist() == [[0, 0]]


def test_bans_and_forced_ids():
    scores = torch.randn(2, V)
    ids = torch.zeros(2, 3, dtype=torch.long)
    rule = banned([3, 5], V, until=2)
    assert torch.isinf(rule(scores, context_of(ids, step=1))[:, [3, 5]]).all()
    assert torch.equal(rule(scores, context_of(ids, step=2)), scores)
    rule = forced([7, 8], V, at=4)
    assert rule(scores, context_of(ids, step=4)).isfinite().nonzero()[:, 1].tolist() == [7, 8, 7, 8]
    assert torch.equal(rule(scores, context_of(ids, step=3)), scores)


def test_a_penalty_never_counts_slots_or_padding():
    """Slots hold the id of a reserved token, padding the pad id: nobody said them."""
    ids = torch.tensor([[0, 9, 9, 4]])
    text = torch.tensor([[False, False, True, True]])
    scores = torch.ones(1, V)
    changed = repetition_penalty(2.0)(scores, context_of(ids, text=text))
    assert (changed != 1).nonzero()[:, 1].tolist() == [4, 9]
    text[0, 2] = False
    changed = repetition_penalty(2.0)(scores, context_of(ids, text=text))
    assert (changed != 1).nonzero()[:, 1].tolist() == [4]


def tied(*values: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One row of these scores over and over, after one id."""
    scores = torch.tensor([(values * V)[:V]])
    return scores, torch.zeros(1, 1, dtype=torch.long)


@given(cases(), st.lists(st.integers(0, V - 1), min_size=1, max_size=8, unique=True))
@example(tied(0.0, -0.0), list(range(8)))
@example(tied(-0.0, 0.0, 0.0), [1, 3, 4, 7, 11, 15, 19, 22])
@example(tied(-0.0, 1.0, 0.0, 1.0), [0, 1, 2, 5, 6, 9, 10, 13])
@quick
def test_a_space_of_few_ids_is_the_same_distribution(case, allowed):
    """The rules on a few columns give what they give on all columns with the others ruled out, ties and signed zeros too."""
    scores, ids = case
    allowed = torch.tensor(sorted(allowed))
    settings = DecodeConfig(
        repetition_penalty=1.3, temperature=0.8, top_k=5, top_p=0.8, no_repeat_ngram_size=2, suppress_tokens=(2,)
    )
    rules = rules_of(settings, Call(ends=(), vocabulary=V, last_step=9, prompt=1))
    whole = torch.full_like(scores, NEVER).index_copy(1, allowed, scores[:, allowed])
    part = scores[:, allowed]
    wide = context_of(ids)
    narrow = Context(wide.history, Space(allowed), 0)
    for rule in rules:
        whole, part = rule(whole, wide), rule(part, narrow)
    same(part, whole[:, allowed])


def test_the_order_is_that_of_transformers():
    """All of them at once, beside the list that `generate` would make."""
    ids = torch.tensor([[1, 2, 3, 1, 2], [4, 4, 5, 6, 7]])
    scores = torch.randn(2, V, generator=torch.Generator().manual_seed(0)) * 3
    settings = DecodeConfig(
        sequence_bias={(2,): 4.0, (1, 2, 3): 2.0}, repetition_penalty=1.4, no_repeat_ngram_size=3,
        bad_words_ids=[[7], [2, 9]], min_new_tokens=3, suppress_tokens=(11,), begin_suppress_tokens=(12,),
        temperature=0.6, top_h=0.9, top_k=9, top_p=0.9, min_p=0.05, typical_p=0.9, epsilon_cutoff=0.01,
        eta_cutoff=0.02, renormalize_logits=True,
    )  # fmt: skip
    rules = rules_of(settings, Call(ends=(8,), vocabulary=V, last_step=50, prompt=5))
    ours = scores
    for rule in rules:
        ours = rule(ours, context_of(ids))
    theirs = hf.LogitsProcessorList(
        [
            hf.SequenceBiasLogitsProcessor(sequence_bias=dict(settings.sequence_bias)),
            hf.RepetitionPenaltyLogitsProcessor(1.4),
            hf.NoRepeatNGramLogitsProcessor(3),
            hf.NoBadWordsLogitsProcessor([[7], [2, 9]], eos_token_id=torch.tensor([8])),
            hf.MinNewTokensLengthLogitsProcessor(5, 3, torch.tensor([8])),
            hf.SuppressTokensLogitsProcessor([11]),
            hf.SuppressTokensAtBeginLogitsProcessor([12], 5),
            hf.TemperatureLogitsWarper(0.6),
            hf.TopHLogitsWarper(0.9),
            hf.TopKLogitsWarper(9),
            hf.TopPLogitsWarper(0.9),
            hf.MinPLogitsWarper(0.05),
            hf.TypicalLogitsWarper(0.9),
            hf.EpsilonLogitsWarper(0.01),
            hf.EtaLogitsWarper(0.02),
            hf.LogitNormalization(),
        ]
    )(ids, scores)
    same(ours, theirs)


@given(cases(), st.floats(0, 0.9999999403953552, width=32))
@quick
def test_drawing(case, number):
    """The column at which the running sum passes the number; one with probability zero never."""
    scores, _ = case
    scores[:, ::3] = NEVER
    column, value = drawn(scores, torch.full((len(scores), 1), number))
    weights = scores.softmax(-1).double()
    for row in range(len(scores)):
        running, expected = 0.0, None
        for token, weight in enumerate(weights[row].tolist()):
            running += weight
            if running > float(torch.tensor(number)) * float(weights[row].sum()):
                expected = token
                break
        assert int(column[row]) == expected or abs(running - number) < 1e-9
        assert torch.isfinite(value[row])
        assert weights[row, column[row]] > 0


@given(cases(), st.integers(0, 99))
@quick
def test_of_the_same_logits_a_row_draws_the_same_alone_and_in_any_batch(case, seed):
    """Bit for bit, through every rule; a stream's numbers do not depend on how many are drawn of it."""
    scores, ids = case
    settings = DecodeConfig(
        repetition_penalty=1.3, temperature=0.8, top_k=9, top_p=0.8, min_p=0.02, no_repeat_ngram_size=2
    )
    rules = rules_of(settings, Call(ends=(), vocabulary=V, last_step=9, prompt=1))
    numbers = torch.rand(len(scores), 1, generator=torch.Generator().manual_seed(seed))

    def draw(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        made, context = scores[rows], context_of(ids[rows])
        for rule in rules:
            made = rule(made, context)
        return drawn(made, numbers[rows])

    together = draw(slice(None))
    for row in range(len(scores)):
        alone = draw(slice(row, row + 1))
        assert torch.equal(alone[0], together[0][row : row + 1])
        assert torch.equal(alone[1], together[1][row : row + 1])
    few, many = (torch.rand(count, generator=torch.Generator().manual_seed(seed)) for count in (5, 300))
    assert torch.equal(few, many[:5])


def test_drawing_gives_the_distribution():
    """2000 numbers of one stream, counted."""
    scores = torch.tensor([[0.0, 1.0, NEVER, 2.0, -1.0]])
    numbers = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    columns = torch.stack([drawn(scores, number.view(1, 1))[0] for number in numbers]).flatten()
    shares = columns.bincount(minlength=5) / 2000
    assert (shares - scores.softmax(-1)[0]).abs().max() < 0.03


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_shows(bad):
    scores = torch.zeros(2, 4)
    scores[1, 2] = bad
    number = torch.full((2, 1), 0.1)
    assert torch.isfinite(greedy(scores)[1]).tolist() == [True, False]
    assert torch.isfinite(drawn(scores, number)[1]).tolist() == [True, False]
    nothing = torch.full((1, 4), NEVER)
    assert not torch.isfinite(greedy(nothing)[1]).any()
    assert not torch.isfinite(drawn(nothing, number[:1])[1]).any()
