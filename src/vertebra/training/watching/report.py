"""`report.html`: one page about a run, whole in itself, made from the run's folder at its end and whenever asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vertebra import config as configs
from vertebra.errors import CheckpointError
from vertebra.folders import write_file
from vertebra.reading import reading
from vertebra.training.watching.metrics import METRICS, read
from vertebra.training.watching.plots import draw
from vertebra.training.watching.samples import read_samples
from vertebra.webpage import data_url, escaped, webpage

REPORT = "report.html"
_STYLE = """
h2 { margin-top: 2.5rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; margin-top: 1.5rem; }
.grid img { width: 100%; }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; width: 38%; } .answer img { width: 8rem; image-rendering: pixelated; }
pre { background: var(--paper); border: 1px solid var(--line); padding: 1rem; overflow: auto; }
@media (prefers-color-scheme: dark) { .grid img { filter: invert(.9) hue-rotate(180deg); } }
"""


def write_report(folder: str | Path) -> Path:
    """Draw the pictures and write the page; returns it."""
    folder = Path(folder)
    rows = read(folder / METRICS)
    if not rows:
        raise CheckpointError(f"`{folder}` is no run with metrics: `{METRICS}` is missing or empty")
    with reading(f"the report of `{folder}` cannot be drawn", f"take damaged lines out of `{METRICS}` or samples.json"):
        return _written(folder, rows)


def _written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pictures = draw(rows, folder)
    run = configs.read_mapping(folder / "run.yaml") if (folder / "run.yaml").is_file() else {}
    name = str(run.get("name", folder.name))
    body = [
        f"<h1>{escaped(name)}</h1>",
        _facts(rows, run),
        '<div class="grid">',
        *(f'<img alt="{escaped(title)}" src="{data_url(path.read_bytes())}">' for title, path in pictures.items()),
        "</div>",
        _samples(read_samples(folder)),
        f"<h2>Config</h2><pre>{escaped(yaml.safe_dump(run, sort_keys=False, allow_unicode=True))}</pre>",
    ]
    return write_file(folder / REPORT, webpage(name, "\n".join(body), style=_STYLE))


def _facts(rows: list[dict[str, Any]], run: dict[str, Any]) -> str:
    steps = [row for row in rows if "loss" in row]
    evals = [row for row in rows if "eval" in row]
    facts: dict[str, str] = {}
    if steps:
        last = steps[-1]
        seconds = sum(row["clock"]["seconds"] for row in steps)
        facts |= {
            "steps": f"{last['step']:,}",
            "tokens": f"{last['tokens']:,}",
            "training loss": f"{steps[0]['loss']:.4f} → {last['loss']:.4f}",
            "time in steps": f"{seconds:,.1f} s",
            "tokens a second": f"{sum(_tokens(steps)) / max(seconds, 1e-9):,.0f}",
        }
    for name in evals[-1]["eval"] if evals else ():
        if name != "items":
            facts[f"evaluation: {name}"] = _change([row["eval"].get(name) for row in evals])
    if evals:
        best = min(evals, key=lambda row: row["eval"]["loss"])
        facts["best evaluation"] = f"{best['eval']['loss']:.4f} at step {best['step']:,}"
    if run:
        facts["model"] = str(run["model"].get("start") or run["model"]["backbone"])
        facts["stage"] = str(run["tune"]["stage"])
        data = run["data"]
        facts["data"] = str(data.get("path") or ", ".join(data.get("mix") or ()) or data["kind"])
    cells = "".join(f"<tr><th>{escaped(k)}</th><td>{escaped(v)}</td></tr>" for k, v in facts.items())
    return f"<table>{cells}</table>"


def _tokens(steps: list[dict[str, Any]]) -> list[float]:
    """Tokens of each row's own interval; the count in a row runs through the whole training."""
    return [row["clock"]["seconds"] * row["clock"]["tokens_per_second"] for row in steps]


def _change(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return " → ".join(f"{value:.4f}" for value in (known[:1] + known[-1:] if len(known) > 1 else known))


def _samples(samples: dict[str, Any]) -> str:
    before, after = samples.get("before", []), samples.get("after", [])
    if not after:
        return ""
    lines = "".join(
        f"<tr><td>{escaped(new['prompt'])}</td>{_answer(old)}{_answer(new)}</tr>"
        for old, new in zip(before or [{"answer": "–"}] * len(after), after, strict=False)
    )
    return f"<h2>Samples</h2><table><tr><th>prompt</th><th>before</th><th>after</th></tr>{lines}</table>"


def _answer(sample: dict[str, str]) -> str:
    """One answer, and the picture of what it does where there is one."""
    picture = f'<img alt="" src="data:image/png;base64,{sample["image"]}"><br>' if "image" in sample else ""
    return f'<td class="answer">{picture}{escaped(sample["answer"])}</td>'
