"""Collating, packing and mask building, beside the peer and beside a training step; one thread, process CPU time.

Both sides of a ratio are measured in turn, round by round, and the median of the rounds is printed; the A/A line is
ours against ours, and shows how steady the machine is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, LlamaConfig, LlamaForCausalLM

from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.loss import supervised_positions
from vertebra.sequence.masks import AttentionFacts, plan_attention
from vertebra.sequence.packing import pack, pack_sequences
from vertebra.sequence.tokens import TokenSequence

CAPACITY = 1024
FACTS = AttentionFacts(kernel="sdpa")


def samples(count: int, seed: int = 0) -> list[TokenSequence]:
    """Lengths as instructions have them: log-normal, median 120, sigma 0.8, at most 1024."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(120), 0.8, count).astype(int), 1, CAPACITY)
    return [TokenSequence.of(rng.integers(5, 600, n), weight=1.0) for n in lengths]


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def in_turn(works: dict[str, Callable[[], object]], *, rounds: int, repeats: int = 1) -> dict[str, float]:
    """Median seconds of each, round by round so that a slow moment meets all of them; one unmeasured run before each."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            work()
            taken[name].append(seconds(work, repeats))
    return {name: statistics.median(times) for name, times in taken.items()}


def bench_collate() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-opt"))
    peer = DataCollatorForSeq2Seq(tokenizer)
    print("collate (nine vectors and a mask) beside DataCollatorForSeq2Seq (ids, mask, labels)")
    for rows in (8, 32, 128):
        ours = samples(rows)
        theirs = [
            {"input_ids": s.ids.tolist(), "attention_mask": [1] * len(s), "labels": s.target.tolist()} for s in ours
        ]
        times = in_turn(
            {
                "ours": lambda ours=ours: collate(ours, pad_id=1),
                "again": lambda ours=ours: collate(ours, pad_id=1),
                "peer": lambda theirs=theirs: peer([dict(row) for row in theirs]),
            },
            rounds=15,
            repeats=max(4, 128 // rows),
        )
        print(
            f"  {rows:4d} rows   ours {times['ours'] * 1e3:6.2f} ms   peer {times['peer'] * 1e3:7.2f} ms   "
            f"{times['peer'] / times['ours']:5.1f} x   (A/A {times['again'] / times['ours']:.2f})"
        )


def bench_packing() -> None:
    sequences = samples(20_000)
    lengths = [len(sequence) for sequence in sequences]
    useful = sum(lengths)
    rows: dict[str, int] = {}

    def counted(name: str, work: Callable[[], list[object]]) -> Callable[[], None]:
        def run() -> None:
            rows[name] = len(work())

        return run

    times = in_turn(
        {
            "pack (lengths alone)": counted("pack (lengths alone)", lambda: list(pack(lengths, CAPACITY))),
            "pack_sequences": counted("pack_sequences", lambda: list(pack_sequences(sequences, CAPACITY).rows)),
        },
        rounds=5,
    )
    print(f"packing {useful:,} tokens of {len(lengths):,} samples into rows of {CAPACITY}")
    for name, taken in times.items():
        share = rows[name] * CAPACITY / useful
        print(f"  {name:22s} {useful / taken / 1e6:7.1f} M tokens/s   {share:.4f} slots per useful token")


def bench_step() -> None:
    """What a batch costs before the model sees it, as a share of one training step of a 10 M model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=4,
        tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    singles = samples(8)
    rows = pack_sequences(samples(24, seed=1), CAPACITY).rows[:2]
    prefixes = [s.with_vectors(block=np.where(np.arange(len(s)) < len(s) // 2, 1, 0)) for s in singles]
    print(f"collate + plan + positions of the loss, beside a training step of a model of {size:.1f} M, fp32")
    shapes: tuple[tuple[str, Literal["left", "right"], Any], ...] = (
        ("one sample a row", "right", singles),
        ("left-padded", "left", singles),
        ("packed", "right", rows),
        ("prefix both ways", "right", prefixes),
    )
    for name, side, given in shapes:
        batch = collate(given, pad_id=0, side=side)

        def prepare(given=given, side=side) -> Batch:
            made = collate(given, pad_id=0, side=side)
            plan_attention(made, FACTS)
            supervised_positions(made)
            return made

        def step(batch=batch) -> None:
            at, made = supervised_positions(batch), plan_attention(batch, FACTS)
            hidden = model.model(input_ids=batch.input_ids, **made.kwargs).last_hidden_state
            at.loss(model.lm_head(at.select(hidden))).backward()
            optimizer.step()
            optimizer.zero_grad()

        step()
        times = in_turn({"prepare": prepare, "step": step}, rounds=2)
        form = plan_attention(batch, FACTS).form
        print(
            f"  {name:18s} {form:7s} {batch.rows} x {batch.length:4d}   prepare {times['prepare'] * 1e3:6.2f} ms   "
            f"step {times['step'] * 1e3:8.1f} ms   {100 * times['prepare'] / times['step']:.2f} %"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    bench_collate()
    bench_packing()
    bench_step()
