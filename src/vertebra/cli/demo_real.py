"""The demo's part with real models: fetched where they can be, an answer in words, and a model that learns to see.

    DINOv2-S ──► projector ──► SmolLM2-135M        the recipes `look-words` and `look`, cut to three minutes

Where it cannot be fetched one line reports it, and the demo goes on without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from vertebra.cli.machine import cores
from vertebra.errors import MissingPartError, NetworkError

LANGUAGE, VISION = "smollm2-135m-instruct", "dinov2-small"
QUESTION = "What is the capital of Italy? Answer in one sentence."
_CUT = ("data.count=800", "eval.every=0", "save.every=0")
_WORDS = ("steps=400", "data.options={questions: 0, slots: 1.0, asked: 1, things: 1}")
_LOOK = ("steps=60", "data.options={slots: 0.3, asked: 60, things: 1}")


def real_model(printer: Any) -> bool:
    """Whether both models are in the user's cache; they are fetched now where that is possible."""
    from vertebra.interop.packages import get

    try:
        for name in (LANGUAGE, VISION):
            get(name)
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
    text = result.text[0].strip()
    printer.print(f"{QUESTION}  {text!r}", soft_wrap=True)
    return text


def sight(printer: Any, out: Path) -> tuple[dict[str, Any], Path]:
    """The model learns to answer questions about a picture; what it was found to answer right, and the report."""
    from vertebra.training.recipes import read_recipe
    from vertebra.training.run import train
    from vertebra.training.watching.samples import read_samples

    with all_threads():
        words = finished(
            train(read_recipe("look-words", [*_CUT, *_WORDS, f"out={out / 'look-words'}"]), overwrite=True)
        )
        settings = [*_CUT, *_LOOK, f"model.start={words.model}", f"out={out / 'look'}"]
        made = finished(train(read_recipe("look", settings), overwrite=True))
    samples = read_samples(made.folder)
    for before, after in list(zip(samples["before"], samples["after"], strict=True))[:3]:
        printer.print(f"{before['prompt']}  before {before['answer']!r:.60}, after {after['answer']!r}", soft_wrap=True)
    return made.found, made.folder / "report.html"


def finished(run: Any) -> Any:
    """A run that was stopped has no model to go on with."""
    from vertebra.training.stop import exit_code

    if run.stopped:
        raise typer.Exit(exit_code(run.stopped))
    return run


class all_threads:
    """A real model gains from every core, where tiny ones lose."""

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_num_threads()
        torch.set_num_threads(cores())

    def __exit__(self, *error: object) -> None:
        import torch

        torch.set_num_threads(self.before)
