"""Data, beside what people use for it: tokenizing, cutting, collating, packing, training on it, preparing chats.

One thread, process CPU time, both sides in turn; medians and their ratios. `--small` runs every part on a tenth of
the data. TRL is measured where it is installed (it is no dependency); where it is not, its line says so.

    python benchmarks/bench_data.py [part …] [--small]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import datasets
import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq

import data_made
from data_made import corpus_words, cpu, log_normal, scaled, table_of, texts_of, trained_tokenizer
from data_training import bench_training
from timing import in_turn
from vertebra.backbone.registry import load_backbone
from vertebra.data.encode.chat import ChatEncoder
from vertebra.data.encode.encoders import TextEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.encode.tokens import TextTokenizer
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import LengthGrouped, Packed, Shuffled, slots_per_token
from vertebra.data.samples.causal import Blocks, fitted


def bench_tokenize() -> None:
    """100 k short texts, and the curve over their length."""
    tokenizer = trained_tokenizer()
    print("tokenizing, in memory: `prepare` beside datasets.map(batched=True) of one process")
    for count, words in ((100_000, 8), (50_000, 16), (10_000, 100), (1_000, 1000)):
        texts = texts_of(scaled(count), words)
        held = datasets.Dataset.from_dict({"text": texts})
        encoder = TextEncoder(tokenizer, stop="")

        def ours(texts: list[str] = texts, encoder: TextEncoder = encoder) -> object:
            return prepare(texts, encoder, format="text", cache=False)

        def mapped(held: Any = held) -> object:
            made = held.map(lambda b: tokenizer(b["text"]), batched=True, remove_columns=["text"])
            held.cleanup_cache_files()
            return made

        def one_by_one(texts: list[str] = texts) -> object:
            return [tokenizer(text).input_ids for text in texts]

        works = {"ours": ours, "again": ours, "map": mapped}
        if words <= 16:
            works["one by one"] = one_by_one
        taken = cpu(works, rounds=3)
        tokens = TextTokenizer(tokenizer)(texts[:500]).lengths.mean()
        ratios = {name: f"{taken[name] / taken['ours']:4.2f} x" for name in works if name != "ours"}
        line = f"  {len(texts):7,d} texts of {tokens:5.0f} tokens   ours {len(texts) * tokens / taken['ours'] / 1e6:5.2f} M/s"
        print(
            line,
            *(f"  {name} {ratio}" for name, ratio in ratios.items() if name != "again"),
            f"  (A/A {ratios['again']})",
        )


def group_texts(examples: dict[str, list[Any]], size: int = 1024) -> dict[str, list[Any]]:
    """Concatenate and cut, as every tutorial does it; the remainder of each batch of rows is dropped."""
    joined = {name: [token for row in rows for token in row] for name, rows in examples.items()}
    total = len(joined["input_ids"]) // size * size
    cut = {name: [rows[i : i + size] for i in range(0, total, size)] for name, rows in joined.items()}
    cut["labels"] = [list(row) for row in cut["input_ids"]]
    return cut


def bench_blocks() -> None:
    lengths = log_normal(scaled(20_000))
    table = table_of(lengths)
    rows = [table.vectors(i)["ids"].tolist() for i in range(len(table))]
    held = datasets.Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})

    def ours() -> object:
        blocks = Blocks(table, 1024)
        return [blocks.vectors(i)["ids"] for i in range(len(blocks))]

    def peer() -> Any:
        made = held.map(group_texts, batched=True)
        kept.append(len(made) * 1024)
        held.cleanup_cache_files()
        return made

    kept: list[int] = []
    taken = cpu({"ours": ours, "again": ours, "peer": peer}, rounds=3)
    print("concatenate and cut into 1024: beside `group_texts` by datasets.map(batched=True)")
    print(
        f"  {table.tokens:,d} tokens   ours {table.tokens / taken['ours'] / 1e6:7.1f} M tokens/s   peer "
        f"{taken['peer'] / taken['ours']:6.0f} x   (A/A {taken['again'] / taken['ours']:.2f})   lost by us 0, by it "
        f"{table.tokens - kept[0]:,d}"
    )


def bench_collate() -> None:
    tokenizer = trained_tokenizer()
    peer = DataCollatorForSeq2Seq(tokenizer)
    ours = Collator(tokenizer.pad_token_id)
    print("collating: ten tensors beside DataCollatorForSeq2Seq's three")
    for count in (8, 32, 128):
        table = table_of(log_normal(count))
        rows = [[table.vectors(i)] for i in range(count)]
        lists = [table.vectors(i)["ids"].tolist() for i in range(count)]
        given = [{"input_ids": row, "attention_mask": [1] * len(row), "labels": list(row)} for row in lists]
        taken = in_turn(
            {
                "ours": lambda rows=rows: ours(rows),
                "again": lambda rows=rows: ours(rows),
                "peer": lambda given=given: peer([dict(row) for row in given]),
            },
            rounds=15,
            repeats=1024
            // count,  # as many rows each: a call of microseconds pays for what the other left in the cache
            clock=time.process_time,
        )
        print(
            f"  {count:4d} rows   ours {taken['ours'] * 1e6:7.0f} µs   peer {taken['peer'] / taken['ours']:5.1f} x   "
            f"(A/A {taken['again'] / taken['ours']:.2f})"
        )


def bench_packing() -> None:
    table = table_of(log_normal(scaled(50_000)))
    print("packing into 1024, and what padding costs (log-normal lengths, batches of 8)")
    sampler = Packed(8, 1024)
    taken = cpu({"plan": lambda: sampler.plan(table, 0)}, rounds=3)["plan"]
    made = sampler.plan(table, 0)
    slots = (len(made.rows) - 1) * 1024 / table.tokens
    print(f"  plan of an epoch   {table.tokens / taken / 1e6:6.1f} M tokens/s   {slots:.4f} slots a useful token")
    few = table_of(log_normal(2000))
    loader = Loader(few, Packed(8, 1024), Collator(0), pin_memory=False)
    whole = cpu({"batches": lambda: list(loader)}, rounds=3)["batches"]
    print(f"  packed batches     {few.tokens / whole / 1e6:6.1f} M tokens/s   planned, joined and collated")
    for name, other in {"random": Shuffled(8), "length-grouped": LengthGrouped(8)}.items():
        plain = slots_per_token(table, other.plan(table, 0))
        eight = slots_per_token(table, other.plan(table, 0), multiple_of=8)
        print(f"  {name:18s} {plain:6.3f} slots a useful token   {eight:.3f} when rounded up to 8")


def write_messages(path: Path, count: int) -> None:
    """Two-turn conversations with answers as long as instructions have them."""
    known, rng = corpus_words(), np.random.default_rng(2)
    with open(path, "w") as file:
        for length in log_normal(count, 600):
            words = [known[i] for i in rng.integers(0, len(known), max(4, int(length) // 5))]
            half = len(words) // 3 + 1
            turns = [
                {"role": "user", "content": " ".join(words[:half])},
                {"role": "assistant", "content": " ".join(words[half:]) or "yes"},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")


def bench_chat() -> None:
    """Read → tokenize → pack → collate, once through 50 k conversations."""
    backbone = load_backbone("tiny-qwen2.5")
    print("conversations: read, render, pack into 1024, collate in batches of 8; one pass through all")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.jsonl"
        write_messages(path, scaled(50_000))
        start = time.process_time()
        table = prepare(path, ChatEncoder.of(backbone), cache=Path(folder) / "cache", show_progress=False)
        read = time.process_time() - start
        loader = Loader(fitted(table, 1024, too_long="drop"), Packed(8, 1024), Collator(0), pin_memory=False)
        batches = sum(1 for _ in loader)
        ours = time.process_time() - start
        print(
            f"  ours   {len(table):,d} conversations, {table.tokens:,d} tokens   {ours:6.1f} s   of it rendered and "
            f"cached {read:5.1f} s   {batches} batches"
        )
        try:
            theirs = trl_seconds(path, backbone, Path(folder) / "trl")
        except ImportError as error:
            print(f"  TRL is not installed, so it is not measured ({error})")
            return
        print(
            f"  TRL    the same file, SFTTrainer's preparation and batches   {theirs:6.1f} s   {theirs / ours:4.2f} x"
        )


def trl_seconds(path: Path, backbone: Any, folder: Path) -> float:
    """What TRL's SFTTrainer takes for the same: its constructor prepares and packs, its data loader collates."""
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(folder), max_length=1024, packing=True, per_device_train_batch_size=8, report_to=[],
        disable_tqdm=True, use_cpu=True, bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    start = time.process_time()
    data = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    trainer = SFTTrainer(backbone.llm, settings, train_dataset=data, processing_class=backbone.tokenizer)
    for _ in trainer.get_train_dataloader():
        pass
    return time.process_time() - start


STREAM = """
import resource, sys, time
from transformers import AutoTokenizer
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.data.loaders.collate import Collator
from vertebra.data.encode.encoders import TextEncoder
from vertebra.data.loaders.samplers import Packed
from vertebra.data.loaders.stream import StreamLoader
tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-gpt2"))
# One rank of a hundred: it reads every line, and encodes a hundredth of them.
loader = StreamLoader(sys.argv[1], TextEncoder(tokenizer), Packed(8, 4096), Collator(0), block=32, rank=0, world=100)
start, peaks = time.process_time(), []
for batch in loader:
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[len(peaks) // 10], peaks[-1], time.process_time() - start)
"""


def bench_stream() -> None:
    size = scaled(1_000_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jsonl"
        texts = texts_of(1000, 200)
        block = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        with open(path, "w") as file:
            for _ in range(size // len(block) + 1):
                file.write(block)
        done = subprocess.run([sys.executable, "-c", STREAM, str(path)], capture_output=True, text=True, check=True)
        early, late, taken = map(float, done.stdout.split())
        print("streaming JSONL, one rank of a hundred")
        print(
            f"  {path.stat().st_size / 1e9:.2f} GB in {taken:.0f} s   peak memory after a tenth {early / 1024:.0f} MB, at "
            f"the end {late / 1024:.0f} MB: {(late - early) / 1024:+.1f} MB"
        )


MANY = """
import json, re, sys, time
from transformers import AutoTokenizer
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.data.encode.encoders import TextEncoder
from vertebra.data.encode.prepare import prepare
import datasets  # counted in neither
path, cache = sys.argv[1], sys.argv[2] or False
encoder = TextEncoder(AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-gpt2")))
prepare(["a"], encoder, cache=False)
# Linux hands `ru_maxrss` on from the process that started this one; the peak of its own memory is here.
megabytes = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, start = megabytes(), time.process_time()
table = prepare(path, encoder, cache=cache, show_progress=False)
print(json.dumps([time.process_time() - start, megabytes() - before, len(table), len(table.chunks)]))
"""


def bench_many() -> None:
    """A million short rows: what the cache adds to the time and to the memory, and what opening takes; in turn."""
    count = scaled(1_000_000)
    print(f"{count:,d} short rows: `prepare` in memory, into the cache, from the cache; three rounds")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "short.jsonl"
        path.write_text("".join(f'{{"text": "row {number}"}}\n' for number in range(count)))
        found: dict[str, list[list[float]]] = {"in memory": [], "cached": [], "opened": []}
        for number in range(3):
            for name, rows in found.items():
                cache = "" if name == "in memory" else str(Path(folder) / f"cache{number}")
                done = subprocess.run(
                    [sys.executable, "-c", MANY, str(path), cache], capture_output=True, text=True, check=True
                )
                rows.append(json.loads(done.stdout))
        plain = float(np.median([row[0] for row in found["in memory"]]))
        for name, rows in found.items():
            taken, memory, _, chunks = np.median(rows, axis=0)
            print(
                f"  {name:10s} {taken:6.2f} s   {taken / plain:5.2f} x   {memory:6.0f} MB   {chunks:,.0f} batches of Arrow"
            )


PARTS = {
    "tokenize": bench_tokenize,
    "many": bench_many,
    "blocks": bench_blocks,
    "collate": bench_collate,
    "packing": bench_packing,
    "training": bench_training,
    "chat": bench_chat,
    "stream": bench_stream,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts; all by default")
    parser.add_argument("--small", action="store_true", help="a tenth of the data")
    chosen = parser.parse_args()
    data_made.SCALE = 0.1 if chosen.small else 1.0
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in chosen.parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
