"""Bulk tokenization equals one text at a time; typed tokens stay text; words are words on every tokenizer."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.encode.tokens import TextTokenizer, block_size, framed, joined, stop_id
from vertebra.errors import VocabularyError

from .tokenizers import tokenizer_of

NAMES = ("tiny-llama2", "tiny-gpt2", "tiny-gemma2", "tiny-pythia", "tiny-bert")
TEXTS = ["Hello brave world", "", " a  b\n\n\tc", "数据, naïve 🙂 don't", "x" * 300, "def f(x):\n    return 1"]


@pytest.mark.parametrize("name", NAMES)
def test_bulk_equals_one_by_one(name):
    tokenizer = tokenizer_of(name)
    flat = TextTokenizer(tokenizer)(TEXTS * 200)
    assert len(flat) == len(TEXTS) * 200
    for index in (0, 1, 2, 3, 4, 5, 1195):
        expected = tokenizer(TEXTS[index % 6], add_special_tokens=False).input_ids
        assert flat.row(index).tolist() == expected
    with_words, words = TextTokenizer(tokenizer).with_words(TEXTS)
    assert with_words.values.tolist() == flat.values[: len(with_words.values)].tolist()
    assert len(words) == len(with_words.values)
    assert len(TextTokenizer(tokenizer)([])) == 0


@pytest.mark.parametrize("name", NAMES)
def test_typed_tokens_stay_text(name):
    tokenizer = tokenizer_of(name)
    added = set(tokenizer.get_added_vocab().values())
    typed = next(token for token in tokenizer.all_special_tokens)
    texts = ["before", f"he typed {typed} here", f"and {typed} \U00100000", "after"]
    assert added & set(tokenizer(texts[1], add_special_tokens=False).input_ids)
    for flat in (TextTokenizer(tokenizer)(texts), TextTokenizer(tokenizer).with_words(texts)[0]):
        assert not added & {*flat.row(0), *flat.row(1), *flat.row(3)}
        assert typed.lower() in tokenizer.decode(flat.row(1)).replace(" ", "")
        assert flat.row(3).tolist() == tokenizer("after", add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", NAMES)
def test_the_frame_is_what_the_tokenizer_puts_around(name):
    tokenizer = tokenizer_of(name)
    bulk = TextTokenizer(tokenizer)
    flat = framed(bulk(TEXTS), bulk.prefix, bulk.suffix)
    assert [flat.row(i).tolist() for i in range(len(TEXTS))] == [list(tokenizer(text).input_ids) for text in TEXTS]


@given(
    rows=st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=5),
    before=st.lists(st.integers(10, 12), max_size=2),
    after=st.lists(st.integers(13, 15), max_size=3),
)
def test_framed_against_lists(rows, before, after):
    flat = framed(joined([np.array(row, np.int32) for row in rows]), before, after)
    assert [flat.row(i).tolist() for i in range(len(rows))] == [[*before, *row, *after] for row in rows]


WORDS = "Hello brave new world, it is (nearly) done"


@pytest.mark.parametrize("name", NAMES)
def test_words_are_the_words_of_the_text(name):
    """A piece of one word has one number, pieces of two words have two."""
    tokenizer = tokenizer_of(name)
    bulk = TextTokenizer(tokenizer)
    assert bulk.words_by_offsets == (name in ("tiny-llama2", "tiny-gemma2"))
    flat, numbers = bulk.with_words([WORDS, WORDS])
    assert numbers[0] == 0
    assert set(np.diff(numbers)) <= {0, 1}
    half = len(numbers) // 2
    assert numbers[half] == numbers[half - 1] + 1
    grouped: dict[int, list[int]] = {}
    for token, number in zip(flat.values[:half].tolist(), numbers[:half].tolist(), strict=True):
        grouped.setdefault(number, []).append(token)
    spelled = [tokenizer.decode(ids).strip().lower() for ids in grouped.values()]
    assert spelled[:6] == ["hello", "brave", "new", "world", ",", "it"]
    assert "".join(spelled) == WORDS.replace(" ", "").lower()


@settings(max_examples=40)
@given(text=st.text(alphabet="ab ,.\n\té数🙂", max_size=30), name=st.sampled_from(["tiny-llama2", "tiny-gemma2"]))
def test_words_by_offsets_against_a_slow_form(text, name):
    tokenizer = tokenizer_of(name)
    _, numbers = TextTokenizer(tokenizer).with_words([text])
    offsets = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets
    word_of, word = {}, -1
    for at, char in enumerate(text):
        joins = at and (char.isalnum() or char == "_") and text[at - 1].isalnum()
        if not char.isspace():
            word += not joins
            word_of[at] = word
    slow = []
    for number, (start, stop) in enumerate(offsets):
        found = [word_of[at] for at in range(start, max(stop, start + 1)) if at in word_of]
        slow.append(found[0] if found else ("space", number))
    assert [a == b for a, b in pairwise(slow)] == (np.diff(numbers) == 0).tolist()


def test_the_fingerprint_sees_every_change():
    tokenizer = tokenizer_of("tiny-gpt2")
    first = TextTokenizer(tokenizer).fingerprint
    changed = pickle.loads(pickle.dumps(tokenizer))
    changed.pad_token = changed.eos_token
    changed(["a", "b c"], padding="max_length", truncation=True, max_length=4)  # leaves settings in the backend
    assert TextTokenizer(changed).fingerprint == first
    changed.add_tokens(["<ACT>"])
    assert TextTokenizer(changed).fingerprint != first
    assert TextTokenizer(tokenizer_of("tiny-pythia")).fingerprint != first
    copy = pickle.loads(pickle.dumps(TextTokenizer(tokenizer)))
    assert copy.fingerprint == first


def test_stop_tokens_and_block_sizes(gpt2, bert):
    assert stop_id(gpt2) == gpt2.eos_token_id
    with pytest.raises(VocabularyError, match="no EOS"):
        stop_id(bert)
    with pytest.raises(VocabularyError, match="grow_vocabulary"):
        stop_id(gpt2, "<|stop|>")
    assert block_size(gpt2, 256) == 256
    assert block_size(gpt2, 4096) == 512
    assert block_size(gpt2, 4096, 128) == 128
    with pytest.raises(VocabularyError, match="2 to 512"):
        block_size(gpt2, 4096, 513)
    unlimited = pickle.loads(pickle.dumps(gpt2))
    unlimited.model_max_length = int(1e30)
    assert block_size(unlimited, 4096) == 4096
    with pytest.raises(VocabularyError, match="1e\\+30"):
        block_size(unlimited)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(VocabularyError, match="no fast tokenizer"):
        TextTokenizer(object())
