"""A checkpoint's tokenizer is what its files say: `tokenizer.json` at its word, a SentencePiece model id for id."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer

from tests.backbone.pieces import LIKE_LLAMA, folder_with, like_llama, probe_texts, processor, train
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.sentencepiece_file import fast_tokenizer, read_pieces
from vertebra.backbone.tiny import TINY, tiny_checkpoint
from vertebra.errors import CheckpointError
from vertebra.prompt.formats import PurePromptBuilder
from vertebra.prompt.rendering import render

OPENVLA = Path(os.environ.get("VERTEBRA_OPENVLA_FOLDER", "/nowhere"))
LLAMA_SETTINGS = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False}


@pytest.fixture
def like_llama2(tmp_path) -> Path:
    """A folder as LLaMA-2's repository has it: both files, rules in a normalizer, and the class that ignores them."""
    folder = folder_with(tmp_path / "llama2", like_llama(), bos_token="<s>", eos_token="</s>", **LLAMA_SETTINGS)
    pieces = read_pieces(folder / "tokenizer.model")
    fast_tokenizer(pieces, add_bos=True).save(str(folder / "tokenizer.json"))
    return folder


def trained_ids(model: bytes, text: str) -> list[int]:
    """The slow plain way: sentencepiece asked for each stretch between the ends of answers."""
    theirs = processor(model)
    ids = [1]
    for number, stretch in enumerate(text.split("</s>")):
        ids += [2] * (number > 0) + theirs.encode(stretch)
    return ids


@pytest.mark.parametrize("name", TINY)
def test_every_familys_tokenizer_is_its_file_at_its_word(name):
    """Whatever class its settings name, and whatever that class would make of the vocabulary."""
    own = load_backbone(name, inference_mode=True).tokenizer
    backend = Tokenizer.from_file(str(tiny_checkpoint(name) / "tokenizer.json"))
    backend.no_truncation()
    marks = sorted(token.content for token in backend.get_added_tokens_decoder().values())[:4]
    for text in probe_texts(80):
        for framed in (text, *(f"{text}{mark}{text}{mark}In: b" for mark in marks)):
            expected = backend.encode(framed, add_special_tokens=False)
            got = own(framed, add_special_tokens=False, return_offsets_mapping=True)
            assert got.input_ids == expected.ids, framed
            assert got.offset_mapping == expected.offsets, framed
    assert set(own("a")) == {"input_ids", "attention_mask"}


def test_a_llama2_folder_gives_the_ids_of_training(like_llama2):
    own = load_backbone(like_llama2).tokenizer
    for text in probe_texts():
        for framed in (text, f"{text}</s>In: {text}</s>"):
            assert own(framed).input_ids == trained_ids(like_llama(), framed), framed
    # what the class named in its settings makes of the same folder, so that nobody takes this test for an empty one
    theirs = transformers.LlamaTokenizer.from_pretrained(like_llama2)
    assert theirs("a</s>In").input_ids != own("a</s>In").input_ids == trained_ids(like_llama(), "a</s>In")


def test_a_conversation_has_the_ids_of_training(like_llama2):
    own = load_backbone(like_llama2).tokenizer
    builder = PurePromptBuilder("openvla")
    turns = [("user", "Hello!"), ("assistant", "Hi  there."), ("user", "What next?"), ("assistant", "Go left.")]
    for role, text in turns:
        builder.add_turn(role, text)
    rendered = render([{"role": role, "content": text} for role, text in turns], PurePromptBuilder, own)
    assert rendered.ids.tolist() == own(builder.get_prompt()).input_ids
    assert rendered.ids.tolist() == trained_ids(like_llama(), builder.get_prompt())
    answers = own.decode(rendered.ids[rendered.weight > 0])
    assert answers.split() == ["Hi", "there.</s>", "Go", "left.</s>"]


@pytest.mark.parametrize("settings", [{}, LLAMA_SETTINGS], ids=["bare", "vicuna"])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_model_file_alone(settings, kind, tmp_path):
    model = train(**{**LIKE_LLAMA, "model_type": kind})
    backbone = load_backbone(folder_with(tmp_path / "m", model, **settings))
    own = backbone.tokenizer
    assert (own.bos_token, own.eos_token, own.unk_token) == ("<s>", "</s>", "<unk>")
    for text in probe_texts():
        framed = f"{text}</s>In: {text}"
        assert own(framed).input_ids == trained_ids(model, framed), framed
    again = load_backbone(backbone.save(tmp_path / "saved")).tokenizer
    assert again.backend_tokenizer.to_str() == own.backend_tokenizer.to_str()
    assert (tmp_path / "saved" / "tokenizer.model").read_bytes() == model


def test_what_stands_beside_a_model_file(tmp_path):
    folder = folder_with(tmp_path / "m", like_llama(), **LLAMA_SETTINGS, chat_template="{{ messages[0].content }}")
    (folder / "special_tokens_map.json").write_text('{"pad_token": "<PAD>", "eos_token": {"content": "</s>"}}')
    (folder / "added_tokens.json").write_text('{"<PAD>": 900, "<ACT>": 901}')
    config = json.loads((folder / "config.json").read_text())
    own = load_backbone(folder, inference_mode=True).tokenizer
    assert config["vocab_size"] > 901
    assert own.convert_tokens_to_ids(["<PAD>", "<ACT>", own.pad_token]) == [900, 901, 900]
    assert own.apply_chat_template([{"role": "user", "content": "hey"}], tokenize=False) == "hey"
    assert own("<PAD>In").input_ids == [1, 900, *processor(like_llama()).encode("In")]
    (folder / "added_tokens.json").write_text('{"<PAD>": 903}')
    with pytest.raises(CheckpointError, match=r"<PAD> 903 \(900 here\)"):
        load_backbone(folder, inference_mode=True)


def test_settings_may_leave_bos_out(tmp_path):
    folder = folder_with(tmp_path / "m", like_llama(), **{**LLAMA_SETTINGS, "add_bos_token": False})
    assert load_backbone(folder, inference_mode=True).anchor == "none"


def test_a_model_file_that_is_none(tmp_path):
    with pytest.raises(CheckpointError, match="no whole SentencePiece model"):
        load_backbone(folder_with(tmp_path / "m", like_llama()[:5000]), inference_mode=True)


def test_settings_without_a_vocabulary(tmp_path):
    folder = folder_with(tmp_path / "m", b"", **LLAMA_SETTINGS)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        load_backbone(folder, inference_mode=True)


def test_a_vocabulary_that_is_empty(tmp_path):
    shutil.copytree(tiny_checkpoint("tiny-llama2"), tmp_path / "m")
    file = tmp_path / "m" / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["model"].update(vocab={}, merges=[], unk_token=None)
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckpointError, match="has no vocabulary"):
        load_backbone(tmp_path / "m", inference_mode=True)


@pytest.mark.parametrize(("name", "file"), [("tiny-qwen2", "tokenizer.json"), ("tiny-gpt2", "vocab.json")])
def test_an_id_that_no_vocabulary_has(name, file, tmp_path):
    """The library keeps a place for every id below the highest; for this one it would end the process."""
    folder = Path(shutil.copytree(tiny_checkpoint(name), tmp_path / "far"))
    tree = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"] | {"far": 2**32 - 1}
    if file == "vocab.json":
        (folder / "tokenizer.json").unlink()
        (folder / "merges.txt").write_text("#version: 0.2\n")
        content = tree
    else:
        content = json.loads((folder / file).read_text())
        content["model"]["vocab"] = tree
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="the id 4294967295; expected ids that count on from 0"):
        load_backbone(folder)


@pytest.mark.parametrize("at", [10, -10])
def test_bytes_that_are_no_text(at, tmp_path):
    folder = Path(shutil.copytree(tiny_checkpoint("tiny-qwen2"), tmp_path / "bytes"))
    content = bytearray((folder / "tokenizer.json").read_bytes())
    content[at] = 0x96
    (folder / "tokenizer.json").write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="is damaged: it is not UTF-8 text"):
        load_backbone(folder)


def test_merges_without_their_prefix(tmp_path):
    """The library cuts the prefix off by bytes, in the middle of a letter too, and ends the process."""
    folder = Path(shutil.copytree(tiny_checkpoint("tiny-llama2"), tmp_path / "prefix"))
    tree = json.loads((folder / "tokenizer.json").read_text())
    tree["model"]["continuing_subword_prefix"] = "0"
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match="what continues a word begins with '0', and its merge"):
        load_backbone(folder)


def test_saving_keeps_the_model_file(like_llama2, tmp_path):
    backbone = load_backbone(like_llama2)
    backbone.save(tmp_path / "one")
    assert (tmp_path / "one" / "tokenizer.model").read_bytes() == like_llama()
    backbone.save(like_llama2, overwrite=True)  # onto the file that it was read from
    assert (like_llama2 / "tokenizer.model").read_bytes() == like_llama()


def test_a_model_file_that_went_meanwhile_is_reported(like_llama2, tmp_path, caplog):
    backbone = load_backbone(like_llama2)
    (like_llama2 / "tokenizer.model").unlink()
    backbone.save(tmp_path / "saved")
    assert "without a tokenizer.model" in caplog.text
    load_backbone(tmp_path / "saved")


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5", "tiny-gemma2", "tiny-phi3", "tiny-opt"])
def test_what_is_saved_is_read_the_same_by_anybody(name, tmp_path):
    """transformers 4 knows no `TokenizersBackend`; the older name means the same to both."""
    backbone = load_backbone(name)
    folder = backbone.save(tmp_path / "saved")
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in probe_texts(60):
        assert (
            theirs(f"{text}{backbone.tokenizer.eos_token}In").input_ids
            == backbone.tokenizer(f"{text}{backbone.tokenizer.eos_token}In").input_ids
        )


@pytest.mark.skipif(not OPENVLA.is_dir(), reason="VERTEBRA_OPENVLA_FOLDER names no folder in OpenVLA's format")
@pytest.mark.parametrize("alone", [False, True], ids=["json", "model alone"])
def test_llama2s_own_vocabulary(alone, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(tiny_checkpoint("tiny-llama2"), folder)
    for file in folder.glob("*token*"):
        file.unlink()
    for file in OPENVLA.glob("*token*"):
        if not (alone and file.name == "tokenizer.json"):
            shutil.copyfile(file, folder / file.name)
    own = load_backbone(folder, inference_mode=True).tokenizer
    model = (OPENVLA / "tokenizer.model").read_bytes()
    assert own("a</s>In").input_ids == [1, 263, 2, 512]
    for text in probe_texts():
        framed = f"{text}</s>In: {text}"
        assert own(framed).input_ids == trained_ids(model, framed), framed
