"""The demo's part with a real model: fetched where it can be, an answer in words, and a habit learned in two minutes.

Where it cannot be fetched one line reports it, and the demo goes on without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vertebra.errors import MissingPartError, NetworkError

LANGUAGE = "smollm2-135m-instruct"
QUESTION = "What is the capital of Italy? Answer in one sentence."
_STEPS = 60
_SETTINGS = (f"steps={_STEPS}", "eval.every=0", "save.every=0", "data.options={asked: 40}")


def real_model(printer: Any) -> bool:
    """Whether it is in the user's cache; it is fetched now where that is possible."""
    from vertebra.interop.packages import get

    try:
        get(LANGUAGE)
    except (NetworkError, MissingPartError) as error:
        printer.print(
            f"no real model here, the demo goes on without them: {str(error).splitlines()[0]}", soft_wrap=True
        )
        return False
    return True


def answer(printer: Any) -> str:
    """One question, answered."""
    import vertebra as vt

    with all_threads():
        result = vt.generate(LANGUAGE, QUESTION, max_new_tokens=24)
    said = result.text[0].strip()
    printer.print(f"{QUESTION}  {said!r}", soft_wrap=True)
    return said


def habit(printer: Any, out: Path) -> tuple[float, Path]:
    """The model learns to answer orders as JSON; the share of held-out orders that it answers right, and the report."""
    from vertebra.training.recipes import read_recipe
    from vertebra.training.run import train
    from vertebra.training.watching.samples import read_samples

    with all_threads():
        made = train(read_recipe("smollm2-lora", [*_SETTINGS, f"out={out / 'smollm2-lora'}"]), overwrite=True)
    samples = read_samples(made.folder)
    for when in ("before", "after"):
        row = samples[when][-1]
        printer.print(f"{when:6}  {row['prompt']}  {row['answer'][:90]!r}", soft_wrap=True)
    return float(made.found["accuracy"]), made.folder / "report.html"


class all_threads:
    """A real model gains from every core, where tiny ones lose."""

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_num_threads()
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    def __exit__(self, *error: object) -> None:
        import torch

        torch.set_num_threads(self.before)
