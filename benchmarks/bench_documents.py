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
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

from timing import in_turn
from vertebra import Model, generate, load_backbone
from vertebra.backbone.tiny import write_tiny
from vertebra.decode import Prefilled
from vertebra.layout import PageRecord, Renderer, lines_of, page_row, shuffled
from vertebra.model import BoxTables, new_part
from vertebra.page import Line, Page

POSITIONS, ANSWER = 700, 8
SIZES = {
    "10 M": {
        "hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 5,
        "num_key_value_heads": 5,
    },
    "60 M": {
        "hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12, "num_attention_heads": 10,
        "num_key_value_heads": 10,
    },
}  # fmt: skip


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


def collator(model: Model, rounds: int, batch: int = 4) -> None:
    """Making a batch (lines shuffled, questions drawn, rendered, collated) beside a training step on it."""
    record, renderer, page = PageRecord.of(model.record), Renderer.of(model), page_of(model)
    lines = lines_of(page, record)
    draw = np.random.default_rng(1)
    model.train()

    def batch_of() -> Any:
        made = [
            page_row(shuffled(lines, draw), [(f"What is item {n}?", "9.50") for n in range(4)], record, renderer)
            for _ in range(batch)
        ]
        return model.collate([row.sequence for row in made], [model.prepare(row.items) for row in made], side="right")

    ready = batch_of()

    def step() -> None:
        model(**ready).loss.backward()
        model.zero_grad(set_to_none=True)

    works = {"batch": batch_of, "step": step}
    for work in works.values():
        work()
    taken = in_turn(works, rounds=rounds, clock=time.process_time)
    model.eval()
    share = taken["batch"] / (taken["batch"] + taken["step"])
    print(
        f"  {batch} rows of {ready.length} positions: {1000 * taken['batch'] / batch:.2f} ms a row, "
        f"{taken['step']:.2f} s a step: {share:.2%} of a training step"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="One round, the small model alone.")
    parser.add_argument("--questions", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if given.quick else 3
    for size in list(SIZES)[: 1 if given.quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            model = made(size, folder)
            print(f"a model of {size}")
            questions(model, given.questions, rounds)
            collator(model, rounds)


if __name__ == "__main__":
    main()
