"""The user's cache of tiny checkpoints, the layout as a hub cache, and what the generation files hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from vertebra.backbone.tiny import TINY, tiny_checkpoint, tiny_text, write_hub_cache
from vertebra.backbone.tiny import write as write_module
from vertebra.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_made_once(cache):
    folder = tiny_checkpoint("tiny-gpt2")
    assert folder.parent == cache / "tiny"
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_checkpoint("tiny-gpt2") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_without_the_variable_it_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("VERTEBRA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert write_module.cache_folder() == tmp_path / ".cache" / "vertebra"


@pytest.mark.parametrize("changed", ["text.txt", "checkpoints.py", "weights.py", "templates/llama2.jinja"])
def test_a_changed_recipe_has_another_folder(changed, monkeypatch, tmp_path):
    before = tiny_checkpoint("tiny-gpt2")
    package = tmp_path / "package"
    shutil.copytree(Path(write_module.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(write_module.resources, "files", lambda _: package)
    assert f"tiny-gpt2-{write_module.recipe_hash()}" == before.name
    (package / changed).write_text((package / changed).read_text() + "\n")
    assert f"tiny-gpt2-{write_module.recipe_hash()}" != before.name


def test_processes_at_once_agree(cache):
    """Both start making it, since neither finds it; the slower one takes what the faster one put there."""
    code = """
import sys, time
from pathlib import Path
import transformers
from vertebra.backbone.tiny import tiny_checkpoint
me, other = Path(sys.argv[1]), Path(sys.argv[2])
save = transformers.GPT2LMHeadModel.save_pretrained
def wait_for_the_other(model, folder):
    save(model, folder)
    me.touch()
    while not other.exists():
        time.sleep(0.01)
transformers.GPT2LMHeadModel.save_pretrained = wait_for_the_other
print(tiny_checkpoint('tiny-gpt2'))
"""
    marks = [str(cache.parent / "one"), str(cache.parent / "two")]
    runs = [
        subprocess.Popen([sys.executable, "-c", code, *order], stdout=subprocess.PIPE, text=True)
        for order in (marks, marks[::-1])
    ]
    answers = [run.communicate(timeout=120)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert answers[0] == answers[1] == str(tiny_checkpoint("tiny-gpt2"))
    assert [path.name for path in (cache / "tiny").iterdir()] == [Path(answers[0]).name]
    transformers.GPT2LMHeadModel.from_pretrained(answers[0])


def test_every_hub_name_loads_offline(tmp_path):
    folder = write_hub_cache(tmp_path / "hub")
    write_hub_cache(tmp_path / "hub")  # again: nothing to do, nothing breaks
    for name, spec in TINY.items():
        tokenizer = AutoTokenizer.from_pretrained(spec.hub_name, cache_dir=folder)
        model = getattr(transformers, spec.llm_cls).from_pretrained(spec.hub_name, cache_dir=folder)
        assert type(model) is type(AutoModelForCausalLM.from_pretrained(spec.hub_name, cache_dir=folder))
        assert len(tokenizer) <= model.config.vocab_size
        local = AutoTokenizer.from_pretrained(tiny_checkpoint(name))
        text = tiny_text()[:2000]
        assert tokenizer(text).input_ids == local(text).input_ids
    assert {path.name for path in folder.iterdir()} == {
        "models--" + spec.hub_name.replace("/", "--") for spec in TINY.values()
    } | {"models--google-bert--bert-base-uncased"}


def test_the_environment_variable_is_enough(tmp_path):
    """Another process, offline, that knows the variable and the real name alone, and may open no socket."""
    folder = write_hub_cache(tmp_path / "hub", {"lmsys/vicuna-7b-v1.5": "tiny-llama2", "gpt2": "tiny-gpt2"})
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('opened a socket')\n"
        "socket.socket.connect = refuse\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "for name in ('lmsys/vicuna-7b-v1.5', 'gpt2'):\n"
        "    rows = AutoModelForCausalLM.from_pretrained(name).config.vocab_size\n"
        "    print(AutoTokenizer.from_pretrained(name)('a').input_ids[0], rows)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    assert first == "1 960"
    assert second.endswith(" 768")


def test_a_hub_name_can_change_its_checkpoint(tmp_path):
    for name in ("tiny-gpt2", "tiny-opt"):
        write_hub_cache(tmp_path / "hub", {"someone/model": name})
        model = AutoModelForCausalLM.from_pretrained("someone/model", cache_dir=tmp_path / "hub")
        assert type(model).__name__ == TINY[name].llm_cls


@pytest.mark.parametrize("bad", ["", "a/b/c", "/a", "a/", "a--b/c", "../x"])
def test_names_that_are_none(bad, tmp_path):
    with pytest.raises(ConfigError, match="no hub name"):
        write_hub_cache(tmp_path / "hub", {bad: "tiny-gpt2"})
    assert not (tmp_path / "hub").exists()


def test_sampling_settings_as_shipped():
    """LLaMA-2's stand there without sampling, which some versions refuse to save again; Qwen's are complete."""
    settings = {
        name: json.loads((tiny_checkpoint(name) / "generation_config.json").read_text())
        for name in ("tiny-llama2", "tiny-qwen2.5", "tiny-gpt2")
    }
    llama = settings["tiny-llama2"]
    assert (llama["temperature"], llama["top_p"], llama["pad_token_id"]) == (0.9, 0.6, 0)
    assert "do_sample" not in llama
    assert settings["tiny-qwen2.5"]["do_sample"] is True
    assert settings["tiny-qwen2.5"]["repetition_penalty"] == 1.1
    assert "temperature" not in settings["tiny-gpt2"]
    assert GenerationConfig.from_pretrained(tiny_checkpoint("tiny-llama2")).temperature == 0.9


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("tiny-llama3", ["<|end_of_text|>", "<|eot_id|>"]),
        ("tiny-phi3", ["<|endoftext|>", "<|assistant|>", "<|end|>"]),
        ("tiny-qwen2.5", ["<|im_end|>", "<|endoftext|>"]),
        ("tiny-gemma3", ["<eos>", "<end_of_turn>"]),
    ],
)
def test_several_stop_tokens(name, stops):
    folder = tiny_checkpoint(name)
    ids = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(ids) == stops


def test_the_text():
    text = tiny_text()
    assert 20_000 <= len(text.encode()) <= 40_000
    for sample in (
        "Робот",
        "机器人",
        "ロボット",
        "로봇",
        "الروبوت",
        "रोबोट",
        "θάλασσα",
        "הרובוט",
        "🤖",
        "def ",
        "RECEIPT",
        "In: What action",
    ):
        assert sample in text
