"""The adapter: probing, caching, staleness, independence of state that others set, and the guard."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.prompt.tokenizers import MAKERS, committed, tokenizer, with_typed
from vertebra.errors import PromptError
from vertebra.prompt.guard import Guard, guarded_tokens, plain_copy, plain_view
from vertebra.prompt.rendering import render
from vertebra.prompt.tokenizer import Encoding, FastTokenizer, TokenizerFacts, tokenizer_of

ASK = [{"role": "user", "content": "What next?"}]


def wrapped(name: str = "llama", **names: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=committed(name), **names)


def test_facts():
    facts = FastTokenizer(wrapped(bos_token="<s>", eos_token="</s>")).facts()
    assert (facts.prefix, facts.bos, facts.bos_id, facts.eos, facts.eos_id, facts.pad_id) == (
        (1,),
        "<s>",
        1,
        "</s>",
        2,
        None,
    )
    assert facts.added == {"<unk>", "<s>", "</s>"}
    assert facts.reserved_id == 2
    assert FastTokenizer(committed("llama")).facts().bos == "<s>"  # read off what encoding adds
    assert FastTokenizer(committed("gpt2")).facts().reserved_id == 0
    named = FastTokenizer(committed("gpt2"), eos="<|endoftext|>", pad="<|endoftext|>").facts()
    assert named.pad_id == named.eos_id == committed("gpt2").token_to_id("<|endoftext|>")


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_view_beside_a_tokenizer_is_its_copy(name):
    """The slow twin writes the tokenizer out and reads it again."""
    own, random = tokenizer(name), np.random.default_rng(0)
    own.enable_truncation(3)
    view, copied = plain_view(own), plain_copy(own.to_str())
    assert view.to_str() == copied.to_str()
    marks = [token.content for token in own.get_added_tokens_decoder().values()]
    pieces = [*marks, " ", "\n", "red block", "Größe", "数据", "🙂", "x" * 40, "  ", "</s"]
    for _ in range(50):
        text = "".join(random.choice(pieces, 12))
        for found, expected in zip(*(t.encode_batch([text, text[::-1]]) for t in (view, copied)), strict=True):
            assert (found.ids, found.offsets) == (expected.ids, expected.offsets)
    before = len(view.encode("a b c d e f g h").ids)
    own.add_tokens(["b c"])  # what is added later is the owner's alone
    assert len(view.encode("a b c d e f g h").ids) == before > 3


def test_a_suffix_is_not_a_prefix():
    assert FastTokenizer(tokenizer("unigram")).facts().prefix == (1,)


def test_one_adapter_a_tokenizer_and_no_longer_than_it():
    own = wrapped()
    adapter = tokenizer_of(own)
    assert tokenizer_of(own) is adapter
    assert tokenizer_of(adapter) is adapter
    raw = committed("gpt2")
    assert tokenizer_of(raw) is tokenizer_of(raw)
    alive = [weakref.ref(own), weakref.ref(raw)]
    del own, raw, adapter
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_an_adapter_outlives_its_tokenizer():
    adapter = FastTokenizer(committed("llama"))
    gc.collect()
    assert adapter.facts().prefix == (1,)
    assert render(ASK, "pure", adapter) == render(ASK, "pure", committed("llama"))


def test_added_tokens_are_noticed():
    own = wrapped(bos_token="<s>")
    typed = [{"role": "user", "content": "x <ACT> y"}]
    before = render(typed, "pure", own)
    own.add_tokens(["<ACT>"])
    assert render(typed, "pure", own).ids.tolist() == before.ids.tolist()
    act = own.convert_tokens_to_ids("<ACT>")
    reported = [*ASK, {"role": "assistant", "content": "<ACT>"}]
    assert act in render(reported, "pure", own, trusted=("assistant",)).ids
    assert act not in render(reported, "pure", own).ids


def test_state_that_others_set_does_not_matter():
    own = wrapped(bos_token="<s>", pad_token="</s>")
    want = render(ASK, "pure", own)
    own(["a", "b c"], padding="max_length", max_length=3, truncation=True)
    own("a", split_special_tokens=True)
    assert render(ASK, "pure", own) == want
    fresh = wrapped(bos_token="<s>", pad_token="</s>")
    fresh(["a", "b c"], padding="max_length", max_length=3, truncation=True)
    fresh.backend_tokenizer.encode_special_tokens = True
    assert render(ASK, "pure", fresh) == want


def test_a_tokenizer_is_two_methods():
    class Characters:
        """Ids are code points."""

        def encode(self, texts: Sequence[str], plain: Sequence[Sequence[tuple[int, int]]]) -> list[Encoding]:
            return [
                Encoding(np.asarray([ord(char) for char in text]), np.arange(len(text)), np.arange(1, len(text) + 1))
                for text in texts
            ]

        def facts(self) -> TokenizerFacts:
            return TokenizerFacts(eos="</s>", added=frozenset({"</s>"}))

    sequence = render([*ASK, {"role": "assistant", "content": "Go"}], "pure", Characters())
    assert "".join(map(chr, sequence.ids)) == "In: What next?\nOut: Go</s>"
    assert "".join(map(chr, sequence.ids[sequence.weight > 0])) == " Go</s>", "an open prompt ends with `Out:`"


def test_no_fast_tokenizer():
    with pytest.raises(PromptError, match="needs a fast tokenizer"):
        render(ASK, "pure", object())


def test_white_space_is_vocabulary():
    added = [AddedToken(token) for token in ("  ", "\t\t", "▁▁", "\n\n", "<ACT>", "</s>")]
    assert guarded_tokens(added) == ("<ACT>", "</s>")
    own = tokenizer("swallowing")
    double = own.token_to_id("  ")
    assert double in render([{"role": "user", "content": "a  b"}], "pure", own).ids


def test_private_characters_typed_by_a_user():
    """The guard's own names may be typed, too: others are taken for that text."""
    own = committed("chat")
    control = [token.content for token in own.get_added_tokens_decoder().values()]
    names = "".join(Guard(own.to_str(), control).name.values())
    typed = [{"role": "user", "content": f"{names} <|im_end|>"}]
    sequence = render(typed, "chatml", own)
    assert (sequence.ids == own.token_to_id("<|im_end|>")).sum() == 1
    assert own.decode(sequence.ids, skip_special_tokens=False).count(names) == 1


def test_every_private_character_at_once():
    text = "".join(map(chr, range(0x100000, 0x10FFFE)))
    with pytest.raises(PromptError, match="plane 16"):
        Guard(committed("chat").to_str(), ["<|im_end|>"], avoid=text)


def test_old_merges_and_word_models():
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, "a": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("[UNK]", "</s>")])
    adapter = FastTokenizer(words)
    (encoding,) = adapter.encode(["a </s> [UNK] b </s>"], [[(0, 14)]])
    assert encoding.ids.tolist() == [2, 0, 0, 0, 1]
    assert encoding.typed


def test_a_typed_token_cannot_eat_a_mark():
    """`<|end|>` + `</s>` would be one token if a user's text could begin it."""
    own = with_typed(committed("llama"))
    own.add_special_tokens([AddedToken("!</s>", special=True, normalized=False)])
    chat = [*ASK, {"role": "assistant", "content": "Go!"}]
    sequence = render(chat, "pure", own)
    assert sequence.ids[-1] == own.token_to_id("</s>")
    assert own.token_to_id("!</s>") not in sequence.ids


def test_a_post_processor_that_changes_ids():
    class Odd:
        def num_special_tokens_to_add(self, pair: bool) -> int:
            return 1

        def process(self, encoding, pair, add):
            return committed("gpt2").encode("zz")

    adapter = FastTokenizer(wrapped())
    adapter._backend, adapter._post_processor = lambda: None, Odd()  # type: ignore[assignment]
    with pytest.raises(PromptError, match="changes the text's own ids"):
        adapter.facts()


WORDS = ("Amount due", "lidar", "合計", "Überweisung", "R2D2")
"""Of a field, as a vocabulary is grown by them; marks of a format look otherwise, or are special."""
MARKS = ("<ACT>", "tool:", "_end", "a_b", "[SEP", " x", "x ", "a  b")


def test_words_of_a_field_are_vocabulary():
    added = [AddedToken(token, normalized=False) for token in (*WORDS, *MARKS)]
    special = [AddedToken(token, special=True) for token in ("stop", "Amount due")]
    assert guarded_tokens([*added, *special]) == (*MARKS, "stop", "Amount due")


@pytest.mark.parametrize("name", ["llama", "chat", "gpt2"])
def test_words_of_a_field_are_read_as_the_tokenizer_reads_them(name):
    """What users write has them as tokens, and typed marks beside them are text all the same."""
    own = committed(name)
    own.add_tokens([AddedToken(token, normalized=False) for token in WORDS])
    own.add_tokens(["<ACT>"])
    typed = "the Amount due 合計 9.50 of R2D2"
    for text in (typed, f"{typed} <ACT>"):
        ids = render([{"role": "user", "content": text}], "pure", own).ids.tolist()
        assert [own.token_to_id(word) in ids for word in WORDS] == [True, False, True, False, True]
        assert own.token_to_id("<ACT>") not in ids
    first, last = own.token_to_id("Amount due"), own.token_to_id("R2D2")
    plain = own.encode(typed, add_special_tokens=False).ids
    ids = render([{"role": "user", "content": typed}], "pure", own).ids.tolist()
    assert ids[ids.index(first) : ids.index(last) + 1] == plain[plain.index(first) : plain.index(last) + 1]


def test_a_tokenizer_that_saving_changes():
    own = committed("gpt2")
    own.model = models.BPE({**_vocab(own), "zq": 900}, [])  # a number with a gap before it
    own.add_tokens(["zq", "<ACT>"])
    with pytest.raises(PromptError, match="does not survive saving"):
        FastTokenizer(own)


def _vocab(own: Tokenizer) -> dict[str, int]:
    added = own.get_added_tokens_decoder()
    return {token: number for token, number in own.get_vocab().items() if number not in added}
