"""The trainer: what it writes, that it resumes bit for bit, and when it stops."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.models import Words, config, tiny, trainer
from vertebra.errors import CheckpointError, ConfigError, DataError, TrainingError
from vertebra.training import checkpoint
from vertebra.training.watching.metrics import read, without_clock


def weights(made: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in made.learner.model.named_parameters()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [without_clock(row) for row in read(folder / "metrics.jsonl")]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)


def test_metrics_are_written_without_a_bar(tmp_path: Path):
    made = trainer(tmp_path, config(watch__bar=False))
    assert made.args.disable_tqdm
    made.train()
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [2, 4]
    assert all({"loss", "lr", "grad_norm", "tokens", "epoch"} <= set(row) for row in found)
    assert found[0]["lr"] > found[1]["lr"] > 0
    assert [p.name for p in checkpoint.checkpoints(tmp_path / "checkpoints")] == ["checkpoint-00000004"]


VARIANTS: dict[str, dict[str, Any]] = {
    "full": {"optim__accumulate": 2},
    "dropout and workers": {"model__backbone": "tiny-gpt2", "data__workers": 1, "optim__accumulate": 2},
    "lora": {"tune__stage": "lora", "tune__lora": {"r": 2, "dropout": 0.1}},
    "bf16": {"optim__precision": "bf16"},
    "muon": {"optim__kind": "muon", "optim__accumulate": 2},
    "muon, lora": {"optim__kind": "muon", "tune__stage": "lora", "tune__lora": {"r": 2}},
    "asynchronous": {"save__asynchronous": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_is_the_uninterrupted_one(variant: str, tmp_path: Path):
    run = config(**VARIANTS[variant], steps=6, save__every=3, watch__every=2, save__keep=9)
    whole = trainer(tmp_path / "whole", run)
    whole.train()
    whole.writer.wait()
    # the second run loses everything after step 3, in the middle of a metrics interval
    folder = tmp_path / "again"
    first = trainer(folder, run)
    first.train()
    first.writer.wait()
    saved = checkpoint.checkpoints(folder / "checkpoints")
    (saved[-1] / checkpoint.WEIGHTS).write_bytes(b"torn")
    newest = checkpoint.newest_good(folder / "checkpoints")
    assert newest is not None
    assert checkpoint.step_of(newest) == 3
    second = trainer(folder, run)
    second.metrics.cut_back(3)
    torch.rand(7)  # whatever was drawn before the resume does not matter
    second.train(resume_from_checkpoint=str(newest))
    second.writer.wait()
    assert same(weights(second), weights(whole))
    assert rows(folder) == rows(tmp_path / "whole")


def test_accumulation_is_one_large_step(tmp_path: Path):
    samples = Words(8)
    large = trainer(tmp_path / "a", config(steps=1, optim__batch=4, optim__accumulate=1), samples=samples)
    small = trainer(tmp_path / "b", config(steps=1, optim__batch=1, optim__accumulate=4), samples=samples)
    large.train()
    small.train()
    assert rows(tmp_path / "a")[0]["tokens"] == rows(tmp_path / "b")[0]["tokens"]
    assert rows(tmp_path / "a")[0]["loss"] == pytest.approx(rows(tmp_path / "b")[0]["loss"], abs=1e-5)
    assert rows(tmp_path / "a")[0]["grad_norm"] == pytest.approx(rows(tmp_path / "b")[0]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(number: signal.Signals, tmp_path: Path):
    made = trainer(tmp_path, config(steps=50, save__every=0))
    before = made.feed.__class__.__iter__

    def signalled(feed: Any) -> Any:
        for count, batch in enumerate(before(feed)):
            if count == 2:
                os.kill(os.getpid(), number)
            yield batch

    class Feed(type(made.feed)):
        __iter__ = signalled

    made.feed.__class__ = Feed
    with made.stopper:
        made.train()
    assert made.stopper.asked == number.name
    (saved,) = checkpoint.checkpoints(tmp_path / "checkpoints")
    assert checkpoint.step_of(saved) == made.state.global_step == 3
    assert not checkpoint.faults(saved)


def spoiled(samples: Words, folder: Path, run: Any) -> Any:
    """A trainer whose model gives NaN from the second step on."""
    model = tiny()
    made = trainer(folder, run, model=model, samples=samples)

    def spoil(module: Any, arguments: Any, output: Any) -> Any:
        return output * float("nan") if made.state.global_step == 1 else output

    model.backbone.layers[0].mlp.register_forward_hook(spoil)
    return made


def test_nan_stops_with_the_batch_kept(tmp_path: Path):
    made = spoiled(Words(), tmp_path, config())
    with pytest.raises(TrainingError, match="step 2: the loss is nan"):
        made.train()
    (kept,) = tmp_path.glob("bad-batch-*.pt")
    assert "input_ids" in torch.load(kept, weights_only=False)[0]


def test_nan_is_skipped_by_choice(tmp_path: Path):
    made = spoiled(Words(), tmp_path, config(on_nan="skip"))
    made.train()
    assert made.not_finite.skipped == 1
    (kept,) = tmp_path.glob("bad-batch-*.pt")
    assert "input_ids" in torch.load(kept, weights_only=False)[0]
    assert [row["loss"] > 0 for row in rows(tmp_path)] == [True, True], "the steps beside it are told"
    assert all(torch.isfinite(p).all() for p in weights(made).values())


def test_an_exploding_loss_stops(tmp_path: Path):
    made = trainer(tmp_path, config(explodes=0.5))
    with pytest.raises(TrainingError, match=r"more than 0\.5 times its mean"):
        made.train()


def test_an_exploding_loss_is_skipped_by_choice(tmp_path: Path):
    made = trainer(tmp_path, config(explodes=0.5, on_nan="skip"))
    made.train()
    assert made.not_finite.skipped == 3
    assert len(list(tmp_path.glob("bad-batch-*.pt"))) == 3


def test_evaluation_best_and_early_stop(tmp_path: Path):
    losses = iter([3.0, 2.0, 2.5, 2.6, 2.7])
    run = config(steps=10, eval__every=1, eval__patience=2, save__every=1, save__keep=1, watch__every=1)
    made = trainer(tmp_path, run, evaluate=lambda learner: {"loss": next(losses)})
    made.train()
    assert made.state.global_step == 4
    assert made.judge.best_step == 2
    kept = [checkpoint.step_of(p) for p in checkpoint.checkpoints(tmp_path / "checkpoints")]
    assert kept == [2, 4]
    assert [row["eval"]["loss"] for row in rows(tmp_path) if "eval" in row] == [3.0, 2.0, 2.5, 2.6]


def resumed(folder: Path, run: Any, **options: Any) -> None:
    made = trainer(folder, run, **options)
    newest = checkpoint.newest_good(folder / "checkpoints")
    made.train(resume_from_checkpoint=str(newest))


def test_checkpoints_of_something_else(tmp_path: Path):
    run = config(steps=2)
    trainer(tmp_path, run, signature={"model": "one"}).train()
    longer = config(steps=4)
    with pytest.raises(CheckpointError, match="another model"):
        resumed(tmp_path, longer, signature={"model": "other"})
    with pytest.raises(CheckpointError, match="another choice of what trains"):
        resumed(tmp_path, config(steps=4, tune__stage="last-blocks"))
    with pytest.raises(DataError, match="the data is not what it was"):
        resumed(tmp_path, longer, samples=Words(seed=1))
    with pytest.raises(ConfigError, match="rows a step"):
        resumed(tmp_path, config(steps=4, optim__batch=3))


@pytest.mark.parametrize("stage", ["lora", "vla-full-train"])
@pytest.mark.parametrize("kinds", [("adamw", "muon"), ("muon", "adamw")])
def test_a_checkpoint_of_another_optimizer(kinds: tuple[str, str], stage: str, tmp_path: Path):
    trainer(tmp_path, config(steps=2, tune__stage=stage, optim__kind=kinds[0])).train()
    with pytest.raises(
        CheckpointError, match=r"written by another optimizer: resume with the `optim.kind` that it had"
    ):
        resumed(tmp_path, config(steps=4, tune__stage=stage, optim__kind=kinds[1]))


def test_nothing_supervised(tmp_path: Path):
    class Silent(Words):
        def vectors(self, index: int, epoch: int = 0) -> dict[str, Any]:
            return {"ids": self.ids[index], "weight": 0.0}

    with pytest.raises(TrainingError, match="no supervised position"):
        trainer(tmp_path, config(), samples=Silent()).train()
