"""The model card: what was trained, on what, how, and what came out, from the run's own files."""

from __future__ import annotations

from typing import Any

from vertebra.training.config import RunConfig


def model_card(config: RunConfig, rows: list[dict[str, Any]], best: int | None) -> str:
    """A README in Markdown."""
    losses = [row for row in rows if "loss" in row]
    evals = [row for row in rows if "eval" in row]
    lines = [
        f"# {config.name}",
        "",
        f"Trained by Vertebra from `{config.model.start or config.model.backbone}`"
        + (" (weights drawn anew)" if config.model.scratch else "")
        + f", stage `{config.tune.stage}`, on `{config.data.named}` ({config.data.kind}).",
        "",
        "| | |",
        "|---|---|",
        f"| steps | {losses[-1]['step'] if losses else 0} |",
        f"| tokens | {losses[-1]['tokens'] if losses else 0:,} |",
        f"| batch | {config.optim.batch} × {config.optim.accumulate} rows on a rank |",
        f"| learning rate | {config.optim.lr:g}, {config.optim.schedule} |",
        f"| precision | {config.optim.precision}, weights in {config.model.dtype} |",
        f"| seed | {config.seed} |",
    ]
    if losses:
        lines.append(f"| last training loss | {losses[-1]['loss']:.4f} |")
    for row in evals[-1:]:
        lines += [f"| {name} (step {row['step']}) | {value:.4f} |" for name, value in row["eval"].items()]
    if best is not None:
        lines.append(f"| best evaluation | step {best} |")
    lines += ["", "The resolved config is `training/run.yaml`, every row of metrics `training/metrics.jsonl`.", ""]
    return "\n".join(lines)
