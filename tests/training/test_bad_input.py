"""What is wrong with a recipe, its data, its folder or its checkpoint is told in one message that says what to do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_run import RECIPES, call
from vertebra.backbone.tiny import write_tiny
from vertebra.config import read_mapping, write
from vertebra.errors import CheckpointError, ConfigError, DataError, VertebraError
from vertebra.training import checkpoint
from vertebra.training.config import RunConfig
from vertebra.training.folder import check_claim, claim
from vertebra.training.recipes import read_recipe
from vertebra.training.run import train
from vertebra.training.scale.export import export
from vertebra.training.tiny import tiny_config
from vertebra.training.watching.metrics import read as read_metrics

FULL = next(path for path in RECIPES if path.stem == "chat-full")
LINES = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {n + n}."} for n in range(12)]


def chat(path: Path, lines: list[dict[str, str]] = LINES) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_of(folder: Path, *, steps: int = 2, **parts: dict[str, Any]) -> RunConfig:
    """Two steps on a few conversations, a checkpoint after each."""
    made = tiny_config(read_recipe(FULL), folder / "run")
    parts = {
        "data": {"path": str(folder / "chat.jsonl")},
        "save": {"every": 1, "keep": 9},
        "eval": {"every": 0},
        "watch": {"samples": ()},
    } | parts
    changed = {name: replace(getattr(made, name), **change) for name, change in parts.items()}
    return replace(made, steps=steps, **changed)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    chat(folder / "chat.jsonl")
    train(run_of(folder))
    return folder


@pytest.fixture
def mine(done: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be spoiled."""
    shutil.copytree(done, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optim: {learning_rate: 1}", "unknown setting `optim.learning_rate`"),
        ("optim: {bach: 4}", "Did you mean `batch`"),
        ("optimm: {}", "unknown setting `optimm`. Did you mean `optim`"),
        ("data: {kind: chatt, path: x}", "unknown kind of data `chatt`. Did you mean `chat`"),
        ("optim: {batch: four}", "optim.batch: str 'four'; expected an integer"),
        ("tune: {stage: last-layer}", "Did you mean `last-layer-finetune`"),
    ],
)
def test_typos_in_a_recipe(line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "mine.yaml"
    kept = {"name": "name: x", "model": "model: {backbone: tiny-llama2}", "data": "data: {kind: chat, path: x}"}
    kept[line.split(":")[0]] = line
    recipe.write_text("\n".join([*kept.values(), "steps: 1"]))
    call("train", recipe, code=1)
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_exists(mine: Path, capsys: pytest.CaptureFixture[str]):
    recipe = write(run_of(mine), mine / "again.yaml")
    call("train", recipe, code=1)
    assert "Go on with --resume, start anew with --overwrite, or name another (--out)" in capsys.readouterr().err
    (mine / "run" / "left").write_text("over")
    call("train", recipe, "--overwrite")
    assert not (mine / "run" / "left").exists()
    assert [row["step"] for row in read_metrics(mine / "run" / "metrics.jsonl") if "loss" in row] == [1, 2]


@pytest.mark.parametrize("kind", ["text", "chat", "masked"])
def test_an_empty_dataset(kind: str, tmp_path: Path):
    (tmp_path / "chat.jsonl").write_text("")
    recipe = next(
        p for p in RECIPES if p.stem == {"text": "causal-lm", "chat": "chat-full", "masked": "masked-lm"}[kind]
    )
    run = tiny_config(read_recipe(recipe), tmp_path / "run")
    with pytest.raises(DataError, match="empty"):
        train(replace(run, data=replace(run.data, path=str(tmp_path / "chat.jsonl"))))


def test_a_truncated_data_file(tmp_path: Path):
    path = chat(tmp_path / "chat.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"chat\.jsonl.*12"):
        train(run_of(tmp_path))


def test_data_that_changed_since_the_checkpoint(mine: Path):
    chat(mine / "chat.jsonl", [*LINES[:-1], {"prompt": "Who?", "completion": "Nobody."}])
    with pytest.raises(DataError, match="the data is not what it was"):
        train(run_of(mine, steps=3), resume=True)


def test_the_checkpoint_of_another_model(mine: Path):
    other = run_of(mine, steps=3, model={"backbone": "tiny-llama2"})
    with pytest.raises(
        CheckpointError, match=r"checkpoint of another model: tiny-qwen2\.5.*this run trains tiny-llama2"
    ):
        train(other, resume=True)


def test_the_checkpoint_of_another_choice_of_what_trains(mine: Path):
    with pytest.raises(CheckpointError, match="another model"):
        train(run_of(mine, steps=3, tune={"stage": "last-layer-finetune"}), resume=True)


def test_another_number_of_rows_a_step(mine: Path):
    with pytest.raises(ConfigError, match="rows a step"):
        train(run_of(mine, steps=3, optim={"batch": 3}), resume=True)


def test_another_number_of_ranks(mine: Path, caplog: pytest.LogCaptureFixture):
    """Two ranks wrote it, one goes on: all but the random numbers."""
    place = mine / "run" / "checkpoints" / checkpoint.name_of(2)
    payload = checkpoint.read_payload(place)
    snapshot = checkpoint.Snapshot(
        step=2,
        weights=checkpoint.read_weights(place),
        payload=payload | {"generators": payload["generators"] * 2},
        state=checkpoint.read_state(place) | {"world": 2},
        trainer_state=(place / "trainer_state.json").read_text(),
    )
    checkpoint.write(place.parent, snapshot)
    assert train(run_of(mine, steps=3), resume=True).step == 3
    assert "the checkpoint has 2 ranks, this run 1" in caplog.text


def test_settings_that_changed_are_listed(mine: Path, caplog: pytest.LogCaptureFixture):
    train(run_of(mine, steps=3), resume=True)
    assert "steps: 2 → 3" in caplog.text


def test_the_one_before_a_damaged_checkpoint(mine: Path, caplog: pytest.LogCaptureFixture):
    damaged = mine / "run" / "checkpoints" / checkpoint.name_of(2) / checkpoint.TENSORS
    damaged.write_bytes(damaged.read_bytes()[:-100])
    before = torch.load(mine / "run" / "checkpoints" / checkpoint.name_of(2) / checkpoint.OPTIMIZER)
    assert train(run_of(mine), resume=True).step == 2
    assert "is damaged and passed over: optimizer.safetensors has" in caplog.text
    assert checkpoint.faults(damaged.parent) == []
    assert torch.load(damaged.parent / checkpoint.OPTIMIZER).keys() == before.keys()


def test_a_model_file_that_was_cut(tmp_path: Path):
    chat(tmp_path / "chat.jsonl")
    model = write_tiny("tiny-llama2", tmp_path / "model")
    file = next(Path(model).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(VertebraError, match="truncated"):
        train(run_of(tmp_path, model={"backbone": str(model)}))


def seen(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder, and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


FURTHER = {"steps": 3}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({**FURTHER, "model": {"backbone": "tiny-llama2"}}, "another model"),
    "another model of a finished run": ({"model": {"backbone": "tiny-llama2"}}, "another model"),
    "another stage": ({**FURTHER, "tune": {"stage": "last-layer-finetune"}}, "another model"),
    "rows a step": ({**FURTHER, "optim": {"batch": 3}}, "rows a step"),
    "rows a step of a finished run": ({"optim": {"batch": 8}}, "rows a step"),
    "a setting of a finished run": ({"optim": {"lr": 0.5}}, "is finished .step 2.*optim.lr: .* → 0.5"),
    "fewer steps than were trained": ({"steps": 1}, "is finished .step 2.*steps: 2 → 1"),
    "a file that is not there": ({**FURTHER, "data": {"path": "nowhere.jsonl"}}, "nowhere.jsonl"),
    "a loss that is not there": ({**FURTHER, "loss": {"function": "nowhere:loss"}}, "nowhere"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_resume_changes_nothing(name: str, mine: Path):
    """Nothing is written before everything is checked: the folder is as it was, to the byte."""
    changes, message = REFUSED[name]
    before = seen(mine / "run")
    with pytest.raises(VertebraError, match=f"(?s){message}"):
        train(run_of(mine, **changes), resume=True)
    assert seen(mine / "run") == before
    assert not list((mine / "run").glob(".*"))


def test_after_a_refused_resume_the_run_is_exported_and_goes_on(mine: Path):
    with pytest.raises(CheckpointError, match="another model"):
        train(run_of(mine, steps=3, model={"backbone": "tiny-llama2"}), resume=True)
    export(mine / "run", mine / "out")
    assert train(run_of(mine, steps=3), resume=True).step == 3


def test_a_finished_run_takes_settings_that_change_nothing(mine: Path):
    outcome = train(run_of(mine, watch={"samples": (), "every": 2}, save={"every": 1, "keep": 3}), resume=True)
    assert outcome.done
    assert read_mapping(mine / "run" / "run.yaml")["watch"]["every"] == 2


@pytest.mark.parametrize("text", ["", '{"before": [', "[]"])
def test_records_that_an_earlier_version_left_half_written(text: str, mine: Path):
    """They block no resume."""
    (mine / "run" / "samples.json").write_text(text)
    assert train(run_of(mine, steps=3), resume=True).done
    assert json.loads((mine / "run" / "samples.json").read_text()).keys() == {"before", "after"}


def test_what_a_kill_left_is_swept(mine: Path):
    run = mine / "run"
    for name in (".model.x1y2z3", ".adapter.abcd", ".model.old.abcd", ".overwritten.abcd"):
        (run / name).mkdir()
        (run / name / "model.safetensors").write_bytes(b"0" * 1000)
    (run / ".samples.json.ab12.part").write_text("{")
    (run / "checkpoints" / ".checkpoint-00000003.xyz").mkdir()
    (run / ".mine").write_text("a file of the user's")
    train(run_of(mine, steps=3), resume=True)
    assert [path.name for path in run.rglob(".*")] == [".mine"]


def test_a_kill_while_a_folder_is_emptied_leaves_one_that_can_be_used(mine: Path, monkeypatch: pytest.MonkeyPatch):
    """At every rename: it is still a run's folder, or an empty one."""
    rename, counted = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        if ".overwritten." in str(target):
            counted.append(self)
            if len(counted) == stop:
                raise KeyboardInterrupt
        return rename(self, target)

    whole = len(list((mine / "run").iterdir()))
    for stop in range(1, whole + 2):
        shutil.copytree(mine / "run", mine / f"run-{stop}")
        config = replace(run_of(mine), out=str(mine / f"run-{stop}"))
        counted.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            if stop <= whole:
                with pytest.raises(KeyboardInterrupt):
                    claim(mine / f"run-{stop}", config, overwrite=True)
        check_claim(mine / f"run-{stop}", resume=False, overwrite=True)
        claim(mine / f"run-{stop}", config, overwrite=True)
        assert sorted(p.name for p in (mine / f"run-{stop}").iterdir()) == ["checkpoints", "run.yaml"]


def test_no_room_for_the_model(mine: Path, monkeypatch: pytest.MonkeyPatch):
    """The training itself is never lost: the same command writes the model once there is room."""
    shutil.rmtree(mine / "run" / "model")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vertebra.training.output.write_model", full)
        with pytest.raises(CheckpointError, match=r"No space left.*its checkpoint is whole; make room.*--resume"):
            train(run_of(mine), resume=True)
    assert train(run_of(mine), resume=True).model == mine / "run" / "model"


def test_bad_data_leaves_no_folder_and_takes_no_run_away(mine: Path, tmp_path: Path):
    """The folder is claimed when the run can begin; bad rows are left out where the recipe says so."""
    bad = chat(tmp_path / "bad.jsonl")
    bad.write_text(bad.read_text() + "{broken\n")
    config = run_of(tmp_path, data={"path": str(bad)})
    with pytest.raises(DataError, match=r"bad\.jsonl:13: malformed JSON[\s\S]*data\.on_bad=skip"):
        train(config)
    assert not (tmp_path / "run").exists()
    before = (mine / "run" / "metrics.jsonl").read_text()
    with pytest.raises(DataError, match="malformed JSON"):
        train(replace(config, out=str(mine / "run")), overwrite=True)
    assert (mine / "run" / "metrics.jsonl").read_text() == before
    assert train(replace(config, data=replace(config.data, on_bad="skip"))).step == 2


def test_a_stage_before_its_first(tmp_path: Path):
    recipe = next(path for path in RECIPES if path.stem == "squares")
    settings = [f"model.start={tmp_path / 'none'}", f"out={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"model\.start: there is no folder .* run that recipe first"):
        train(read_recipe(recipe, settings))


@pytest.mark.parametrize("out", [".", "run", "run/checkpoints", "run/checkpoints/NEWEST", "run/../run", "link"])
def test_no_export_replaces_the_run_that_it_reads(out: str, mine: Path):
    newest = checkpoint.newest_good(mine / "run" / "checkpoints")
    assert newest is not None
    (mine / "link").symlink_to(mine / "run", target_is_directory=True)
    before = seen(mine / "run")
    with pytest.raises(CheckpointError, match="would be lost by being replaced; name another folder"):
        export(mine / "run", mine / out.replace("NEWEST", newest.name), overwrite=True)
    assert seen(mine / "run") == before
    export(mine / "run", mine / "run" / "exported")  # beside what is read there is room
    export(mine / "run", mine / "run" / "exported", overwrite=True)
