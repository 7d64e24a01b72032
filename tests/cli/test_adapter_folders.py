"""`generate`, `trace` and `score` on an adapter's folder: its base is the one that it names, or the one that is given."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tune.models import backbone, train_a_little, with_parts
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.model.model import Model
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.lora import LoraConfig
from vertebra.tune.merge import merge
from vertebra.tune.stages import TuneConfig, choose

ASKED = "Pick up the red block"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter of ours on tiny-llama2, with a new token."""
    model = backbone("tiny-llama2")
    grow_vocabulary(model, ["<ACT>"])
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=4)))
    train_a_little(model)
    return save_adapter(model, adapter, tmp_path_factory.mktemp("adapters") / "ours")


@pytest.fixture(scope="module")
def of_peft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that PEFT made alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = AutoModelForCausalLM.from_pretrained(tiny_checkpoint("tiny-qwen2"), dtype=torch.float32)
        config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        folder = tmp_path_factory.mktemp("adapters") / "peft"
        peft.get_peft_model(plain, config).save_pretrained(folder)
    return folder


def answer(vertebra: Any, *arguments: Any) -> dict[str, Any]:
    done = vertebra("generate", *map(str, arguments), "--raw", "--max-new-tokens", "6", "--json", "--dtype", "float32")
    assert done.code == 0, done.err
    return json.loads(done.out)


def tokens_of(model: Any, text: str) -> list[int]:
    """What the model says greedily: every token from the whole row computed anew."""
    ids = model.tokenizer(text).input_ids
    for _ in range(6):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        ids.append(int(logits[: len(model.tokenizer)].argmax()))
    return ids[-6:]


def test_our_folder_names_its_base(vertebra: Any, ours: Path):
    model, _ = load_adapter("tiny-llama2", ours, dtype="float32")
    reply = answer(vertebra, ours, ASKED)
    assert reply["tokens"] == tokens_of(model.eval(), ASKED)
    assert reply["tokens"] != answer(vertebra, "tiny-llama2", ASKED)["tokens"]
    assert reply["model"] == str(ours)
    assert answer(vertebra, ours, ASKED, "--base", "tiny-llama2")["tokens"] == reply["tokens"]


def test_a_folder_of_peft_names_its_base(vertebra: Any, of_peft: Path):
    model, _ = load_adapter("tiny-qwen2", of_peft, dtype="float32")
    expected = tokens_of(model.eval(), "Pick up")
    assert answer(vertebra, of_peft, "Pick up")["tokens"] == expected
    assert answer(vertebra, of_peft, "Pick up", "--base", "tiny-qwen2")["tokens"] == expected


def test_trace_and_score_take_them_too(vertebra: Any, ours: Path):
    traced = json.loads(vertebra("trace", str(ours), ASKED, "--raw", "--max-new-tokens", "2", "--json").out)
    assert traced["model"] == str(ours)
    scored = json.loads(vertebra("score", str(ours), ASKED, " now", " then", "--raw", "--json").out)
    assert scored["model"] == str(ours)


def test_an_adapter_on_a_model_folder(vertebra: Any, tmp_path: Path):
    base = with_parts("tiny-qwen2").save(tmp_path / "base")
    model = Model.load(base, dtype="float32")
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=4, projector=True)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05 if "lora_B" in name else 0.0)
    folder = save_adapter(model, adapter, tmp_path / "adapter")
    assert answer(vertebra, folder, "Pick up")["tokens"] == tokens_of(model.eval().backbone, "Pick up")
    shutil.move(base, tmp_path / "elsewhere")
    done = vertebra("generate", str(folder), "Pick up", "--raw")
    assert done.code == 1
    assert "which is neither an id nor a folder here. Name its base: --base" in " ".join(done.err.split())
    moved = answer(vertebra, folder, "Pick up", "--base", tmp_path / "elsewhere")
    assert moved["tokens"] == tokens_of(model.backbone, "Pick up")


def test_a_merged_folder_goes_by_its_own_name(vertebra: Any, ours: Path, tmp_path: Path):
    merge("tiny-llama2", ours, tmp_path / "merged", dtype="float32")
    reply = answer(vertebra, tmp_path / "merged", ASKED)
    assert reply["model"] == str(tmp_path / "merged")
    assert reply["tokens"] == answer(vertebra, ours, ASKED)["tokens"]
    traced = vertebra("trace", str(tmp_path / "merged"), ASKED, "--raw", "--max-new-tokens", "2", "--json")
    assert json.loads(traced.out)["model"] == str(tmp_path / "merged")
    assert answer(vertebra, "tiny-qwen2", ASKED)["model"] == "tiny-qwen2"


def test_what_cannot_be(vertebra: Any, ours: Path, of_peft: Path, tmp_path: Path):
    done = vertebra("generate", "tiny-qwen2", ASKED, "--base", "tiny-qwen2")
    assert done.code == 2
    assert "`tiny-qwen2` is a model of its own" in re.sub(r"[│\s]+", " ", done.err)
    done = vertebra("generate", str(ours), ASKED, "--base", "tiny-qwen2")
    assert done.code == 1
    assert "this is another base" in done.err
    folder = Path(shutil.copytree(of_peft, tmp_path / "nameless"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    done = vertebra("generate", str(folder), ASKED)
    assert done.code == 1
    assert "does not say which base it was trained on" in " ".join(done.err.split())


def run_with(folder: Path, left: Path, name: str) -> Path:
    """The folder of a run that left this in `model/` or `adapter/`."""
    folder.mkdir()
    (folder / "run.yaml").write_text("name: mine\n")
    shutil.copytree(left, folder / name)
    return folder


def test_a_run_stands_for_the_model_it_left(vertebra: Any, tmp_path: Path):
    run = run_with(tmp_path / "run", tiny_checkpoint("tiny-llama2"), "model")
    about = json.loads(vertebra("info", str(run), "--json").out)
    assert about == json.loads(vertebra("info", str(run / "model"), "--json").out)
    shown, plain = (
        json.loads(vertebra("prompt", str(one), "--user", ASKED, "--json").out) for one in (run, run / "model")
    )
    assert shown["ids"] == plain["ids"]
    assert shown["text"] == plain["text"]
    checked = vertebra("check", str(run), "--only", "save-load,rows", "--json")
    assert checked.code == 0, checked.err
    assert json.loads(checked.out)["model"] == str(run / "model")


def test_a_run_stands_for_the_adapter_it_left(vertebra: Any, ours: Path, tmp_path: Path):
    run = run_with(tmp_path / "run", ours, "adapter")
    done = vertebra("merge", "tiny-llama2", str(run), str(tmp_path / "merged"), "--dtype", "float32")
    assert done.code == 0, done.err
    assert answer(vertebra, tmp_path / "merged", ASKED)["tokens"] == answer(vertebra, run, ASKED)["tokens"]
    for out in (run, run / "adapter"):
        done = vertebra("merge", "tiny-llama2", str(run), str(out), "--overwrite")
        assert done.code == 1
        assert "which is read here and would be lost" in " ".join(done.err.split())
    for command in (["info"], ["prompt", "--user", "hi"], ["check"]):
        done = vertebra(command[0], str(run), *command[1:])
        assert done.code == 1
        assert "is an adapter and has no config.json of its own. Give its base, or the folder that" in " ".join(
            done.err.split()
        )


def test_a_model_whose_config_was_lost_is_no_adapter(vertebra: Any, tmp_path: Path):
    folder = with_parts("tiny-qwen2").save(tmp_path / "model")
    (folder / "config.json").unlink()
    done = vertebra("info", str(folder))
    assert done.code == 1
    assert "has no config.json" in done.err
    assert "adapter and" not in done.err
