"""Masks: whole words, the right share, never a special token, targets where they belong, seeded by epoch and sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.encode.encoders import TextEncoder, WordEncoder
from vertebra.data.encode.masks import Masked, Masking, choose, mask_id, masked_blocks
from vertebra.data.encode.prepare import prepare
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import Shuffled
from vertebra.errors import ConfigError, DataError, VocabularyError

from ..tokenizers import tokenizer_of

TEXTS = [
    f"The unhappily returning travellers number {i} misunderstood everything, (nearly) all of it." for i in range(60)
]


def with_mask(name: str):
    """A tokenizer that has a mask token, by nature or because one was added."""
    tokenizer = tokenizer_of(name)
    if tokenizer.mask_token is None:
        import copy

        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return tokenizer


def table_of_words(tokenizer):
    return prepare(TEXTS, WordEncoder(tokenizer), cache=False)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    rate=st.floats(0.01, 1.0),
    masked=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_words_are_chosen_whole_and_share_a_fate(sizes, rate, masked, seed):
    word = np.repeat(np.arange(len(sizes)), sizes)
    masking = Masking(rate=rate, masked=masked, randomized=(1 - masked) / 2)
    chosen, fate = choose(word, masking, np.random.default_rng(seed))
    for number in range(len(sizes)):
        assert len(set(fate[word == number].tolist())) == 1
    assert ((fate >= 0) == chosen).all()
    assert chosen.any()
    reached = int(chosen.sum())
    # Never more than one word beyond the share, and never a whole word short of it.
    assert reached < rate * len(word) + max(sizes) + 1
    assert reached > rate * len(word) - max(sizes) - 1


def test_the_shares_are_right_on_average():
    rng = np.random.default_rng(0)
    word = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    fates = np.concatenate([choose(word, Masking(), np.random.default_rng([1, i]))[1] for i in range(3000)])
    chosen = fates >= 0
    assert chosen.mean() == pytest.approx(0.15, abs=0.002)
    shares = [(fates[chosen] == kind).mean() for kind in range(3)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gemma2", "tiny-llama2"])
@pytest.mark.parametrize("blocks", [True, False])
def test_a_masked_sample_in_every_respect(name, blocks):
    tokenizer = with_mask(name)
    table = table_of_words(tokenizer)
    masked = masked_blocks(table, tokenizer, size=48) if blocks else Masked(table, tokenizer)
    before, after = len(masked.before), len(masked.after)
    added = set(tokenizer.get_added_vocab().values())
    seen: list[int] = []
    for index in range(len(masked)):
        sequence = masked.sequence(index)
        inner = slice(before, len(sequence) - after)
        assert masked.lengths[index] == len(sequence) <= (48 if blocks else 512)
        assert sequence.target[inner].tolist() == masked.samples.vectors(index)["ids"].tolist()
        assert sequence.ids[:before].tolist() == masked.before.tolist()
        assert sequence.ids[len(sequence) - after :].tolist() == masked.after.tolist()
        assert not added & set(sequence.target[inner].tolist())
        kept = sequence.weight == 0
        assert (sequence.ids[kept] == sequence.target[kept]).all()
        assert set(sequence.ids[~kept].tolist()) & added <= {masked.mask_id}
        assert (sequence.weight[:before] == 0).all()
        assert (sequence.weight[len(sequence) - after :] == 0).all()
        assert sequence.supervised > 0
        assert (sequence.block == 1).all()
        words = masked.samples.words(index)
        for number in np.unique(words):
            assert len(set(sequence.weight[inner][words == number].tolist())) == 1
        seen += sequence.target[inner].tolist()
    whole = [token for text in TEXTS for token in tokenizer(text, add_special_tokens=False).input_ids]
    assert seen == whole


def test_words_of_different_texts_are_never_one():
    """The second text's first word has number 0 again; in a block the two must not become one word."""
    tokenizer = tokenizer_of("tiny-bert")
    table = prepare(["a", "b", "c d"], WordEncoder(tokenizer), cache=False)
    blocks = masked_blocks(table, tokenizer, size=8).samples
    assert blocks.words(0).tolist() == [0, 1, 2, 3]


def test_weights_of_texts_reach_their_masks(bert):
    texts = [{"text": "a b c d", "weight": 3}, {"text": "e f g h"}]
    table = prepare(texts, WordEncoder(bert), cache=False)
    masking = Masking(rate=1.0)
    assert [set(Masked(table, bert, masking).vectors(i)["weight"][1:-1].tolist()) for i in (0, 1)] == [{3.0}, {1.0}]
    block = masked_blocks(table, bert, size=16, masking=masking).vectors(0)["weight"]
    assert block.tolist() == [0, 3, 3, 3, 3, 1, 1, 1, 1, 0]


def test_epochs_differ_unless_the_mask_is_fixed(bert):
    table = table_of_words(bert)
    dynamic, fixed = (
        masked_blocks(table, bert, size=64),
        masked_blocks(table, bert, size=64, masking=Masking(fixed=True)),
    )

    def masks(samples, epoch):
        return [samples.vectors(index, epoch)["weight"].tolist() for index in range(len(samples))]

    assert masks(dynamic, 0) != masks(dynamic, 1)
    assert masks(dynamic, 1) == masks(masked_blocks(table, bert, size=64), 1)
    assert masks(fixed, 0) == masks(fixed, 1) == masks(dynamic, 0)
    assert masks(masked_blocks(table, bert, size=64, masking=Masking(seed=1)), 0) != masks(dynamic, 0)


def test_epochs_differ_through_loader_and_workers(bert):
    samples = masked_blocks(table_of_words(bert), bert, size=32)
    plain = Loader(samples, Shuffled(4), Collator(0), pin_memory=False, shift=False)
    busy = Loader(samples, Shuffled(4), Collator(0), pin_memory=False, shift=False, workers=1)
    first, second = ([batch.weights.sum(1).tolist() for batch in plain] for _ in range(2))
    assert first != second
    assert [[batch.weights.sum(1).tolist() for batch in busy] for _ in range(2)] == [first, second]


def test_tokens_one_by_one_on_request(bert):
    samples = Masked(table_of_words(bert), bert, Masking(whole_words=False, rate=0.5))
    split = 0
    for index in range(len(samples)):
        weight = samples.sequence(index).weight[1:-1]
        words = samples.samples.words(index)
        split += sum(len(set(weight[words == number].tolist())) > 1 for number in np.unique(words))
    assert split > 20


def test_random_tokens_are_ordinary_ones(bert):
    samples = Masked(table_of_words(bert), bert, Masking(rate=1.0, masked=0.0, randomized=1.0))
    drawn = {int(token) for index in range(30) for token in samples.sequence(index).ids[1:-1]}
    assert len(drawn) > 200
    assert not drawn & set(bert.all_special_ids)


def test_settings_that_cannot_work(bert, gpt2):
    with pytest.raises(ConfigError, match="rate of 0"):
        Masking(rate=0)
    with pytest.raises(ConfigError, match="shares of one whole"):
        Masking(masked=0.9, randomized=0.2)
    with pytest.raises(VocabularyError, match="has no mask token"):
        mask_id(gpt2)
    with pytest.raises(DataError, match="WordEncoder"):
        Masked(prepare(["a"], TextEncoder(gpt2), cache=False), bert)
    with pytest.raises(ConfigError, match="no room for text"):
        masked_blocks(table_of_words(bert), bert, size=3)
    assert masked_blocks(table_of_words(bert), bert, context=40).lengths.max() == 40
