"""`ExactTrainer`: the Hugging Face `Trainer`, made to count by weight, to draw nothing while fetching, to check each
step, and to save and restore everything that the next step depends on.

The engine (autocast, accumulation, DDP and FSDP through accelerate) stays the library's. What one step goes through:

    get_batch_samples   fetch; count the weight of all micro-batches on all ranks
    training_step       forward, loss / that count, backward
    pre-optimizer       unscale, clip, is everything finite?
    step end            metrics, evaluation, checkpoint, stop
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from vertebra import log
from vertebra.errors import CheckpointError, TrainingError
from vertebra.sequence.loss import count_items
from vertebra.training import checkpoint
from vertebra.training.arguments import training_arguments
from vertebra.training.config import RunConfig
from vertebra.training.feed import Feed, random_state, random_untouched, set_random_state
from vertebra.training.learner import Learner
from vertebra.training.optim import make_optimizer, make_schedule
from vertebra.training.scale.sharding import leave_unwrapped, shard
from vertebra.training.scale.shards import Shards
from vertebra.training.stop import Stopper
from vertebra.training.watch import Interval, Judge, NotFinite
from vertebra.training.watching.metrics import MetricsFile
from vertebra.training.watching.progress import Display
from vertebra.training.watching.trackers import Tracker
from vertebra.tune.gradients import check_gradients

Evaluate = Callable[[Learner], dict[str, float]]


class ExactTrainer(Trainer):
    """One run's trainer. `folder` holds `metrics.jsonl` and `checkpoints/`."""

    def __init__(
        self,
        learner: Learner,
        config: RunConfig,
        feed: Feed,
        folder: Path,
        *,
        evaluate: Evaluate | None = None,
        signature: Mapping[str, Any] | None = None,
        stopper: Stopper | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.feed, self.folder = config, feed, folder
        self.stopper = stopper or Stopper()
        self.metrics = MetricsFile(folder)
        self.evaluator, self.signature = evaluate, dict(signature or {})
        self.interval, self.judge = Interval(), Judge(patience=config.eval.patience)
        self.not_finite = NotFinite(folder, choice=config.on_nan, explodes=config.explodes)
        self.grad_norm = 0.0
        self.restored: dict[str, Any] | None = None
        self.tracker: Tracker | None = None
        settings = training_arguments(config, folder, feed.steps, dict(arguments or {}))
        sharded = config.parallel.kind == "fsdp" and settings.world_size > 1
        if sharded:
            learner = shard(learner, config, settings.device, settings.world_size)
        # what DDP wraps: accelerate's way back to it looks for every engine there is, at every step
        self.learner = learner
        super().__init__(model=learner, args=settings, callbacks=[_Steps(self)])
        if sharded:
            leave_unwrapped(self.accelerator, config)
        # rows go to metrics.jsonl and to the display; the printer would put dicts between them
        self.remove_callback(PrinterCallback)
        self.shards = Shards(self.accelerator, sharded=sharded)
        self.writer = checkpoint.SnapshotWriter(
            folder / "checkpoints",
            keep=config.save.keep,
            asynchronous=config.save.asynchronous and not self.shards.sharded,
            first=self.metrics.flush,  # nobody may lack the rows that a checkpoint counts on
        )
        self.display = Display(feed.steps, shown=config.watch.bar and self.is_world_process_zero())

    def train(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().train(*arguments, **named)
        finally:
            self.feed.close()

    # --- what a step is made of

    def get_train_dataloader(self) -> Any:
        return self.feed

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any = None
    ) -> tuple[list, Any]:
        """The micro-batches of one step, and the weight that their losses are divided by."""
        with random_untouched():
            batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        if self.restored is not None:
            # the first fetch after a resume starts workers and draws seeds; only now is the state the saved one
            set_random_state(self.restored)
            self.restored = None
        counted = [count_items({**b, "weights": b["weights"].double()}, shift=self.learner.shift) for b in batches]  # type: ignore[arg-type]
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        totals = torch.tensor([float(sum(counted)), float(tokens)], dtype=torch.float64)
        totals = self.shards.summed(totals)
        if totals[0] <= 0:
            raise TrainingError(
                f"step {self.state.global_step + 1}: no supervised position in any of its micro-batches. Check that "
                "answers are supervised and were not cut away"
            )
        self.interval.begin(tokens=int(totals[1]), batches=batches)
        return batches, totals[0].to(self.args.device)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        items = num_items_in_batch
        loss = model(**inputs, num_items_in_batch=items)["loss"]
        self.interval.loss(loss.detach())
        # ranks are averaged afterwards, and the count is over all of them already
        loss = loss * self.shards.world
        return (loss, {}) if return_outputs else loss

    def before_optimizer(self) -> None:
        """Unscale, clip, and look before anything moves."""
        self.grad_norm = self._clipped_norm(self.config.optim.clip or float("inf"))
        loss = float(self.shards.summed(self.interval.step_loss().double().cpu()))
        self.interval.end(loss)
        scaler = self.accelerator.scaler
        if scaler is not None and self.grad_norm in (float("inf"), float("-inf")):
            return  # the scaler skips the step and halves its scale: that is how it finds it
        if not self.not_finite.accepts(self.state.global_step + 1, loss, self.grad_norm, self.interval.batches):
            self.model_wrapped.zero_grad(set_to_none=True)
            return
        if self.state.global_step == 0:
            found = check_gradients(self.learner.model, self.config.tune.zero_gradient)
            found.require_good()
            log.info(str(found))

    def _clipped_norm(self, clip: float) -> float:
        """The norm of all gradients, which are clipped to it: a pass over them that is spared where it changes nothing."""
        if self.shards.sharded:
            return self.shards.number(self.accelerator.clip_grad_norm_(self.model_wrapped.parameters(), clip))
        self.accelerator.unscale_gradients()
        moving = [p for p in self.model_wrapped.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in moving if p.grad is not None])
        if norm > clip:
            torch.nn.utils.clip_grads_with_norm_(moving, clip, norm)
        return float(norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        """The Trainer would walk all gradients for a norm of its own, and unscale them a second time."""
        return self.grad_norm

    def after_step(self) -> None:
        """Metrics, evaluation, checkpoint, stop: in this order, so that a checkpoint knows what was written."""
        step, config = self.state.global_step, self.config
        self.writer.check()
        stop = self.shards.agreed(self.stopper.asked is not None)
        last = step >= self.feed.steps
        if step % config.watch.every == 0 or last:
            self._log_interval(step)
        if self.evaluator is not None and (last or (config.eval.every and step % config.eval.every == 0)):
            self._evaluate_now(step)
        scheduled = config.save.every and step % config.save.every == 0
        if scheduled or last or stop or self.judge.gave_up:
            self.save_now()
        if stop or self.judge.gave_up:
            self.control.should_training_stop = True
        self.display.step(step, self.interval.last_loss, self._lr(), self.interval.rate)

    def _log_interval(self, step: int) -> None:
        row, clock = self.interval.row()
        shown = {"epoch": round(self.feed.progress, 6), **row, "lr": self._lr(), "grad_norm": self.grad_norm}
        if self.is_world_process_zero():
            self.metrics.add({"step": step, **shown, "clock": clock})
        self.log({f"train/{name}": value for name, value in (shown | clock).items()})

    def _evaluate_now(self, step: int) -> None:
        assert self.evaluator is not None, "called only where there is one"
        start = time.perf_counter()
        with random_untouched():
            found = self.evaluator(self.learner)
        self.judge.see(step, found["loss"])
        if self.is_world_process_zero():
            clock = {"seconds": time.perf_counter() - start}
            self.metrics.add({"step": step, "eval": found, "clock": clock})
        self.log({f"eval/{name}": value for name, value in found.items()})
        self.display.evaluated(found["loss"], self.judge.best)
        self.interval.pause(time.perf_counter() - start)

    def _lr(self) -> float:
        """The learning rate that the step which just ended had."""
        assert self.lr_scheduler is not None, "made before the first step"
        last = self.lr_scheduler.last_epoch - 1
        return self.config.optim.lr * self.lr_scheduler.lr_lambdas[0](max(0, last))

    # --- optimizer and schedule

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer: Any = make_optimizer(self.model if model is None else model, self.config.optim)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.lr_scheduler = make_schedule(_plain(optimizer or self.optimizer), self.feed.steps, self.config.optim)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """To a tracker, and to callbacks. The Trainer's own history would grow without end."""
        if self.tracker is not None and all("/" in name for name in logs):  # the Trainer's own summary has none
            self.tracker.log(logs, self.state.global_step)
        self.control: Any = self.callback_handler.on_log(self.args, self.state, self.control, dict(logs))

    # --- checkpoints

    def save_now(self) -> Path | None:
        """Write a checkpoint of this very step."""
        start = time.perf_counter()
        if self.shards.sharded:
            self.metrics.flush()
        state = {
            "step": self.state.global_step,
            "feed": self.feed.state_dict(),
            "interval": self.interval.state_dict(),
            "judge": self.judge.state_dict(),
            "not_finite": self.not_finite.state_dict(),
            "world": self.shards.world,
            **self.signature,
        }
        self.state.epoch = self.feed.progress
        trainer_state = _trainer_state(self.state)
        made = self.shards.save(self, state, trainer_state)
        self.interval.pause(time.perf_counter() - start)
        return made

    def generators(self) -> list[dict[str, Any]]:
        """The random state of every rank."""
        return self.shards.gathered(random_state())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.shards.load_weights(self, Path(resume_from_checkpoint))

    def finished_at(self, folder: Path) -> bool:
        """Whether a run has come to its end with this checkpoint; one that it cannot go on from is refused."""
        state = read_own_state(folder, self.signature)
        self.feed.load_state_dict(state["feed"])
        self.judge.load_state_dict(state["judge"])
        return int(state["step"]) >= self.feed.steps or self.judge.gave_up

    def put_back(self, folder: Path) -> None:
        """The weights of the checkpoint that a run has ended with."""
        self._load_from_checkpoint(str(folder))
        self.state.global_step = checkpoint.step_of(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        state = read_own_state(folder, self.signature)
        payload = self.shards.load_optimizer(self, folder)
        self.lr_scheduler.load_state_dict(payload["schedule"])
        if self.accelerator.scaler is not None and payload["scaler"]:
            self.accelerator.scaler.load_state_dict(payload["scaler"])
        self.feed.load_state_dict(state["feed"])
        self.interval.load_state_dict(state["interval"])
        self.judge.load_state_dict(state["judge"])
        self.not_finite.load_state_dict(state["not_finite"])
        self.display.begin_at(int(state["step"]))
        generators = payload["generators"]
        if len(generators) == self.shards.world:
            self.restored = generators[self.shards.rank]
        else:
            log.warn(
                f"the checkpoint has {len(generators)} ranks, this run {self.shards.world}: random numbers (dropout) "
                "start anew; everything else goes on"
            )

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Done with the optimizer."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Done at the first fetch."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Never: `save_now` does it, and the Trainer's own strategy is `no`."""


class _Steps(TrainerCallback):
    """Where the Trainer lets us in."""

    def __init__(self, trainer: ExactTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.before_optimizer()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.trainer.after_step()
        return self.trainer.control


def read_own_state(folder: Path, signature: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint, if it is one of this model."""
    state = checkpoint.read_state(folder)
    expected = signature.get("model")
    if expected is not None and state.get("model") != expected:
        raise CheckpointError(
            f"`{folder}` is the checkpoint of another model: {state.get('model')}; this run trains {expected}. Name "
            "another folder (--out), or start anew (--overwrite)"
        )
    return state


def _plain(optimizer: Any) -> Any:
    """The torch optimizer inside accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


def _trainer_state(state: Any) -> str:
    import dataclasses
    import json

    kept = dataclasses.asdict(state) | {"log_history": [], "stateful_callbacks": {}}
    return json.dumps(kept, indent=1)
