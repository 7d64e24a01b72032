"""Draw the pictures of the README and the docs from the library itself: `python docs/make_pictures.py`.

The pages of `trace` are photographed by an installed Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import contextlib
import io
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from vertebra import Model, load_backbone, render, trace
from vertebra.decode import print_trace, trace_page

PICTURES = Path(__file__).parent / "pictures"
EXAMPLES = Path(__file__).parents[1] / "examples"


def sequence() -> None:
    """The one sequence of the README: an image of four patches, a question, an answer."""
    backbone = load_backbone("tiny-llama2")
    conversation = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where is the cup?"}]},
        {"role": "assistant", "content": "on the left"},
    ]
    made = render(conversation, backbone.prompt_builder_fn, backbone.tokenizer, sizes={"image": 4}, anchored=("image",))
    console = Console(record=True, width=72, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    made.show(backbone.tokenizer, console=console)
    console.save_svg(str(PICTURES / "sequence.svg"), title="one sequence: ids, roles, what is learned, slots")


def traces() -> None:
    """A page is asked for the name on it: the terminal's table, and two steps of the page of HTML."""
    example = runpy.run_path(str(EXAMPLES / "document_like.py"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.redirect_stdout(io.StringIO()):
            example["main"](folder / "model")
        model = Model.load(folder / "model", inference_mode=True)
        row, features = example["receipt"](model, 2)
        opened = row.cut(0, int((row.weight == 0).sum()))
        batch = model.collate([opened], [features], side="left")
        # of several runs the one that nothing else got in the way of
        told = min((trace(model, batch, max_new_tokens=8) for _ in range(20)), key=lambda one: one.total_seconds)
        console = Console(record=True, width=116, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        print_trace(told, console, details=1)
        console.save_svg(
            str(PICTURES / "trace.svg"), title='vertebra trace MODEL "What is the name?" --image … --page …'
        )
        source = trace_page(told)
        for step, (file, height) in enumerate((("trace.png", 1960), ("trace-step.png", 1640))):
            shown = folder / f"{step}.html"
            # the page opens its first step; a picture of another one is that page, opened there
            shown.write_text(source.replace("open(0);", f"open({step});"), encoding="utf-8")
            photograph(shown, PICTURES / file, height)


def photograph(source: Path, target: Path, height: int) -> None:
    """A page as a browser shows it."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("no Chromium found; install it: apt-get install chromium")
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size=1000,{height}")
    subprocess.run(
        [program, *options, f"--screenshot={target}", source.as_uri()], check=True, stderr=subprocess.DEVNULL
    )


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    sequence()
    traces()
