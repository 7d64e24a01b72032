"""Whole runs from recipes: every one of them in small, folders, refusals, and what a run leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.models import Words, config
from vertebra.backbone.registry import load_backbone
from vertebra.cli.main import run as vertebra
from vertebra.config import differences, read
from vertebra.errors import CheckpointError, ConfigError, DataError, MissingPartError
from vertebra.model.model import Model
from vertebra.training import checkpoint
from vertebra.training.config import RunConfig
from vertebra.training.data import check_size
from vertebra.training.folder import check_claim
from vertebra.training.recipes import read_recipe
from vertebra.training.run import train
from vertebra.training.tiny import tiny_config
from vertebra.training.watching.metrics import read as read_metrics
from vertebra.training.watching.metrics import without_clock
from vertebra.training.watching.report import write_report

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
# a recipe of every kind, which shows what a dry run does of all of that kind
DRY = {yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["kind"]: path for path in RECIPES}


def call(*arguments: Any, code: int = 0) -> None:
    """The command line, in this process."""
    before = sys.argv
    sys.argv = ["vertebra", *map(str, arguments)]
    try:
        vertebra()
    except SystemExit as ended:
        assert (ended.code or 0) == code  # noqa: PT017
    finally:
        sys.argv = before


def test_a_dry_run_makes_no_folder_on_the_way(tmp_path: Path):
    (path,) = [path for path in RECIPES if path.stem == "chat-lora"]
    call("train", path, "--tiny", "--dry-run", "--out", tmp_path / "runs" / "deep" / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_in_small(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    command = ["train", path, "--tiny", "--out", out]
    if path in DRY.values():
        call(*command, "--dry-run")
        assert list(tmp_path.iterdir()) == [], "a dry run leaves nothing"
    call(*command)
    made = tmp_path / "out"
    assert (made / "report.html").is_file()
    assert (made / "loss.png").is_file()
    assert [row["step"] for row in read_metrics(made / "metrics.jsonl") if "loss" in row] == [1, 2, 3, 4]
    name = "adapter" if read_recipe(path).tune.stage == "lora" else "model"
    card = (made / name / "README.md").read_text()
    assert "| steps | 4 |" in card
    assert "| loss (step 4) |" in card
    pictures = {"loss.png", "learning-rate.png", "throughput.png", "gradient-norm.png"}
    measured = {name for row in read_metrics(made / "metrics.jsonl") for name in row.get("eval", {})} - {
        "loss",
        "items",
    }
    expected = {
        "squares": {"success"},
        "pairs": {"accuracy", "f1"},
        "smollm2": {"accuracy"},
        "look": {"accuracy", "count"},
    }
    assert expected.get(path.stem.split("-")[0], set()) <= measured
    pictures |= {f"eval-{name}.png" for name in measured}
    assert {picture.name for picture in made.glob("*.png")} == pictures
    page = (made / "report.html").read_text()
    assert page.count('alt="') >= len(pictures)
    assert ("– missed" in page or "– reached" in page) == ("squares" in path.stem), (
        "what the policy does, before and after"
    )
    assert (made / name / "training" / "run.yaml").is_file()
    assert differences(read(RunConfig, made / "run.yaml"), tiny_config(read_recipe(path), out)) == []


CHAT = next(path for path in RECIPES if path.stem == "chat-lora")


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "run"
    train(tiny_config(read_recipe(CHAT), folder))
    return folder


def test_merge_and_report_answer(lora_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    call("merge", "tiny-llama2", lora_run / "adapter", tmp_path / "merged", "--dtype", "float32")
    assert "good" in capsys.readouterr().out
    assert load_backbone(tmp_path / "merged").num_rows > 0
    call("report", lora_run)
    page = (lora_run / "report.html").read_text()
    assert "data:image/png" in page
    assert "Samples" in page
    assert "before" in page


def test_folders(lora_run: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="--resume, start anew with --overwrite"):
        check_claim(lora_run, resume=False, overwrite=False)
    with pytest.raises(ConfigError, match="give one of them"):
        check_claim(lora_run, resume=True, overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years")
    with pytest.raises(ConfigError, match="holds no run"):
        check_claim(tmp_path / "other", resume=False, overwrite=True)
    assert (tmp_path / "other" / "thesis.tex").is_file()


def test_resuming_a_finished_run_changes_nothing(lora_run: Path):
    before = [without_clock(row) for row in read_metrics(lora_run / "metrics.jsonl")]
    outcome = train(tiny_config(read_recipe(CHAT), lora_run), resume=True)
    assert outcome.step == outcome.steps == 4
    assert [without_clock(row) for row in read_metrics(lora_run / "metrics.jsonl")] == before


def test_resume_without_a_checkpoint_begins_anew(tmp_path: Path):
    outcome = train(tiny_config(read_recipe(CHAT), tmp_path / "new"), resume=True)
    assert outcome.done


def test_the_model_is_the_best_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    losses = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr("vertebra.training.evaluate.Evaluator.__call__", lambda self, learner: {"loss": next(losses)})
    run = tiny_config(read_recipe(next(p for p in RECIPES if p.stem == "chat-full")), tmp_path / "run")
    outcome = train(run)
    best = checkpoint.read_weights(tmp_path / "run" / "checkpoints" / checkpoint.name_of(2))
    model = Model(load_backbone(outcome.model, dtype="float32"))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, best[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim__precision": "fp16"}, "fp16 needs a GPU"),
        ({"parallel__kind": "fsdp"}, "start them with --nproc"),
        ({"epochs": 1.0}, "both is given"),
        ({"model__quantization": "int8", "parallel__kind": "fsdp", "tune__stage": "lora"}, "cannot shard a quantized"),
        ({"model__quantization": "int8"}, "adapters alone"),
        ({"data__kind": "squares"}, "kind `squares` needs a model with a part `image`"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_combinations_that_cannot_work(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        train(config(**changes))


def test_typos_offer_the_nearest_name(capsys: pytest.CaptureFixture[str]):
    call("train", CHAT, "--set", "optim.learning=1", code=1)
    assert "unknown setting `optim.learning`" in capsys.readouterr().err
    call("train", "chat-lroa", code=1)
    assert "no recipe `chat-lroa`. Did you mean `chat-lora`" in capsys.readouterr().err


def test_data_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    own = tmp_path / "own.jsonl"
    call("train", CHAT, "--tiny", "--data", own, "--out", tmp_path / "run", code=1)
    assert "own.jsonl" in capsys.readouterr().err
    turn = '{"messages": [{"role": "user", "content": "Seven?"}, {"role": "assistant", "content": "7"}]}'
    own.write_text(f"{turn}\n" * 40)
    call("train", CHAT, "--tiny", "--data", own, "--out", tmp_path / "run")
    assert read_recipe(tmp_path / "run" / "run.yaml").data.path == str(own)


def test_a_tracker_that_is_not_there(tmp_path: Path):
    with pytest.raises(MissingPartError, match=r"watch\.report_to=trackio"):
        train(tiny_with(tmp_path, watch={"report_to": "trackio"}))


def tiny_with(folder: Path, **parts: dict[str, Any]) -> RunConfig:
    from dataclasses import replace

    made = tiny_config(read_recipe(CHAT), folder / "run")
    return replace(made, **{name: replace(getattr(made, name), **change) for name, change in parts.items()})


def test_data_that_is_not_there(tmp_path: Path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="empty"):
        train(tiny_with(tmp_path, data={"path": str(empty)}))


def test_fewer_samples_than_ranks():
    with pytest.raises(DataError, match="2 samples for 4 ranks"):
        check_size(Words(2), 4)


def test_a_report_of_nothing(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no run with metrics"):
        write_report(tmp_path)


def test_metrics_survive_a_torn_line(tmp_path: Path):
    from vertebra.training.watching.metrics import MetricsFile

    made = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        made.add({"step": step, "loss": 1.0})
    with open(made.path, "a") as file:
        file.write('{"step": 4, "lo')
    made.cut_back(2)
    assert made.path.read_text().splitlines() == [json.dumps({"step": s, "loss": 1.0}) for s in (1, 2)]
