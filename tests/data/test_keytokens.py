"""Key tokens: found as whole words however they are spelled, weighed by token or by sample, filtered by text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.encode.encoders import TextEncoder, WordEncoder
from vertebra.data.encode.keytokens import KeyTokens, KeywordFilter, Weighted
from vertebra.data.encode.masks import Masked, Masking
from vertebra.data.encode.prepare import prepare
from vertebra.data.samples.causal import Blocks
from vertebra.errors import ConfigError, UnknownNameError

from .tables import table_of
from .tokenizers import tokenizer_of

KEYS = ["plt", "pd", "fit", "predict", "robot"]
NAMES = ("tiny-gpt2", "tiny-llama2", "tiny-bert", "tiny-qwen2.5")


@pytest.mark.parametrize("name", NAMES)
def test_what_keys_are_made_of(name):
    tokenizer = tokenizer_of(name)
    made = KeyTokens(tokenizer, [*KEYS, "in"])
    assert made.keys["in"].is_token
    assert not made.keys["plt"].is_token
    assert list(made.keys["plt"].alone) == tokenizer("plt", add_special_tokens=False).input_ids
    assert tokenizer.decode(made.keys["predict"].after_space).strip() == "predict"
    assert made.report()[0].startswith("plt: a span of")
    assert made.report()[-1] == "in: one token, with and without a space before it"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import pandas as pd", ["pd"]),
        ("plt.plot(pd.x)\nplt.show()", ["plt", "pd", "plt"]),
        ("model.fit(x); model.predict(y)", ["fit", "predict"]),
        ("profit, fitness, misfit and robots", []),
        ("(fit) fit-fit _fit fit2", ["fit", "fit", "fit"]),
        ("the robot and a robot", ["robot", "robot"]),
    ],
)
def test_whole_words_are_found(name, text, expected):
    tokenizer = tokenizer_of(name)
    ids = np.array(tokenizer(text, add_special_tokens=False).input_ids)
    found = KeyTokens(tokenizer, KEYS).occurrences(ids)
    # BERT's pre-tokenizer cuts `_fit` in two words; it is the tokenizer that says what a word is.
    if name == "tiny-bert" and "_fit" in text:
        expected = [*expected, "fit"]
    assert [word for _, _, word in found] == expected
    for start, stop, word in found:
        assert word in tokenizer.decode(ids[start:stop])


@settings(max_examples=50)
@given(words=st.lists(st.sampled_from(["plt", "fit", "robot", "x", "misfit", ".", "\n", "(", "pd"]), max_size=12))
def test_against_the_text(words):
    tokenizer = tokenizer_of("tiny-gpt2")
    text = " ".join(words)
    ids = np.array(tokenizer(text, add_special_tokens=False).input_ids, int)
    found = [word for _, _, word in KeyTokens(tokenizer, KEYS).occurrences(ids)]
    assert found == re.findall(r"\b(?:plt|pd|fit|predict|robot)\b", text)


def test_weights_by_token_and_by_sample(gpt2):
    keys = KeyTokens(gpt2, ["robot", "plt"])
    text = "a robot and plt here"
    ids = gpt2(text).input_ids
    table = table_of([ids, gpt2("nothing here").input_ids])
    found = keys.occurrences(np.array(ids))
    spans = {at for start, stop, _ in found for at in range(start, stop)}
    by_token = Weighted(table, keys, boost=3.0, by="token")
    assert by_token.vectors(0)["weight"].tolist() == [3.0 if at in spans else 1.0 for at in range(len(ids))]
    assert set(by_token.vectors(1)["weight"].tolist()) == {1.0}
    by_sample = Weighted(table, keys)
    assert set(by_sample.vectors(0)["weight"].tolist()) == {3.0}
    assert set(by_sample.vectors(1)["weight"].tolist()) == {1.0}
    assert by_sample.fingerprint() != by_token.fingerprint()


def test_what_counts_nothing_goes_on_counting_nothing(gpt2):
    ids = gpt2("a robot and a robot").input_ids
    weight = [0.0] * (len(ids) - 1) + [0.5]
    table = table_of([ids], weight=[weight])
    keys = KeyTokens(gpt2, ["robot"])
    assert Weighted(table, keys, boost=4.0, by="token").vectors(0)["weight"].tolist() == [0.0] * (len(ids) - 1) + [2.0]


def test_blocks_and_masks_are_weighed_too(bert, gpt2):
    keys = KeyTokens(gpt2, ["robot"])
    blocks = Weighted(Blocks(prepare(["a robot"] * 8, TextEncoder(gpt2), cache=False), 8), keys, by="token", boost=2.0)
    assert {1.0, 2.0} == set(blocks.vectors(0)["weight"].tolist())
    table = prepare(["a robot stands here"] * 3, WordEncoder(bert), cache=False)
    masked = Masked(table, bert, Masking(rate=1.0, masked=1.0, randomized=0.0))
    weighed = Weighted(masked, KeyTokens(bert, ["robot"]), by="token", boost=5.0).vectors(0)
    robot = bert.convert_tokens_to_ids("robot")
    assert weighed["weight"][weighed["target"] == robot].tolist() == [5.0]
    assert weighed["weight"][0] == 0


def test_a_corpus_is_filtered_by_key_words(tmp_path, gpt2):
    texts = ["import pandas as pd", "profit and loss", "plt.show() and pd", "nothing"]
    keep = KeywordFilter(["pd", "plt", "fit"])
    assert [keep(text) for text in texts] == [True, False, True, False]
    assert [KeywordFilter(["pd", "plt"], at_least=2)(text) for text in texts] == [False, False, True, False]
    for cache in (False, tmp_path, tmp_path):
        table = prepare(texts, TextEncoder(gpt2), keep=keep, cache=cache)
        assert [table.where(index) for index in range(len(table))] == ["<list>:1", "<list>:3"]
    assert len(prepare(texts, TextEncoder(gpt2), cache=tmp_path)) == 4
    assert len(prepare(texts, TextEncoder(gpt2), keep=lambda text: "no" in text, cache=tmp_path)) == 1
    assert len(list(tmp_path.iterdir())) == 2  # what has no key is not cached


def test_settings_that_cannot_work(gpt2):
    keys = KeyTokens(gpt2, ["robot"])
    with pytest.raises(ConfigError, match="a list"):
        KeyTokens(gpt2, "robot")
    with pytest.raises(ConfigError, match=r"these are not: \['a b'\]"):
        KeyTokens(gpt2, ["robot", "a b"])
    with pytest.raises(ConfigError, match="a list"):
        KeywordFilter([])
    with pytest.raises(UnknownNameError, match="Did you mean `token`"):
        Weighted(table_of([[1]]), keys, by="tokens")
    with pytest.raises(ConfigError, match="boost of 0"):
        Weighted(table_of([[1]]), keys, boost=0)
