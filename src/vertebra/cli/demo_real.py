"""The demo's part with real models: fetched where they can be, an answer in words, and minutes of teaching one to see.

Where they cannot be fetched one line says so, and the demo goes on without them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vertebra.errors import MissingPartError, NetworkError

LANGUAGE, VISION = "smollm2-135m-instruct", "dinov2-small"
QUESTION = "What is the capital of Italy? Answer in one sentence."
# `look` with one shape a picture: what stage 1 and 2 learn of it in about three minutes of two cores.
_CUT = (
    "data.count=600",
    "data.held_out=0.1",
    "data.options={things: 1, asked: 60}",
    "data.block=256",
    "watch.every=20",
)
_ALIGN_STEPS, _LORA_STEPS = 60, 80


def real_models(printer: Any) -> bool:
    """Whether both are in the user's cache; they are fetched now where that is possible."""
    from vertebra.interop.packages import get

    try:
        for name in (LANGUAGE, VISION):
            get(name)
    except (NetworkError, MissingPartError) as error:
        printer.print(
            f"no real models here, the demo goes on without them: {str(error).splitlines()[0]}", soft_wrap=True
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


def look(printer: Any, out: Path) -> tuple[float, Path]:
    """A language model is taught to see: the projector first, then both. The share of held-out questions it answers right."""
    from vertebra.training.recipes import read_recipe
    from vertebra.training.run import train

    with all_threads():
        settings = [*_CUT, f"steps={_ALIGN_STEPS}", f"out={out / 'look-align'}"]
        aligned = train(read_recipe("look-align", settings), overwrite=True)
        settings = [*_CUT, f"steps={_LORA_STEPS}", f"out={out / 'look'}", f"model.start={aligned.model}"]
        made = train(read_recipe("look", [*settings, "eval.every=0"]), overwrite=True)
    for run in (aligned, made):
        printer.print(f"{run.folder}: {run.step} steps, accuracy {run.found['accuracy']:.2f}", soft_wrap=True)
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
