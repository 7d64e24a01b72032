"""Text as it comes, on every tokenizer: the pieces make the whole, and stop strings are found wherever they fall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.decode.plain import backbone
from vertebra.backbone.tiny import TINY
from vertebra.decode.choose.text import Detokenizer, StopStrings, TextWriter, cut_at

SAMPLES = (
    "Größe, naïve: 数据 🙂🙂 done.",
    "  two spaces,\n\n a\ttab and don't — 'quoted' text .",
    "def f(x):\n    return x[1:-1]  # ça va?",
)


def whole(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("sample", SAMPLES)
def test_pieces_make_the_whole(name, sample):
    tokenizer = backbone(name).tokenizer
    ids = tokenizer(sample, add_special_tokens=False).input_ids
    text = Detokenizer(tokenizer)
    pieces = [text.add(token) for token in ids]
    assert "".join([*pieces, text.finish()]) == whole(tokenizer, ids) == text.text
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5", "tiny-gemma3", "tiny-phi3", "tiny-gpt2"])
@given(seed=st.integers(0, 10_000))
@hypothesis_settings(max_examples=25, deadline=None)
def test_pieces_of_any_ids_make_the_whole(name, seed):
    """Random ids too: half characters, marks, special tokens in the middle."""
    import random

    tokenizer = backbone(name).tokenizer
    generator = random.Random(seed)
    ids = [generator.randrange(len(tokenizer)) for _ in range(20)]
    text = Detokenizer(tokenizer)
    pieces = [text.add(token) for token in ids]
    message = "".join([*pieces, text.finish()])
    # bytes that make no character are read anew with every one that follows
    assert message == whole(tokenizer, ids) or "\ufffd" in whole(tokenizer, ids)


@pytest.mark.parametrize("name", TINY)
def test_a_long_text_and_long_waits(name):
    """Thousands of ids; two hundred that say nothing in a row; a character whose bytes come after all of them."""
    tokenizer = backbone(name).tokenizer
    ids = tokenizer("\n".join(SAMPLES) * 25, add_special_tokens=False).input_ids
    silent = [tokenizer.all_special_ids[0]] * 200
    ids = [*ids, *silent, *tokenizer("🙂 and on", add_special_tokens=False).input_ids, *ids[:50]]
    assert len(ids) > 1200
    text, writer = Detokenizer(tokenizer), TextWriter(tokenizer, ("never said",))
    pieces = [text.add(token) for token in ids]
    assert "".join([*pieces, text.finish()]) == whole(tokenizer, ids)
    assert "\ufffd" not in "".join(pieces)
    last = len(ids) - 1
    given = "".join(writer.add(token, last=place == last) for place, token in enumerate(ids))
    assert given == whole(tokenizer, ids)


def test_bytes_that_never_become_a_character_lose_nothing():
    tokenizer = backbone("tiny-llama2").tokenizer
    broken = tokenizer.convert_tokens_to_ids("<0xFF>")
    after = tokenizer("then text. Stop", add_special_tokens=False).input_ids
    text, stop = Detokenizer(tokenizer), StopStrings(tokenizer, ("Stop",), ())
    ends = [stop.add(token) for token in [*[broken] * 200, *after]]
    for token in [*[broken] * 200, *after]:
        text.add(token)
    text.finish()
    assert text.text == whole(tokenizer, [*[broken] * 200, *after])
    assert ends.index(True) == len(ends) - 1


def test_half_a_character_is_held_back():
    tokenizer = backbone("tiny-llama2").tokenizer
    ids = tokenizer("a🙂b", add_special_tokens=False).input_ids
    text = Detokenizer(tokenizer)
    given = [text.add(token) for token in ids]
    assert "🙂" in given
    assert all("\ufffd" not in piece for piece in given)
    cut = Detokenizer(tokenizer)
    for token in ids[:-2]:
        cut.add(token)
    assert cut.finish().startswith("\ufffd")  # at the end it is told as it is


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5", "tiny-gemma3"])
def test_stop_strings_across_tokens(name):
    tokenizer = backbone(name).tokenizer
    text = "The answer is forty-two. Question: what"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    for string in ("Question:", "two", ". Q", "rty-"):
        stop = StopStrings(tokenizer, (string, "never said"), ())
        at = next(end for end, token in enumerate(ids, 1) if stop.add(token))
        assert string in whole(tokenizer, ids[:at])
        assert string not in whole(tokenizer, ids[: at - 1])
    stop = StopStrings(tokenizer, ("never said",), ())
    assert not any(stop.add(token) for token in ids)


def test_a_special_token_can_be_a_stop_string():
    tokenizer = backbone("tiny-qwen2.5").tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert StopStrings(tokenizer, ("<|im_end|>",), ()).add(end)


@pytest.mark.parametrize("string", ["Question:", "is", "y-t"])
def test_a_writer_never_gives_out_a_stop_string(string):
    tokenizer = backbone("tiny-llama2").tokenizer
    text = "The answer is forty-two. Question: what"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    writer, stop = TextWriter(tokenizer, (string,)), StopStrings(tokenizer, (string,), ())
    given = ""
    for token in ids:
        ended = stop.add(token)
        given += writer.add(token, last=ended)
        assert string not in given
        if ended:
            break
    assert given == whole(tokenizer, ids).partition(string)[0]


def test_cut_at_the_first():
    assert cut_at("a.b!c", ("!", ".")) == "a"
    assert cut_at("abc", ("!",)) == "abc"
