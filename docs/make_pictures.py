"""Draw the pictures of the README and the docs from the library itself: `python docs/make_pictures.py`."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from vertebra import load_backbone, render

PICTURES = Path(__file__).parent / "pictures"


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
    console.save_svg(str(PICTURES / "sequence.svg"), title="one sequence: ids, who speaks, what is learned, slots")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    sequence()
