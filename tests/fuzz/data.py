"""Mutated data files of every kind, read as training reads them, and the metrics of a run as its report reads them.

python -m tests.fuzz.data --cases 1000 --seconds 60
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

from tests.fuzz.damage import damaged_tree, in_bytes, replace, written
from tests.fuzz.judge import Subject, main

TURNS = [{"role": "user", "content": "What now?"}, {"role": "assistant", "content": "Go left."}]
SHAREGPT = [{"from": "human", "value": "<image>\nWhat now?"}, {"from": "gpt", "value": "Go left."}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": f"some words, number {n}", "weight": 1.0} for n in range(6)],
    "messages": [{"messages": TURNS, "weights": [0, 1]}, {"messages": [{"role": "system", "content": "Be brief."}, *TURNS]}],
    "sharegpt": [{"conversations": SHAREGPT, "image": "red.png"}, {"conversations": SHAREGPT[1:], "system": "Be brief."}],
    "alpaca": [{"instruction": "Add.", "input": "1 and 2", "output": "3"}] * 3,
    "prompt": [{"prompt": "What now?", "completion": "Go left."}] * 3,
    "pairs": [{"sentence1": "it is", "sentence2": "so it is", "label": n % 2} for n in range(6)],
    "metrics": [
        {"step": n, "epoch": 0.5, "loss": 2.0, "lr": 1e-5, "grad_norm": 1.0, "tokens": 10 * n, "clock": {"seconds": 0.1,
         "tokens_per_second": 100.0}} for n in range(1, 4)
    ] + [{"step": 3, "eval": {"loss": 2.4, "tokens": 40, "items": 2}, "clock": {"seconds": 0.1}}],
}  # fmt: skip


def make(folder: Path) -> None:
    """A file of each kind of row, in each way in which files hold rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    for name, rows in ROWS.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        if name == "metrics":
            (folder / "run").mkdir()
            (folder / "run" / "metrics.jsonl").write_text(lines)
            continue
        (folder / name).mkdir()
        (folder / name / "a.jsonl").write_text(lines)
        (folder / f"{name}-array").mkdir()
        (folder / f"{name}-array" / "a.json").write_text(json.dumps(rows))
        for kind in (name, f"{name}-array"):
            Image.new("RGB", (8, 8), "red").save(folder / kind / "red.png")
    for name in ("csv", "parquet", "gz", "plain"):
        (folder / name).mkdir()
    (folder / "csv" / "a.csv").write_text('text,weight\nsome words,1\n"more, words",0.5\n')
    pq.write_table(pa.table({"text": ["some words", "more"], "weight": [1.0, 0.5]}), folder / "parquet" / "a.parquet")
    (folder / "gz" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "some words"}\n' * 3))
    (folder / "plain" / "a.txt").write_text("some words\nmore words\n")


def damage(folder: Path, draw: random.Random, outside: Path) -> str:
    path = draw.choice(sorted(file for file in folder.iterdir() if file.is_file()))
    if path.suffix not in (".jsonl", ".json") or draw.random() < 0.3:
        return in_bytes(path, draw)
    data = path.read_bytes().decode("utf-8", "surrogateescape")  # it may be damaged already
    try:
        if path.suffix == ".json":
            tree, what = damaged_tree(json.loads(data), draw)
            replace(path, written(tree))
        else:
            lines = data.splitlines()
            at = draw.randrange(len(lines))
            tree, what = damaged_tree(json.loads(lines[at]), draw)
            lines[at] = written(tree)
            replace(path, "\n".join(lines) + "\n")
    except (ValueError, RecursionError):
        return in_bytes(path, draw)
    return f"{path.name}: {what}"


def use(folder: Path, kind: str, draw: random.Random) -> None:
    """Encode all rows, as training does before its first step; draw a run's report and cut its metrics back."""
    from tests.data.tokenizers import tokenizer_of
    from vertebra.data.encode.chat import ChatEncoder
    from vertebra.data.encode.encoders import TextEncoder
    from vertebra.data.encode.pairs import Labels, PairEncoder
    from vertebra.data.encode.prepare import prepare
    from vertebra.data.read.open import open_source
    from vertebra.prompt.chat_template import TemplatePromptBuilder
    from vertebra.training.watching.metrics import MetricsFile
    from vertebra.training.watching.report import write_report

    if kind == "run":
        MetricsFile(folder).cut_back(2)
        if draw.random() < 0.3:  # drawing takes a hundred times as long
            write_report(folder)
        return
    where = next(iter(sorted(folder.glob("a.*"))))
    encoder: Any
    options: dict[str, Any] = {}
    if kind.startswith("pairs"):
        encoder, options = PairEncoder(tokenizer_of("tiny-bert"), Labels.of(open_source(where))), {"format": "pairs"}
    elif kind.split("-")[0] in ("messages", "sharegpt", "alpaca", "prompt"):
        encoder = ChatEncoder(tokenizer_of("tiny-llama2"), TemplatePromptBuilder, sizes={"image": 4})
    else:
        encoder = TextEncoder(tokenizer_of("tiny-gpt2"))
    prepare(where, encoder, cache=False, on_bad=draw.choice(("fail", "skip")), show_progress=False, **options)


if __name__ == "__main__":
    main(Subject(make=make, damage=damage, use=use))
