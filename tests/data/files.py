"""One small file of every format, and what fits it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CHAT = "tiny-llama2"
TEXT = "tiny-gpt2"
ENCODER = "tiny-bert"

TURNS = [{"role": "user", "content": "What now?"}, {"role": "assistant", "content": "Go left."}]
TEXTS = [{"text": f"some words here, number {i}"} for i in range(12)]
PAIRS = [{"sentence1": f"it is {i}", "sentence2": "so it is", "label": i % 2} for i in range(6)]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("\n".join(row["text"] for row in TEXTS))
    return path


def _text_gz(folder: Path) -> Path:
    path = folder / "text.jsonl.gz"
    path.write_bytes(gzip.compress(lines(TEXTS).encode()))
    return path


def _folder(folder: Path) -> Path:
    inner = folder / "files"
    inner.mkdir()
    for number in range(3):
        (inner / f"{number}.py").write_text(f"x = {number}\n" * 20)
    return inner


def _messages(folder: Path) -> Path:
    path = folder / "messages.jsonl"
    path.write_text(lines([{"messages": TURNS}, {"messages": [*TURNS, *TURNS]}]))
    return path


def _sharegpt(folder: Path) -> Path:
    path = folder / "sharegpt.json"
    turns = [{"from": "human", "value": "What now?"}, {"from": "gpt", "value": "Go left."}]
    path.write_text(json.dumps([{"conversations": turns}] * 2, indent=1))
    return path


def _llava(folder: Path) -> Path:
    Image.new("RGB", (8, 8), (200, 0, 0)).save(folder / "red.png")
    path = folder / "llava.json"
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "Red."}]
    path.write_text(json.dumps([{"image": "red.png", "conversations": turns}]))
    return path


def _alpaca(folder: Path) -> Path:
    path = folder / "alpaca.json"
    path.write_text(json.dumps([{"instruction": "Add", "input": "1 2", "output": "3"}]))
    return path


def _prompts(folder: Path) -> Path:
    path = folder / "prompts.csv"
    path.write_text("prompt,completion\nHi,Hello\nWhat now?,Go left.\n")
    return path


def _pairs(folder: Path) -> Path:
    path = folder / "pairs.tsv"
    rows = ["\t".join(map(str, row.values())) for row in PAIRS]
    path.write_text("\n".join(["\t".join(PAIRS[0]), *rows]))
    return path


def _parquet(folder: Path) -> Path:
    path = folder / "text.parquet"
    pq.write_table(pa.Table.from_pylist(TEXTS), path)
    return path


def _text_zst(folder: Path) -> Path:
    path = folder / "text.jsonl.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(lines(TEXTS).encode())
    return path


def _saved(folder: Path) -> Path:
    """What `datasets` wrote to a disk, labels by name."""
    labels = datasets.ClassLabel(names=["no", "yes"])
    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"), "label": labels}
    datasets.Dataset.from_list(PAIRS, features=datasets.Features(features)).save_to_disk(folder / "saved")
    return folder / "saved"


FILES: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "text": (_text, TEXT, "text", "text"),
    "gzip": (_text_gz, TEXT, "text", "text"),
    "zstd": (_text_zst, TEXT, "text", "text"),
    "parquet": (_parquet, TEXT, "text", "text"),
    "folder": (_folder, TEXT, "text", "text"),
    "masked": (_text, ENCODER, "text", "masked"),
    "messages": (_messages, CHAT, "messages", "chat"),
    "sharegpt": (_sharegpt, CHAT, "sharegpt", "chat"),
    "llava": (_llava, CHAT, "llava", "chat"),
    "alpaca": (_alpaca, CHAT, "alpaca", "chat"),
    "prompts": (_prompts, CHAT, "prompt_completion", "chat"),
    "pairs": (_pairs, ENCODER, "pairs", "pairs"),
    "saved": (_saved, ENCODER, "pairs", "pairs"),
    "pairs asked": (_pairs, CHAT, "pairs", "chat"),
}
"""name → (how it is written, the model, the format, the kind that follows)."""
