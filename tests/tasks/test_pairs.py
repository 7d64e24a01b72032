"""A recipe trains a classifier of sentence pairs, from a published file to accuracy and F1, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.models import config
from vertebra.data.encode.classifier import load_classifier
from vertebra.errors import ConfigError, DataError
from vertebra.tasks.pairs import scores
from vertebra.training.building import build_model
from vertebra.training.data import build_data
from vertebra.training.run import train

WHO = ["the robot", "a child", "my neighbor", "the nurse"]
WHAT = ["the cup", "two boxes", "the old clock", "a red lamp", "the gate"]


def mrpc(path: Path, *, extra: str = "") -> Path:
    """A file as MRPC is published: a denial is no paraphrase."""
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    for number, (who, what) in enumerate((who, what) for who in WHO for what in WHAT):
        one = f'"Look," said {who}, "I found {what}.'
        lines += [f"1\t{number}\t0\t{one}\t{who} came upon {what}", f"0\t{number}\t1\t{one}\t{who} never found {what}"]
    path.write_text("\n".join(lines) + f"\n{extra}")
    return path


def recipe(path: Path, out: Path | None = None, **data: Any) -> Any:
    return config(
        model={"backbone": "tiny-bert"},
        data={"kind": "pairs", "path": str(path), "held_out": 0.2, "batching": "shuffled", **data},
        optim={"lr": 3e-3, "batch": 8, "warmup": 0.1},
        eval={"every": 40},
        save={"every": 40, "asynchronous": False},
        watch={"bar": False, "every": 20},
        steps=120,
        out=None if out is None else str(out),
    )


def test_from_a_published_file_to_accuracy_and_f1(tmp_path: Path):
    path = mrpc(tmp_path / "msr_paraphrase_train.tsv")
    outcome = train(recipe(path, tmp_path / "run", labels=["different", "same"]))
    assert outcome.found["accuracy"] == 1.0
    assert outcome.found["f1"] == 1.0
    assert outcome.found["items"] == 8
    model = load_classifier(str(outcome.model))
    asked = [("the nurse found the cup", f"the nurse {verb} the cup") for verb in ("came upon", "never found")]
    assert [name for name, _ in model.classify(asked)] == ["same", "different"]
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| accuracy (step 120) | 1.0000 |" in card
    page = (tmp_path / "run" / "report.html").read_text()
    assert "evaluation: accuracy" in page
    assert "evaluation: f1" in page
    assert json.loads((Path(str(outcome.model)) / "config.json").read_text())["id2label"] == {
        "0": "different",
        "1": "same",
    }


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40), st.sampled_from([2, 3]))
def test_accuracy_and_f1_are_those_of_the_books(pairs: list[tuple[int, int]], classes: int):
    pairs = [(min(a, classes - 1), min(b, classes - 1)) for a, b in pairs]
    confusion = torch.zeros((classes, classes), dtype=torch.float64)
    for is_, text in pairs:
        confusion[is_, text] += 1
    f1 = []
    for one in range(classes):
        right = sum(is_ == text == one for is_, text in pairs)
        precision = right / max(1, sum(text == one for _, text in pairs))
        recall = right / max(1, sum(is_ == one for is_, _ in pairs))
        f1.append(2 * precision * recall / (precision + recall) if right else 0.0)
    found = scores(confusion)
    assert found["accuracy"] == pytest.approx(sum(is_ == text for is_, text in pairs) / len(pairs))
    assert found["f1"] == pytest.approx(f1[1] if classes == 2 else sum(f1) / classes)


def test_what_cannot_be_trained_is_refused_with_its_reason(tmp_path: Path):
    path = mrpc(tmp_path / "a.tsv", extra="2\t9\t9\tone\tother\n")
    with pytest.raises(DataError, match=r"0 20, 1 20, 2 1; 2 may be a slip.*data\.labels"):
        build_model(recipe(path))
    assert len(build_model(recipe(path, labels=[0, 1, 2])).labels) == 3
    mrpc(path, extra="maybe\t9\t9\tone\tother\n")
    run = recipe(path)
    with pytest.raises(DataError, match="unknown label: `maybe`"):
        build_data(run, build_model(run))
    kept = recipe(path, on_bad="skip", held_out=0.0)
    assert len(build_data(kept, build_model(kept)).train) == 40
    path.write_text("sentence1\tsentence2\tlabel\na\tb\t0.5\nc\td\t2.5\n")
    with pytest.raises(DataError, match="numbers of a regression"):
        build_model(recipe(path))
    path.write_text("sentence1\tsentence2\tlabel\na\tb\t0\nc\td\t0\n")
    with pytest.raises(DataError, match="two classes or more"):
        build_model(recipe(path))
    text = config(data={"kind": "text", "path": str(mrpc(path))})
    with pytest.raises(DataError, match="this row is a pair; pairs with a class train an encoder: kind `pairs`"):
        build_data(text, build_model(text))
    with pytest.raises(ConfigError, match="encoders are trained in full"):
        config(model={"backbone": "tiny-bert"}, data={"kind": "pairs", "path": "x"}, tune={"stage": "lora"})
    with pytest.raises(ConfigError, match="labels: of kinds `chat`, `pairs` alone"):
        config(data={"kind": "text", "path": "x", "labels": ["a"]})
