"""The check of a tokenizer against its files: what each comparison finds, and what it says where it cannot be made."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import pre_tokenizers

from tests.backbone.pieces import folder_with, like_llama
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.sentencepiece_file import fast_tokenizer, read_pieces
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.checks.run import check_backbone


@pytest.fixture
def folder(tmp_path):
    """Both files, and they say the same."""
    made = folder_with(tmp_path / "m", like_llama(), bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast_tokenizer(read_pieces(made / "tokenizer.model"), add_bos=True).save(str(made / "tokenizer.json"))
    return made


def row(backbone):
    (result,) = check_backbone(backbone, only=["tokenizer-files"]).results
    return result


def test_both_files_are_asked(folder):
    result = row(load_backbone(folder))
    assert (result.status, result.number) == ("pass", 0)
    assert "tokenizer.json and sentencepiece" in result.message


def test_a_model_file_alone(folder):
    (folder / "tokenizer.json").unlink()
    result = row(load_backbone(folder))
    assert (result.status, result.number) == ("pass", 0)
    assert "of sentencepiece" in result.message


def test_files_that_do_not_say_the_same(folder):
    """A file that transformers 5 wrote of a LLaMA-2: a blank before the first stretch of text alone."""
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    data["normalizer"], data["pre_tokenizer"] = None, json.loads(first.__getstate__())
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    result = row(load_backbone(folder))
    assert result.status == "fail"
    assert "by sentencepiece" in result.message
    assert "by tokenizer.json" not in result.message
    assert "' a' has" in result.message
    assert "two files do not say the same" in result.mend


def test_without_the_package_it_says_so(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = row(load_backbone(folder))
    assert result.status == "pass"
    assert "for want of the package sentencepiece" in result.message


def test_tokens_that_were_added_since_are_no_fault(folder):
    backbone = load_backbone(folder)
    grow_vocabulary(backbone, ["fox", "<ACT>"])
    assert row(backbone).status == "pass"


def test_a_vocabulary_of_another_kind_is_skipped(tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(tiny_checkpoint("tiny-gpt2"), folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(data["model"]["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in data["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    backbone = load_backbone(folder)
    assert len(backbone.tokenizer("a robot").input_ids) > 1
    result = row(backbone)
    assert result.status == "skip"
    assert "neither tokenizer.json nor tokenizer.model" in result.message
