"""The tiny checkpoints: each name loads as its explicit class, and its habits hold as probed by encoding."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from vertebra.backbone.tiny import TINY, TINY_ENCODERS, tiny_checkpoint, write_hub_cache, write_tiny
from vertebra.errors import CheckpointError, ConfigError, UnknownNameError

# name: (token put in front, pad token, tokens, rows, tied), written down from the real repositories' manners.
HABITS = {
    "tiny-llama2": ("<s>", None, 960, 960, False),
    "tiny-llama3": ("<|begin_of_text|>", None, 768, 768, False),
    "tiny-mistral": ("<s>", None, 960, 960, False),
    "tiny-phi2": (None, None, 760, 832, False),
    "tiny-phi3": (None, "<|endoftext|>", 971, 1024, False),
    "tiny-qwen2": (None, "<|endoftext|>", 763, 832, False),
    "tiny-qwen2.5": (None, "<|endoftext|>", 782, 832, True),
    "tiny-qwen3": (None, "<|endoftext|>", 786, 832, True),
    "tiny-opt": ("</s>", "<pad>", 762, 768, True),
    "tiny-opt-narrow": ("</s>", "<pad>", 762, 768, True),
    "tiny-gpt2": (None, None, 768, 768, True),
    "tiny-gemma2": ("<bos>", "<pad>", 960, 960, True),
    "tiny-gemma3": ("<bos>", "<pad>", 960, 960, True),
    "tiny-smollm2": (None, "<|im_end|>", 768, 768, True),
    "tiny-smollm3": (None, "<|im_end|>", 768, 768, True),
    "tiny-pythia": (None, "<|padding|>", 760, 768, False),
}
FIXED_IDS = {
    "tiny-llama2": ["<unk>", "<s>", "</s>", "<0x00>"],
    "tiny-mistral": ["<unk>", "<s>", "</s>", "<0x00>"],
    "tiny-opt": ["<s>", "<pad>", "</s>", "<unk>"],
    "tiny-gemma2": ["<pad>", "<eos>", "<bos>", "<unk>"],
    "tiny-smollm2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "tiny-pythia": ["<|endoftext|>", "<|padding|>"],
    "tiny-bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
}
ALL = [*TINY, *TINY_ENCODERS]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEBRA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@cache
def load(name: str):
    spec = {**TINY, **TINY_ENCODERS}[name]
    model_cls = getattr(transformers, spec.llm_cls)
    model, facts = model_cls.from_pretrained(tiny_checkpoint(name), dtype=torch.float32, output_loading_info=True)
    assert not facts["missing_keys"]
    assert not facts["unexpected_keys"]
    return model.eval()


@cache
def tokenizer_of(name: str):
    return AutoTokenizer.from_pretrained(tiny_checkpoint(name))


def greedy(model, ids: list[int], steps: int) -> list[int]:
    """The plain loop: no cache, no `generate`."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-steps:]


def bytes_of(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def in_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names():
    assert list(HABITS) == list(TINY)
    assert list(TINY_ENCODERS) == ["tiny-bert"]
    assert all(name == spec.name and spec.rows >= spec.tokenizer.size for name, spec in TINY.items())


def test_listing_them_imports_no_torch():
    code = "import sys, vertebra.backbone.tiny as t; t.TINY; t.tiny_text(); t.write.recipe_hash()\n"
    assert in_python(code + "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])") == "[]"


@pytest.mark.parametrize("name", HABITS)
def test_habits(name):
    front, pad, tokens, rows, tied = HABITS[name]
    tokenizer, model = tokenizer_of(name), load(name)
    with_marks = tokenizer("red cup").input_ids
    without = tokenizer("red cup", add_special_tokens=False).input_ids
    probed = with_marks[: len(with_marks) - len(without)]
    assert tokenizer.convert_ids_to_tokens(probed) == ([front] if front else [])
    assert tokenizer.pad_token == pad
    assert len(tokenizer) == tokens
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    assert (len(embedding), len(head.weight), model.config.vocab_size) == (rows, rows, rows)
    assert (head.weight is embedding) == tied == bool(model.config.tie_word_embeddings)
    assert (head.bias is not None) == (name == "tiny-phi2")
    assert embedding.shape[1] == (32 if name == "tiny-opt-narrow" else model.config.hidden_size)
    assert tokenizer.eos_token_id < tokens
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 512


@pytest.mark.parametrize("name", FIXED_IDS)
def test_first_ids(name):
    tokens = FIXED_IDS[name]
    assert tokenizer_of(name).convert_ids_to_tokens(list(range(len(tokens)))) == tokens


@pytest.mark.parametrize("name", ALL)
def test_added_tokens_stand_where_the_row_says(name):
    spec = {**TINY, **TINY_ENCODERS}[name].tokenizer
    tokenizer = tokenizer_of(name)
    tail = [*spec.last, *spec.plain]
    expected = dict(enumerate(spec.first)) | dict(enumerate(tail, start=spec.size - len(tail)))
    added = tokenizer.added_tokens_decoder
    assert {number: token.content for number, token in added.items()} == expected
    assert {token.content for token in added.values() if not token.special} == set(spec.plain)
    for number, token in expected.items():
        assert tokenizer(token, add_special_tokens=False).input_ids == [number]


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral", "tiny-phi3"])
def test_the_lone_space_is_a_token_outside_the_last_256(name):
    tokenizer = tokenizer_of(name)
    lone = tokenizer.convert_tokens_to_ids("▁")
    assert lone not in (None, tokenizer.unk_token_id)
    assert lone < 960 - 256  # action bins take the last ids of the vocabulary


@pytest.mark.parametrize("name", HABITS)
@settings(max_examples=25)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=20))
def test_every_text_comes_back(name, text):
    """Byte fallback or bytes: nothing is unknown, in any script."""
    tokenizer = tokenizer_of(name)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    kind = TINY[name].tokenizer.kind
    if kind in ("qwen", "neox"):
        text = unicodedata.normalize("NFC", text)
    elif kind == "metaspace":
        text = text.removeprefix(" ")  # taken for the mark before the first word
    assert tokenizer.decode(ids) == text
    assert tokenizer(text).input_ids[len(tokenizer("").input_ids) :] == ids


def test_where_the_space_mark_is_put():
    """LLaMA-2 and Mistral mark the first word alone; Phi-3, as older files do, the text after every mark too."""

    def pieces(name: str, text: str) -> list[str]:
        tokenizer = tokenizer_of(name)
        return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)

    for name in ("tiny-llama2", "tiny-mistral"):
        assert pieces(name, "a</s>a") == ["▁a", "</s>", "a"]
    assert pieces("tiny-phi3", "a<|endoftext|>a") == ["▁a", "<|endoftext|>", "▁a"]
    assert pieces("tiny-phi3", "<|end|>\n a") == ["<|end|>", "▁a"]  # the mark swallows white space to its right
    assert set(tokenizer_of("tiny-phi3")("the red cup").word_ids()) == {0}


def test_bert_has_token_types_and_a_mask():
    tokenizer, model = tokenizer_of("tiny-bert"), load("tiny-bert")
    batch = tokenizer("The [MASK] cup", "is RED 機", return_tensors="pt")
    assert batch.token_type_ids[0].tolist() == [0] * 5 + [1] * (batch.input_ids.shape[1] - 5)
    tokens = tokenizer.convert_ids_to_tokens(batch.input_ids[0])
    assert (tokens[0], tokens[2], tokens[-1]) == ("[CLS]", "[MASK]", "[SEP]")
    assert "[UNK]" in tokens
    assert "red" in tokens or "re" in tokens  # lower case
    swapped = model(**{**batch, "token_type_ids": 1 - batch.token_type_ids}).logits
    assert not torch.allclose(model(**batch).logits, swapped, atol=1e-2)


@pytest.mark.parametrize("name", HABITS)
def test_the_weights_are_alive(name):
    model, tokenizer = load(name), tokenizer_of(name)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.std() > 1e-3, parameter_name
        assert len(parameter.unique()) > 1, parameter_name
    answers = [
        greedy(model, tokenizer(text).input_ids, 12) for text in ("Pick up the cup.", "Where is it?", "def a(b):")
    ]
    assert len({tuple(answer) for answer in answers}) == 3
    assert max(len(set(answer)) for answer in answers) >= 3
    assert all(token < len(tokenizer) for answer in answers for token in answer)
    logits = model(torch.tensor([tokenizer("The door is").input_ids])).logits[0, :, : len(tokenizer)]
    assert 2 < logits.std(dim=-1).mean() < 5


WINDOWED = {"tiny-mistral": 2 * 7, "tiny-phi3": 2 * 7}  # how far back the last position sees, through two layers


@pytest.mark.parametrize("name", HABITS)
@torch.no_grad()
def test_windows(name):
    """Change one early token: behind every layer's window it cannot matter; anywhere else it must."""
    model = load(name)
    ids = torch.arange(300, 330)[None]
    base = model(ids).logits[0, -1]

    def moved(position: int) -> float:
        changed = ids.clone()
        changed[0, position] = 299
        return float((model(changed).logits[0, -1] - base).abs().max())

    assert moved(-3) > 1e-3
    if name in WINDOWED:
        reach = WINDOWED[name]
        assert moved(-2 - reach) == 0
        assert moved(-1 - reach) > 0
    else:
        assert moved(1) > 1e-3
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if name in ("tiny-gemma2", "tiny-gemma3"):
        assert kinds == {"sliding_attention", "full_attention"}
        assert model.config.sliding_window == 8
    elif name.startswith("tiny-qwen"):
        assert kinds == {"full_attention"}
        assert not model.config.use_sliding_window


def test_smollm3_has_a_layer_without_rotary_positions():
    assert load("tiny-smollm3").config.no_rope_layers == [1, 1, 1, 0]


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_bytes(name, tmp_path):
    """Against the cached one, with another hash seed and another state of the global generator."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = write_tiny(name, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), state)
    assert bytes_of(again) == bytes_of(tiny_checkpoint(name))
    other = bytes_of(write_tiny(name, tmp_path / "other", seed=1))
    differing = {file for file, digest in bytes_of(again).items() if other[file] != digest}
    assert differing == {"model.safetensors"}


def test_another_process_gives_the_same_bytes(tmp_path):
    names = ["tiny-llama2", "tiny-llama3", "tiny-gemma3", "tiny-bert"]
    code = (
        f"from vertebra.backbone.tiny import write_tiny\nfor n in {names}: write_tiny(n, {str(tmp_path)!r} + '/' + n)"
    )
    assert in_python(code, PYTHONHASHSEED="77") == ""
    for name in names:
        assert bytes_of(tmp_path / name) == bytes_of(tiny_checkpoint(name))


def test_it_prints_nothing(tmp_path, capfd):
    write_tiny("tiny-gpt2", tmp_path / "x")
    assert capfd.readouterr() == ("", "")


def test_what_is_there_is_refused_or_replaced(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    write_tiny("tiny-gpt2", folder)  # an empty folder is fine
    (folder / "mine.txt").write_text("keep me")
    with pytest.raises(CheckpointError, match=r"not empty.*overwrite=True"):
        write_tiny("tiny-opt", folder)
    assert (folder / "mine.txt").read_text() == "keep me"
    write_tiny("tiny-opt", folder, overwrite=True)
    assert not (folder / "mine.txt").exists()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "opt"
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        write_tiny("tiny-opt", tmp_path / "file", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args, **_settings):
        raise OSError("disk full")

    monkeypatch.setattr(transformers.OPTForCausalLM, "save_pretrained", fail)
    old = write_tiny("tiny-gpt2", tmp_path / "x")
    before = bytes_of(old)
    with pytest.raises(OSError, match="disk full"):
        write_tiny("tiny-opt", tmp_path / "x", overwrite=True)
    with pytest.raises(OSError, match="disk full"):
        write_tiny("tiny-opt", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert bytes_of(old) == before


def test_overrides(tmp_path):
    deeper = write_tiny("tiny-gemma3", tmp_path / "a", num_hidden_layers=5, dtype="bfloat16")
    config = json.loads((deeper / "config.json").read_text())
    assert (config["num_hidden_layers"], len(config["layer_types"]), config["dtype"]) == (5, 5, "bfloat16")
    narrow = write_tiny("tiny-gpt2", tmp_path / "b", hidden_size=32)  # GPT-2 calls it n_embd
    assert json.loads((narrow / "config.json").read_text())["n_embd"] == 32
    with pytest.raises(UnknownNameError, match=r"`hiden_size`.*`hidden_size`"):
        write_tiny("tiny-llama2", tmp_path / "c", hiden_size=32)
    with pytest.raises(ConfigError, match="LlamaConfig cannot have these settings"):
        write_tiny("tiny-llama2", tmp_path / "c", hidden_size=66)
    with pytest.raises(ConfigError, match=r"vocab_size=100 is smaller .* 960 tokens"):
        write_tiny("tiny-llama2", tmp_path / "c", vocab_size=100)
    with pytest.raises(ConfigError, match=r"no dtype of torch; expected float32"):
        write_tiny("tiny-llama2", tmp_path / "c", dtype="half-ish")
    assert not (tmp_path / "c").exists()


def test_unknown_names():
    with pytest.raises(UnknownNameError, match=r"`tiny-qwen2\.5`"):
        tiny_checkpoint("tiny-qwen25")
    with pytest.raises(UnknownNameError, match="Known: tiny-llama2"):
        write_hub_cache("nowhere", {"a/b": "tiny-nothing"})


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Name a folder that you may write to"):
        write_tiny("tiny-gpt2", tmp_path / "file" / "x")
