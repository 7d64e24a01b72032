"""One run from its config to its folder: build, check, train or resume, evaluate, write the model and the report.

OUT/run.yaml          the resolved config          OUT/checkpoints/  to resume from
OUT/metrics.jsonl     every row                    OUT/model/        what other code loads (`adapter/` for LoRA)
OUT/report.html       the report, with PNGs beside it
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vertebra import log
from vertebra.backbone.head_loss import LossRule
from vertebra.errors import ConfigError, MissingPartError, TrainingError
from vertebra.folders import require_place, write_whole
from vertebra.tasks.chain import TaskData
from vertebra.training import checkpoint
from vertebra.training.building import build_late, build_model
from vertebra.training.cached.apply import with_cache
from vertebra.training.cached.layers import UpperLayers
from vertebra.training.config import RunConfig
from vertebra.training.data import build_data, check_size
from vertebra.training.evaluate import Evaluator
from vertebra.training.feed import Feed, steps_of
from vertebra.training.folder import RUN, check_claim, check_finished, claim
from vertebra.training.learner import Learner
from vertebra.training.lock import only_writer
from vertebra.training.output import answers, best_place, finish, write_output
from vertebra.training.own_loss import LossFunction, loss_function
from vertebra.training.planning.budget import log_budget
from vertebra.training.precision import resolved
from vertebra.training.scale.export import model_at
from vertebra.training.scale.sharding import check_hybrid
from vertebra.training.scale.start import Late
from vertebra.training.stop import Stopper
from vertebra.training.watching.metrics import MetricsFile
from vertebra.training.watching.samples import read_samples, write_samples
from vertebra.training.watching.trackers import open_tracker, require_tracker
from vertebra.training.words import WordLearner
from vertebra.tune.lora import Adapter
from vertebra.tune.pieces import as_text, what_trains
from vertebra.tune.stages import choose


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run ended."""

    folder: Path
    step: int
    steps: int
    stopped: str | None = None
    """The signal that ended it early."""
    model: Path | None = None
    found: dict[str, Any] = field(default_factory=dict)
    """The last evaluation."""

    @property
    def done(self) -> bool:
        return self.model is not None


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    loss: LossFunction | None = None,
) -> RunOutcome:
    """Train as the config says. `dry_run` does everything once, in a folder that is removed again. `loss`: a function
    `(outputs, batch, num_items) -> loss` in place of the loss; a recipe names one in `loss.function`."""
    check_machine(config)
    config = resolved(config, recorded=Path(config.folder) / RUN if resume else None)
    if dry_run:
        return _dry(config, loss)
    folder = Path(config.folder)
    with only_writer(folder) if _rank() == 0 else contextlib.nullcontext():
        return _run(config, folder, resume=resume, overwrite=overwrite, loss=loss)


def _run(config: RunConfig, folder: Path, *, resume: bool, overwrite: bool, loss: LossFunction | None) -> RunOutcome:
    first = _rank() == 0
    if first:
        check_claim(folder, resume=resume, overwrite=overwrite)
    # hashing gigabytes needs a processor and no interpreter: it goes on while the model is built
    search = ThreadPoolExecutor(1).submit(checkpoint.newest_good, folder / "checkpoints") if first and resume else None
    made = PreparedRun.of(config)
    trainer = made.trainer(folder, loss)
    newest: Path | None = trainer.shards.gathered(search.result() if search else None)[0]
    finished = newest is not None and trainer.finished_at(newest)
    if first and newest is not None and finished:
        check_finished(folder, config, checkpoint.step_of(newest))
    trainer.shards.gathered(True)  # every rank has found that the run can begin; only now is anything written
    if first:
        claim(folder, config, overwrite=overwrite)
        if resume:
            _go_on(folder, newest)
    _answer_before(made, trainer, folder)
    if first:
        trainer.tracker = open_tracker(config, folder, step=checkpoint.step_of(newest) if newest else 0)
    with trainer.stopper:
        try:
            if newest is not None and finished:
                trainer.put_back(newest)
            else:
                trainer.train(resume_from_checkpoint=str(newest) if newest else None)
            trainer.writer.wait()
        finally:
            trainer.writer.join()  # the folder is given away with nobody writing into it
            trainer.display.close()
            if trainer.tracker is not None:
                trainer.tracker.close()
    if trainer.stopper.asked is not None and trainer.state.global_step < made.feed.steps:
        trainer.shards.leave()
        return RunOutcome(
            folder=folder, step=trainer.state.global_step, steps=made.feed.steps, stopped=trainer.stopper.asked
        )
    model = _written(made, trainer, folder)
    return RunOutcome(
        folder=folder, step=trainer.state.global_step, steps=made.feed.steps, model=model, found=_last_eval(folder)
    )


def _go_on(folder: Path, newest: Path | None) -> None:
    """The metrics cut back to a checkpoint."""
    MetricsFile(folder).cut_back(checkpoint.step_of(newest) if newest else 0)
    if newest is None:
        log.info(f"`{folder}` holds no checkpoint yet; the run starts at its beginning")
    else:
        log.info(f"going on from `{newest}`")


def _answer_before(made: PreparedRun, trainer: Any, folder: Path) -> None:
    """What the model says before it is trained; of a sharded one by all ranks together."""
    if trainer.shards.gathered("before" in read_samples(folder))[0]:
        return
    before: Any = []
    if trainer.shards.sharded:
        before = trainer.learner(call=lambda model: answers(model, made.config))
    elif trainer.shards.rank == 0:
        before = answers(made.model, made.config)
    if trainer.shards.rank == 0:
        write_samples(folder, {"before": before})


def _written(made: PreparedRun, trainer: Any, folder: Path) -> Path:
    """The model's folder, by rank 0 alone: the others have left by then, and wait for nothing."""
    shards, config = trainer.shards, made.config
    if not shards.sharded:
        shards.leave()
        return write_output(made.model, made.adapter, config, trainer, folder) if shards.rank == 0 else folder
    best = shards.gathered(best_place(trainer, folder) if shards.rank == 0 else None)[0]
    if best is not None:
        shards.load_weights(trainer, best)
    after = trainer.learner(call=lambda model: answers(model, config))
    shards.leave()
    if shards.rank:
        return folder
    place = best or folder / "checkpoints" / checkpoint.name_of(trainer.state.global_step)
    with model_at(config, place) as (model, adapter):
        return finish(model, adapter, config, folder, trainer.judge.best_step, after)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedRun:
    """Everything of a run but its trainer."""

    config: RunConfig
    model: Any
    adapter: Adapter | None
    data: TaskData
    feed: Feed
    upper: UpperLayers | None = None
    """The layers that are run, where what the others compute is kept."""
    late: Late | None = None
    """What of the model comes when it is sharded."""

    @classmethod
    def of(cls, config: RunConfig) -> PreparedRun:
        rank, world = _rank(), int(os.environ.get("WORLD_SIZE", "1"))
        model: Any
        late: Late | None = None
        if config.parallel.kind == "fsdp" and world > 1:
            model, late = build_late(config)
        else:
            model = build_model(config)
        data = build_data(config, model)
        check_size(data.train, world)
        adapter = choose(model, config.tune, seed=config.seed)
        data, upper = with_cache(model, data, config)
        if config.optim.checkpointing:
            model.enable_gradient_checkpointing()
        loader = data.loader(config.optim.batch, rank=rank, world=world)
        steps = steps_of(loader, steps=config.steps, epochs=config.epochs, accumulate=config.optim.accumulate)
        log.info(as_text(what_trains(model)))
        feed = Feed(loader, steps=steps, accumulate=config.optim.accumulate)
        return cls(config=config, model=model, adapter=adapter, data=data, feed=feed, upper=upper, late=late)

    def trainer(self, folder: Path, own: LossFunction | None = None, **options: Any) -> Any:
        from vertebra.training.trainer import ExactTrainer  # needs accelerate

        learner = self._learner(own)
        evaluator = Evaluator.of(self.config, self.data)
        signature = {"model": signature_of(self.model)}
        return ExactTrainer(
            learner,
            self.config,
            self.feed,
            folder,
            evaluate=evaluator,
            signature=signature,
            stopper=Stopper(),
            **options,
        )

    def _learner(self, own: LossFunction | None) -> Learner:
        shift = self.data.task.shift
        if self.config.tune.stage == "words":
            return WordLearner(self.model, shift=shift)
        loss = self.config.loss
        return Learner(
            self.model,
            rule=LossRule(label_smoothing=loss.label_smoothing, z_loss=loss.z_loss),
            fused=loss.fused,
            shift=shift,
            function=own or (loss_function(loss.function) if loss.function else None),
            upper=self.upper,
            late=self.late,
        )


def check_machine(config: RunConfig) -> None:
    """What this machine cannot do, or does not have, before anything loads."""
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise MissingPartError("training", "accelerate", "train") from None
    require_tracker(config)
    require_place(Path(config.folder))
    if config.loss.function:
        loss_function(config.loss.function)
    if config.optim.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("optim.precision=fp16 needs a GPU: on a CPU use bf16 or fp32")
    sharded = config.parallel.kind == "fsdp"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if sharded and world < 2:
        raise ConfigError("parallel.kind=fsdp shards over several processes; start them with --nproc N or torchrun")
    check_hybrid(config.parallel.hybrid, world)


def signature_of(model: Any) -> str:
    """Which model a checkpoint belongs to: its class, its pretrained name and its shapes."""
    import hashlib

    shapes = hashlib.sha256()
    for name, parameter in model.named_parameters():
        shapes.update(f"{name} {tuple(parameter.shape)} {parameter.requires_grad};".encode())
    return f"{model.identifier}/{shapes.hexdigest()[:16]}"


def _dry(config: RunConfig, loss: LossFunction | None = None) -> RunOutcome:
    """Memory, data, tokens, one step forward and backward, one evaluation, one checkpoint; nothing stays."""
    if _rank() == 0:
        log_budget(config, int(os.environ.get("WORLD_SIZE", "1")))
    short = replace(config, steps=1, epochs=None, out=None, save=replace(config.save, asynchronous=False))
    short = replace(
        short, eval=replace(config.eval, batches=1), watch=replace(config.watch, bar=False, report_to="none")
    )
    made = PreparedRun.of(short)
    found: dict[str, Any] = {}

    def once(part: Path) -> None:
        trainer = made.trainer(part, loss)
        trainer.train()
        wrong = checkpoint.faults(part / "checkpoints" / checkpoint.name_of(1))
        if wrong:
            raise TrainingError(f"the checkpoint could not be read back: {'; '.join(wrong)}")
        found.update(_last_eval(part))
        found["samples"] = "a stream" if made.data.train is None else f"{len(made.data.train)} samples"
        raise _Done

    target = Path(config.folder).absolute().parent / f"{config.name}-dry-run"
    missing = [folder for folder in target.parents if not folder.exists()]  # the deepest first
    try:
        with contextlib.suppress(_Done):
            write_whole(target, once, replace=False)
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # somebody else's by now
                folder.rmdir()
    log.info(f"dry run: {found['samples']}, one step, one evaluation and one checkpoint are good")
    return RunOutcome(folder=Path(config.folder), step=1, steps=made.feed.steps, found=found)


class _Done(Exception):
    """Leaves nothing behind: what is written aside is removed."""


def _last_eval(folder: Path) -> dict[str, Any]:
    from vertebra.training.watching.metrics import METRICS, read

    rows: Sequence[dict[str, Any]] = [row["eval"] for row in read(folder / METRICS) if "eval" in row]
    return dict(rows[-1]) if rows else {}


def _rank() -> int:
    return log.rank()
