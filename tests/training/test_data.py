"""What a recipe trains on: the sequences that `data show` prints, the prompts of the report, tokens of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.models import config
from vertebra.backbone.registry import load_backbone
from vertebra.data.model_facts import ModelFacts
from vertebra.errors import ConfigError, DataError
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.fresh import new_part
from vertebra.model.model import Model
from vertebra.tasks.chain import data_config
from vertebra.tasks.inspection import set_up
from vertebra.tasks.task import Job
from vertebra.training.building import build_model
from vertebra.training.data import build_data, job_of
from vertebra.training.output import answers
from vertebra.training.run import train

TURNS = [("Turn left.", "left"), ("Turn right.", "right"), ("Go back.", "back"), ("Stop here.", "here")]


def chat_file(folder: Path, turns: Any = TURNS, *, system: str | None = None) -> Path:
    path = folder / "chat.jsonl"
    first = [{"role": "system", "content": system}] if system else []
    rows = [
        {"messages": [*first, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in turns
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        assert np.array_equal(np.asarray(value), np.asarray(other[name])), name


@pytest.mark.parametrize("place", ["slots", "anchored"])
@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5"])
def test_data_show_prints_what_training_reads(name: str, place: Any, tmp_path: Path):
    """Of a model folder: every vector of every sample, slots at their places."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    turns = [{"from": "human", "value": "What is it? <image> Look."}, {"from": "gpt", "value": "Red."}]
    path = tmp_path / "llava.json"
    path.write_text(json.dumps([{"image": "red.png", "conversations": turns}] * 3))
    backbone = load_backbone(name)
    part = new_part(backbone, PatchEncoder(32, image_size=16, patch_size=8), place=place)
    Model(backbone, {"image": part}).save(tmp_path / "model")
    run = config(
        model={"backbone": name, "start": str(tmp_path / "model")},
        data={"kind": "chat", "path": str(path), "held_out": 0.0, "system": "Be brief.", "fold_system": True},
    )
    trained = build_data(run, build_model(run)).train
    model = ModelFacts.find(str(tmp_path / "model"))
    asked_for = data_config(str(path), model, system="Be brief.", fold_system=True)
    shown = set_up(Job(data=asked_for, model=model)).samples
    assert len(trained) == len(shown) == 3
    for index in range(3):
        same(trained.vectors(index), shown.vectors(index))
    slots = np.flatnonzero(trained.sequence(0).slot[:, 0] >= 0)
    assert len(slots) == 4
    assert (slots[0] <= 1) == (place == "anchored")


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5", "tiny-gpt2", "tiny-smollm3"])
@pytest.mark.parametrize("settings", [{}, {"system": "Be brief."}, {"system": "Use <ACT>.", "trusted": ["all"]}])
def test_the_reports_prompts_are_those_of_training(name: str, settings: dict[str, Any], tmp_path: Path):
    path = chat_file(tmp_path)
    data = {"kind": "chat", "path": str(path), "held_out": 0.0, "fold_system": True, **settings}
    run = config(model={"backbone": name, "tokens": ["<ACT>"]}, data=data)
    model = build_model(run)
    samples = build_data(run, model).train
    for index, (question, _) in enumerate(TURNS):
        prompt, whole = run.task.prompt(question, job_of(run, model)), samples.sequence(index)
        assert whole.ids[: len(prompt)].tolist() == prompt.ids.tolist()
        assert not (whole.weight[: len(prompt)] > 0).any()
    act = model.backbone.tokenizer.convert_tokens_to_ids("<ACT>")
    assert (act in prompt.ids) == ("trusted" in settings)


def test_a_recipe_trains_a_token_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The answers hold it as the token, training moves its rows, the model says it, and the report shows that."""
    turns = [(asked, "<ACT>") for asked, _ in TURNS]
    path = chat_file(tmp_path, turns)

    def recipe(**data: Any) -> Any:
        return config(
            model={"backbone": "tiny-llama2", "tokens": ["<ACT>"]},
            data={"kind": "chat", "path": str(path), "eval_path": str(path), "block": 64, **data},
            optim={"lr": 1e-2, "batch": 4, "warmup": 0, "schedule": "constant"},
            watch={"samples": ["Turn left."], "sample_tokens": 4, "bar": False},
            steps=30,
            out=str(tmp_path / "run"),
        )

    plain = recipe()
    before = build_model(plain)
    build_data(plain, before)
    assert "model.tokens: `<ACT>` is in none of the 4 samples" in caplog.text
    caplog.clear()
    outcome = train(recipe(trusted=["assistant"]))
    assert "model.tokens" not in caplog.text
    after = load_backbone(outcome.model)
    act = after.tokenizer.convert_tokens_to_ids("<ACT>")
    old = before.backbone.llm.get_output_embeddings().weight[act]
    assert not torch.equal(after.llm.get_output_embeddings().weight[act], old)
    printed = json.loads((tmp_path / "run" / "samples.json").read_text())
    assert printed["after"][0]["answer"] == "<ACT>"
    assert "&lt;ACT&gt;" in (tmp_path / "run" / "report.html").read_text()


def test_where_a_system_prompt_stands(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"where it stands: for fold give data\.fold_system=true"):
        config(data={"kind": "chat", "path": "x", "system": "fold"})
    with pytest.raises(ConfigError, match="data: system, trusted: of kind `chat` alone"):
        config(data={"kind": "text", "path": "x", "system": "Be brief.", "trusted": ["assistant"]})
    with pytest.raises(ConfigError, match="expected one of assistant, system, tool, all"):
        config(data={"kind": "chat", "path": "x", "trusted": ["user"]})
    path = chat_file(tmp_path, system="Be brief.")
    data = {"kind": "chat", "path": str(path), "held_out": 0.0}
    run = config(model={"backbone": "tiny-mistral"}, data=data)
    model = build_model(run)
    with pytest.raises(DataError, match=r'system="fold".*data\.fold_system=true'):
        build_data(run, model)
    folded = config(model={"backbone": "tiny-mistral"}, data={**data, "fold_system": True})
    assert "Be brief." in model.backbone.tokenizer.decode(build_data(folded, model).train.vectors(0)["ids"])
    assert answers(model, folded) == []
