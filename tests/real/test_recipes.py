"""The recipes of real models teach what they promise, as far as minutes go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vertebra as vt
from vertebra.training.recipes import read_recipe
from vertebra.training.watching.metrics import read


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_habit_learned_by_lora(smollm2_folder, tmp_path: Path):
    """From no answer in JSON to nearly all; merged, it has the habit still."""
    settings = [
        f"model.backbone={smollm2_folder}",
        f"out={tmp_path / 'run'}",
        "data.options={asked: 40}",
        "eval.every=0",
    ]
    run = vt.train(read_recipe("smollm2-lora", settings))
    rows = [row["eval"] for row in read(tmp_path / "run" / "metrics.jsonl") if "eval" in row]
    assert rows[-1]["accuracy"] >= 0.9
    samples = json.loads((tmp_path / "run" / "samples.json").read_text())
    assert not any("right" in row["answer"] for row in samples["before"])
    merged = vt.merge(smollm2_folder, run.model, tmp_path / "merged", dtype="float32")
    assert merged is not None
    answer = vt.generate(
        str(tmp_path / "merged"), "Good morning! Emma here, I need three white candles.", max_new_tokens=40
    )
    assert json.loads(answer.text[0]) == {"item": "candle", "color": "white", "count": 3}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_model_that_sees(smollm2_folder, dinov2_folder, tmp_path: Path):
    """The demo's cut of `look-words` and `look`: far above what guessing reaches, in three minutes of processor time."""
    common = [f"model.backbone={smollm2_folder}", "data.count=800", "eval.every=0", "save.every=0", "watch.bar=false"]
    words = vt.train(
        read_recipe(
            "look-words",
            [
                *common,
                f"model.image.name={dinov2_folder}",
                f"out={tmp_path / 'words'}",
                "steps=400",
                "data.options={questions: 0, slots: 1.0, asked: 1, things: 1}",
            ],
        )
    )
    seen = vt.train(
        read_recipe(
            "look",
            [
                *common,
                f"model.start={words.model}",
                f"out={tmp_path / 'look'}",
                "steps=60",
                "data.options={slots: 0.3, asked: 60, things: 1}",
            ],
        )
    )
    assert seen.found["accuracy"] >= 0.6
    assert seen.found["accuracy"] - seen.found["guessing"] >= 0.2
