"""GGUF files: the same logits and ids as the model they were made of; damaged ones are our errors and nothing else."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.backbone.gguf_files import write_gguf
from vertebra import load_backbone, log
from vertebra.backbone.gguf.convert import gguf_folder
from vertebra.backbone.gguf.header import read_gguf
from vertebra.backbone.source import find
from vertebra.backbone.tiny import write_tiny
from vertebra.errors import CheckpointError, VertebraError

WIDTHS = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXTS = [
    "The robot of 1987 moved 12,345 times.",
    " leading blank", "two  blanks   three", "tabs\tand\nnewlines\n\n", "don't we'll I'm THEY'RE",
    "żółw, 你好, emoji 🤖, e\u0301", "x=3.14e-10; y[0]!=None", "", " ", "007 ٣٤٥ ½ ²",
]  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_tiny("tiny-smollm2", tmp_path_factory.mktemp("gguf") / "hf", **WIDTHS)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def logits_of(backbone, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_logits_are_those_of_the_dequantized_weights(original, tmp_path, cache, kind):
    """The twin: the original structure with each tensor as `gguf` itself dequantizes it."""
    file = tmp_path / "model.gguf"
    kept = write_gguf(original, file, kind=GGMLQuantizationType[kind])
    twin = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32)
    state = {name: torch.from_numpy(np.array(value)) for name, value in kept.items()}
    twin.load_state_dict(state, strict=False)
    twin.tie_weights()
    ids = torch.randint(5, 300, (2, 40), generator=torch.Generator().manual_seed(3))
    expected = twin.eval()(input_ids=ids).logits
    found = logits_of(load_backbone(file, inference_mode=True, weights=True, dtype="float32"), ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fillers_behind_the_vocabulary_are_no_tokens(tmp_path, cache):
    file = tmp_path / "model.gguf"
    folder = write_tiny("tiny-smollm2", tmp_path / "hf", vocab_size=1000, **WIDTHS)
    write_gguf(folder, file)
    backbone, plain = (load_backbone(where, inference_mode=True) for where in (file, folder))
    assert backbone.num_rows == plain.num_rows
    assert backbone.tokenizer.get_vocab() == plain.tokenizer.get_vocab()


def test_ids_are_those_of_training(original, tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(original, file)
    tokenizer = load_backbone(file, inference_mode=True).tokenizer
    trained = AutoTokenizer.from_pretrained(original)
    trained.backend_tokenizer.pre_tokenizer = _single_digits()
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == trained(text, add_special_tokens=False).input_ids, text
    assert len(tokenizer("1987", add_special_tokens=False).input_ids) == 4
    assert tokenizer.chat_template == trained.chat_template


def _single_digits():
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def test_an_unknown_rule_of_cutting_is_reported(original, tmp_path, cache, caplog):
    file = tmp_path / "model.gguf"
    write_gguf(original, file, rule="some-new-rule")
    log.show()
    load_backbone(file, inference_mode=True)
    assert "some-new-rule" in caplog.text


def test_the_file_is_converted_once_and_again_when_it_changes(original, tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(original, file)
    first = gguf_folder(file)
    assert gguf_folder(file) == first
    write_gguf(original, file, kind=GGMLQuantizationType.Q8_0)
    assert gguf_folder(file) != first


def test_saved_it_is_a_plain_folder_that_others_load(original, tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(original, file, kind=GGMLQuantizationType.Q8_0)
    backbone = load_backbone(file, inference_mode=True, weights=True)
    saved = backbone.save(tmp_path / "saved")
    other = AutoModelForCausalLM.from_pretrained(saved)
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(other(input_ids=ids).logits, logits_of(backbone, ids))
    assert not hasattr(other.config, "quantization_config")


def test_half_precision_rounds_once(original, tmp_path, cache):
    file = tmp_path / "model.gguf"
    kept = write_gguf(original, file, kind=GGMLQuantizationType.Q8_0)
    backbone = load_backbone(file, inference_mode=True, weights=True, dtype="bfloat16")
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(backbone.llm.get_parameter(name), torch.from_numpy(kept[name].copy()).bfloat16())


def test_truncated_at_any_place_is_our_error(original, tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(original, file)
    data = file.read_bytes()
    end_of_head = read_gguf(file).data_start
    draw = random.Random(0)
    cuts = [0, 3, 4, 23, 24, end_of_head - 1, end_of_head, len(data) - 1]
    cuts += [draw.randrange(end_of_head) for _ in range(60)] + [draw.randrange(len(data)) for _ in range(20)]
    for cut in cuts:
        damaged = tmp_path / "cut.gguf"
        damaged.write_bytes(data[:cut])
        with pytest.raises(CheckpointError):
            find(damaged)


def test_damaged_anywhere_in_its_head_is_our_error_or_no_fault(original, tmp_path, cache):
    """Flipped bytes: whatever a reader makes of them, no foreign traceback and no endless read."""
    file = tmp_path / "model.gguf"
    write_gguf(original, file)
    data = bytearray(file.read_bytes())
    # behind the vocabulary and before it: the long list of tokens would draw most of the flips
    head = read_gguf(file).data_start
    draw = random.Random(1)
    for number in range(12):
        mutated = bytearray(data)
        for _ in range(3):
            at = draw.randrange(400) if number % 2 else draw.randrange(head)
            mutated[at] = draw.randrange(256)
        damaged = tmp_path / f"flipped{number}.gguf"
        damaged.write_bytes(mutated)
        with contextlib.suppress(VertebraError):
            load_backbone(damaged, inference_mode=True)


def test_a_file_that_is_something_else(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    with pytest.raises(CheckpointError, match="or a GGUF file"):
        find(other)
    fake = tmp_path / "fake.gguf"
    fake.write_text("hello, this is no such file at all")
    with pytest.raises(CheckpointError, match="no GGUF file"):
        find(fake)
