"""Training beside a plain `Trainer` and a bare loop; head and loss beside full logits; merging beside PEFT's own way.

One thread, process CPU time, both sides in turn; the A/A line is ours against ours. Memory is counted by rehearsal,
in bytes that are alive at once, not by a clock.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Trainer, TrainingArguments

from vertebra.backbone.head_loss import head_loss
from vertebra.backbone.registry import load_backbone
from vertebra.config import build
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import Shuffled
from vertebra.data.samples.samples import Samples
from vertebra.model.model import Model
from vertebra.sequence.loss import token_losses
from vertebra.training.building import fresh_weights
from vertebra.training.config import RunConfig
from vertebra.training.feed import Feed
from vertebra.training.learner import Learner
from vertebra.training.planning.rehearsal import Alive
from vertebra.training.trainer import ExactTrainer
from vertebra.tune.lora import LoraConfig, add_lora
from vertebra.tune.merge import merge_in_place

TEN_MILLION = {"hidden_size": 320, "num_hidden_layers": 6, "intermediate_size": 1024, "num_attention_heads": 5,
               "num_key_value_heads": 5, "head_dim": 64}  # fmt: skip
ROWS, LENGTH, STEPS = 4, 64, 8


class Fixed(Samples):
    """Rows of one length."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.ids = rng.integers(5, 900, (ROWS * STEPS, LENGTH))
        self.lengths = np.full(len(self.ids), LENGTH)

    def vectors(self, index: int, epoch: int = 0) -> dict[str, Any]:
        return {"ids": self.ids[index]}

    def where(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return "fixed"


def model(**overrides: Any) -> Model:
    backbone = load_backbone("tiny-llama2", inference_mode=True, dtype="float32", config_overrides=overrides)
    return Model(fresh_weights(backbone)[0])


def ours(made: Model, folder: Path) -> Callable[[], float]:
    tree = {
        "name": "bench",
        "model": {"backbone": "tiny-llama2"},
        "data": {"kind": "text", "path": "none"},
        "optim": {"batch": ROWS, "lr": 1e-4, "weight_decay": 0.01},
        "watch": {"every": STEPS},
        "steps": STEPS,
    }
    config = build(RunConfig, tree)

    def run() -> float:
        loader = Loader(Fixed(), Shuffled(ROWS), Collator(0))
        trainer = ExactTrainer(Learner(made), config, Feed(loader, steps=STEPS, accumulate=1), folder)
        trainer.save_now = lambda: None  # type: ignore[method-assign]
        return _timed_steps(trainer)

    return run


def theirs(made: Model, folder: Path) -> Callable[[], float]:
    rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(Fixed().ids)]

    def run() -> float:
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=ROWS, learning_rate=1e-4,
            weight_decay=0.01, logging_steps=STEPS, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(model=made.backbone.llm, args=arguments, train_dataset=rows)
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        return _timed_steps(trainer)

    return run


def bare(made: Model) -> Callable[[], float]:
    ids = torch.from_numpy(Fixed().ids)
    llm = made.backbone.llm

    def run() -> float:
        optimizer = torch.optim.AdamW(llm.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        start = 0.0
        for step in range(STEPS):
            start = time.process_time() if step == 1 else start
            batch = ids[step * ROWS : (step + 1) * ROWS]
            loss = llm(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return (time.process_time() - start) / (STEPS - 1)

    return run


def _timed_steps(trainer: Any) -> float:
    """Seconds a step, the first one (which makes states and checks gradients) left out."""
    times: list[float] = []
    before = trainer.training_step

    def step(*arguments: Any, **options: Any) -> Any:
        times.append(time.process_time())
        return before(*arguments, **options)

    trainer.training_step = step
    trainer.train()
    return (times[-1] - times[1]) / (len(times) - 2)


def paired(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median of what each returns, in turn."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return {name: statistics.median(values) for name, values in found.items()}


def bench_steps() -> None:
    """A run's steps, beside those of a plain `Trainer` (asked: as many a second) and of a bare loop (asked: 1.10 ×)."""
    print(f"one step of {ROWS} × {LENGTH} positions, CPU seconds; medians of rounds in which all take a turn")
    bodies = {
        "10 M": TEN_MILLION,
        "10 M and a vocabulary of 32 k": {**TEN_MILLION, "vocab_size": 32_000},
        "tiny": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in bodies.items():
            made, place = model(**overrides), Path(folder)
            works = {
                "ours": ours(made, place),
                "Trainer": theirs(made, place),
                "bare": bare(made),
                "A/A": ours(made, place),
            }
            rounds = [{side: work() for side, work in works.items()} for _ in range(7)]
            t = {side: statistics.median(taken[side] for taken in rounds) for side in works}
            ratio = {side: statistics.median(taken[side] / taken["ours"] for taken in rounds) for side in works}
            print(
                f"  {name}: ours {t['ours'] * 1e3:.1f} ms, Trainer {t['Trainer'] * 1e3:.1f} ms, bare loop "
                f"{t['bare'] * 1e3:.1f} ms; Trainer/ours {ratio['Trainer']:.2f} ×, ours/bare {1 / ratio['bare']:.2f} ×, "
                f"Trainer/bare {ratio['Trainer'] / ratio['bare']:.2f} × (A/A {ratio['A/A']:.2f})"
            )
    print(
        "  A step counts its weight over all micro-batches, looks at every loss and norm, and plans its attention: about\n"
        "  1 ms, which a tiny model shows. The fused head earns it back many times where the vocabulary is a real one."
    )


def _full(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return token_losses(torch.nn.functional.linear(hidden, weight), targets).sum()


def _fused(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return head_loss(hidden, weight, None, targets, torch.ones(len(targets)))


def _alive(work: Callable[..., torch.Tensor], count: int, rows: int, dtype: torch.dtype) -> int:
    """Bytes alive at the highest point of forward and backward, without hidden states and weights themselves."""
    with FakeTensorMode():
        hidden = torch.empty(count, 256, dtype=dtype, requires_grad=True)
        weight = torch.empty(rows, 256, dtype=dtype, requires_grad=True)
        targets = torch.zeros(count, dtype=torch.long)
        with Alive([hidden, weight]) as alive:
            work(hidden, weight, targets).backward()
        return max(alive.peaks)


def bench_head() -> None:
    print("head and loss with their gradients, 1024 × 256, beside full logits (in brackets: on 30 % of positions)")
    for rows in (32_000, 128_000):
        for dtype in (torch.float32, torch.bfloat16):
            _bench_one_head(rows, dtype)


def _bench_one_head(rows: int, dtype: torch.dtype, count: int = 1024) -> None:
    hidden = torch.randn(count, 256, dtype=dtype, requires_grad=True)
    weight = (torch.randn(rows, 256) / 16).to(dtype).requires_grad_()
    targets = torch.randint(0, rows, (count,))

    def timed(work: Callable[..., torch.Tensor], n: int) -> float:
        hidden.grad = weight.grad = None
        start = time.process_time()
        work(hidden[:n], weight, targets[:n]).backward()
        return time.process_time() - start

    works = {
        "ours": lambda: timed(_fused, count),
        "full": lambda: timed(_full, count),
        "A/A": lambda: timed(_fused, count),
        "few": lambda: timed(_fused, count * 3 // 10),
    }
    t = paired(works, 3)
    memory = _alive(_fused, count, rows, dtype) / _alive(_full, count, rows, dtype)
    print(
        f"  {rows // 1000} k {str(dtype).removeprefix('torch.')}: time {t['ours'] / t['full']:.2f} ×, memory "
        f"{memory:.2f} × (30 %: full/ours {t['full'] / t['few']:.1f} ×; A/A {t['A/A'] / t['ours']:.2f})"
    )


def bench_merge() -> None:
    def adapted() -> tuple[Model, Any]:
        made = model(**{**TEN_MILLION, "hidden_size": 768, "num_attention_heads": 12, "num_key_value_heads": 12})
        return made, add_lora(made, LoraConfig(r=32))

    def in_place() -> float:
        made, _ = adapted()
        start = time.process_time()
        merge_in_place(made)
        return time.process_time() - start

    def by_peft() -> float:
        _, adapter = adapted()
        start = time.process_time()
        adapter.language.merge_and_unload()
        return time.process_time() - start

    t = paired({"ours": in_place, "peft": by_peft, "A/A": in_place}, 3)
    print(
        f"merging a LoRA of rank 32: ours {t['ours'] * 1e3:.0f} ms, merge_and_unload {t['peft'] * 1e3:.0f} ms: "
        f"{t['peft'] / t['ours']:.1f} × (A/A {t['A/A'] / t['ours']:.2f})"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    bench_steps()
    bench_head()
    bench_merge()
