"""A SentencePiece model as a fast tokenizer: ids equal to sentencepiece's own, text by text."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.backbone.pieces import LIKE_LLAMA, like_llama, probe_texts, processor, train
from vertebra.backbone.sentencepiece_file import fast_tokenizer, is_sentencepiece, read_pieces
from vertebra.errors import CheckpointError

KINDS = {
    f"{kind}{'-bytes' * fallback}{'-prefix' * prefix}": {
        "model_type": kind,
        "byte_fallback": fallback,
        "add_dummy_prefix": prefix,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    for kind in ("bpe", "unigram")
    for fallback in (True, False)
    for prefix in (True, False)
}
KINDS |= {
    "bpe-named": {**KINDS["bpe-bytes-prefix"], "user_defined_symbols": ["<loc>", "▁▁", "\n"]},
    "bpe-named-no-prefix": {**KINDS["bpe-bytes"], "user_defined_symbols": ["<loc>", "▁▁", "\n"]},
    "unigram-named": {**KINDS["unigram-bytes-prefix"], "user_defined_symbols": ["<loc>", "\n"]},
    "bpe-control": {**KINDS["bpe-bytes-prefix"], "control_symbols": ["[INST]", "[/INST]"]},
    "bpe-normalizing": {"model_type": "bpe", "byte_fallback": True},
    "unigram-normalizing": {"model_type": "unigram"},
    "bpe-trimming": {**KINDS["bpe-bytes-prefix"], "remove_extra_whitespaces": True},
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokenizer.model"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_sentencepieces(kind, file):
    file.write_bytes(train(**KINDS[kind]))
    theirs, ours = processor(file.read_bytes()), fast_tokenizer(read_pieces(file), add_bos=True)
    assert ours.get_vocab_size() == len(theirs)
    assert all(ours.id_to_token(i) == theirs.id_to_piece(i) for i in range(len(theirs)))
    special = ("[INST]",) if "control" in kind else ()
    texts = [text for text in probe_texts() if not any(mark in text for mark in special)]
    assert len(texts) > 900
    for text in texts:
        expected = theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False).ids == expected, text
        assert ours.encode(text).ids == [1, *expected], text
        turns = ours.encode(f"{text}</s>{text}</s>In", add_special_tokens=False).ids
        assert turns == [*expected, 2, *expected, 2, *theirs.encode("In")], text


def test_control_pieces_are_special_tokens(file):
    file.write_bytes(train(**KINDS["bpe-control"]))
    theirs, ours = processor(file.read_bytes()), fast_tokenizer(read_pieces(file), add_bos=False, add_eos=True)
    ids = [theirs.piece_to_id("[INST]"), *theirs.encode("hello"), 2]
    assert ours.encode("[INST]hello").ids == ids
    assert ours.decode(ids) == "hello"


def test_text_comes_back(file):
    file.write_bytes(like_llama())
    ours = fast_tokenizer(read_pieces(file), add_bos=True)
    for text in probe_texts(200):
        if "▁" not in text and "<0x" not in text:
            assert ours.decode(ours.encode(text).ids) == text


def test_neither_protobuf_nor_sentencepiece_is_imported(file):
    file.write_bytes(like_llama())
    code = (
        "import sys\n"
        "sys.modules['google.protobuf'] = sys.modules['sentencepiece'] = None\n"
        "from pathlib import Path\n"
        "from vertebra.backbone.sentencepiece_file import fast_tokenizer, read_pieces\n"
        f"print(len(fast_tokenizer(read_pieces(Path({str(file)!r})), add_bos=True).encode('a b').ids))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 2


@pytest.mark.parametrize("cut", [1, 10, 1000, -1])
def test_a_file_that_is_cut_off(cut, file):
    file.write_bytes(like_llama()[:cut])
    with pytest.raises(CheckpointError, match="no whole SentencePiece model"):
        read_pieces(file)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"model_type": "char", "vocab_size": 80}, "model type 4"),
        ({**LIKE_LLAMA, "treat_whitespace_as_suffix": True}, "blanks behind words"),
    ],
)
def test_what_cannot_be_exact_is_refused(options, what, file):
    file.write_bytes(train(**options))
    with pytest.raises(CheckpointError, match=what):
        read_pieces(file)


def test_tiktoken_files_of_the_same_name_are_distinguished(file):
    file.write_bytes(b"IQ== 0\nIg== 1\n")
    assert not is_sentencepiece(file)
    file.write_bytes(like_llama())
    assert is_sentencepiece(file)
