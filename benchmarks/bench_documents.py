"""What documents cost: questions on one page, computed once for all; and what making a batch of pages adds to a training step.

    python benchmarks/bench_documents.py [--quick] [--questions 20]

One thread and process CPU time; all sides of a row take turns in one process, medians. Random weights: times do not depend on
them. No time is asserted.

    ours         the page once (Prefilled), all questions as one batch of forks
    one by one   the page once, each question a fork of its own
    full runs    each question with its page through `generate`, the cache on
    cache off    the same, nothing kept
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import yaml

from timing import in_turn
from vertebra import Model, VertebraError, generate, load_backbone
from vertebra.backbone.tiny import write_tiny
from vertebra.data import batches
from vertebra.decode import Prefilled
from vertebra.layout import PageRecord, Renderer, lines_of, page_row
from vertebra.model import BoxTables, BoxWaves, new_part
from vertebra.page import Line, Page
from vertebra.tasks import DataConfig
from vertebra.tune import LoraConfig, add_lora

POSITIONS, ANSWER = 700, 8
SIZES: dict[str, dict[str, Any]] = {
    "0.5 M": {
        "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "10 M": {
        "hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 5,
        "num_key_value_heads": 5,
    },
    "60 M": {
        "hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12, "num_attention_heads": 10,
        "num_key_value_heads": 10,
    },
}  # fmt: skip

ASKED, TRAINED = ("10 M", "60 M"), ("0.5 M", "10 M")
"""Sizes that are asked, and those that a batch is made for."""


def made(size: str, folder: str, manner: str = "doclaylm") -> Model:
    name: Any = write_tiny("tiny-llama2", folder, max_position_embeddings=4096, **SIZES[size])
    backbone = load_backbone(name, dtype="float32", builder="pure")
    record = PageRecord(manner=manner)
    parts = {"boxes": new_part(backbone, BoxTables(32), "linear", place=record.how.place)}
    return Model(backbone, parts, record={"page": record.to_json()}).eval()


def page_of(model: Model) -> Page:
    """A page whose row has about as many positions as are wanted."""
    draw = np.random.default_rng(0)
    record, renderer = PageRecord.of(model.record), Renderer.of(model)
    lines: list[Line] = []
    while True:
        top = 10 * len(lines) % 980
        lines.append(
            Line(
                f"Item {draw.integers(10, 99)} {draw.integers(1, 999)}.{draw.integers(10, 99)}", (10, top, 400, top + 8)
            )
        )
        page = Page.of(lines, size=(1000, 1000))
        row = page_row(lines_of(page, record), [("What is the total?", None)], record, renderer)
        if len(row.sequence) >= POSITIONS:
            return page


def questions(model: Model, count: int, rounds: int) -> None:
    record, renderer, page = PageRecord.of(model.record), Renderer.of(model), page_of(model)
    lines = lines_of(page, record)
    asked = [page_row(lines, [(f"What is item {number}?", None)], record, renderer) for number in range(count)]
    rows = [(row.sequence, model.prepare(row.items)) for row in asked]
    options: dict[str, Any] = {"max_new_tokens": ANSWER, "eos_token_id": ()}

    def ours() -> list[list[int]]:
        return generate(model, Prefilled(model, *rows[0], upto=asked[0].head).begin(rows), **options).tokens

    def one_by_one() -> list[list[int]]:
        kept = Prefilled(model, *rows[0], upto=asked[0].head)
        return [generate(model, kept.begin([row]), **options).tokens[0] for row in rows]

    def full(**more: Any) -> list[list[int]]:
        found = []
        for sequence, features in rows:
            found.append(generate(model, model.collate([sequence], [features]), **options, **more).tokens[0])
        return found

    works = {"ours": ours, "one by one": one_by_one, "full runs": full, "cache off": lambda: full(use_cache=False)}
    answers = {name: work() for name, work in works.items()}
    assert all(found == answers["ours"] for found in answers.values()), "all sides answer alike"
    taken = in_turn(works, rounds=rounds, clock=time.process_time)
    print(f"  {count} questions on a page of {len(rows[0][0])} positions, {ANSWER} tokens an answer, all answers equal")
    for name, seconds in taken.items():
        print(f"    {name:<12} {seconds:8.2f} s   {seconds / taken['ours']:6.2f} × ours")


def collator(name: str, model: Model, rounds: int, batch: int) -> None:
    """Making a batch as recipe `receipts-drawn` does (drawn, shuffled, asked, rendered, collated) beside a step on it."""
    made, step, length = timed(model, rounds, batch, workers=0)
    waited, beside, _ = timed(model, rounds, batch, workers=1)
    print(
        f"  {name}: {batch} rows of {length} positions: {1000 * made / batch:.2f} ms a row, "
        f"{1000 * step / batch:.1f} ms of a step: {made / (made + step):.1%} of a training step\n"
        f"    made by a worker beside it (data.workers: 1), a step waits {waited / (waited + beside):.1%} of its time",
        flush=True,
    )


def timed(model: Model, rounds: int, batch: int, *, workers: int) -> tuple[float, float, int]:
    """(seconds of making a batch, or of waiting for one; of a step; positions), by this process's time or by the clock; from
    the second pass over the pages on, for the first sees each question for the first time."""
    clock = time.perf_counter if workers else time.process_time
    settings = recipe("receipts-drawn")
    settings["options"]["manner"] = model.record["page"]["manner"]
    settings |= {"count": 40 * batch, "held_out": 0.0, "workers": workers}
    loader = batches(model, DataConfig(**settings), batch=batch)
    taken = chain.from_iterable(repeat(loader))  # pass after pass
    for _ in range(40):
        ready = next(taken)
    model.train()
    making, steps = [], []
    for _ in range(rounds):
        begun = clock()
        ready = next(taken)
        making.append(clock() - begun)
        begun = clock()
        model(**ready).loss.backward()
        model.zero_grad(set_to_none=True)
        steps.append(clock() - begun)
    return median(making), median(steps), ready.length


def recipe(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).parents[1].joinpath("recipes", f"{name}.yaml").read_text())["data"]


def collators(rounds: int, quick: bool) -> None:
    """The same at several sizes; of SmolLM2 with the LoRA of recipe `receipts`, where the model is there."""
    for size in TRAINED[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            collator(size, made(size, folder, "added"), rounds, 16)
    if quick:
        return
    try:
        backbone = load_backbone("smollm2-135m-instruct", dtype="float32")
    except VertebraError:
        print("  SmolLM2-135M is not here (vertebra get smollm2-135m-instruct)")
        return
    record = PageRecord(manner="doclaylm")
    parts = {"boxes": new_part(backbone, BoxWaves(8), "gelu2", place="slots")}
    real = Model(backbone, parts, record={"page": record.to_json()})
    add_lora(real, LoraConfig(r=32, alpha=64))
    collator("SmolLM2-135M with LoRA", real, rounds, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="One round, the small model alone.")
    parser.add_argument("--questions", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if given.quick else 3
    for size in ASKED[: 1 if given.quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            model = made(size, folder)
            print(f"a model of {size}")
            questions(model, given.questions, rounds)
    print("making a batch")
    collators(3 * rounds, given.quick)


if __name__ == "__main__":
    main()
