"""The options that `generate`, `trace` and `score` share, as the library takes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebra.cli.paths import PATH

if TYPE_CHECKING:
    from vertebra.model.model import Model

Name = Annotated[str, typer.Argument(help="An id, a folder (an adapter's or a run's too), or a hub name.")]
Prompt = Annotated[str, typer.Argument(help="The question; `-` reads it from standard input.")]
Base = Annotated[str | None, typer.Option(help="For an adapter's folder: its base; by default the one that it names.")]
System = Annotated[str | None, typer.Option(help="The system prompt.")]
Image = Annotated[list[Path] | None, typer.Option(help="An image that stands in the question; repeatable.", **PATH)]
Page = Annotated[
    Path | None,
    typer.Option(
        help='A page, as `vertebra doc read --json` writes it, or lines [{"text": "Total", "box": [10, 20, 90, 30]}, …].',
        **PATH,
    ),
]
Raw = Annotated[bool, typer.Option("--raw", help="Continue the text as it stands, without a prompt format.")]
Action = Annotated[
    bool, typer.Option("--action", help="Open the answer for an action, whose ids come right behind the prompt.")
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16; default: the checkpoint's own.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.")]
Attn = Annotated[str | None, typer.Option(help="The attention kernel: eager, sdpa, flash_attention_2.")]
Family = Annotated[str | None, typer.Option(help="Whose rules a folder follows; none: read off the model.")]
Token = Annotated[str | None, typer.Option(help="Token for private repositories.", envvar="HF_TOKEN")]


def load(name: str, *, token: str | None, base: str | None = None, **options: Any) -> Model:
    """A model by its name, ready to run; options are those of `vertebra.load`."""
    from vertebra.backbone.source import left_by_run
    from vertebra.interop.load import load as load_model
    from vertebra.tune.record import is_adapter_folder

    if base is not None and not is_adapter_folder(left_by_run(name)):
        raise typer.BadParameter(f"--base is the base of an adapter, and `{name}` is a model of its own; leave it out")
    return load_model(name, base=base, hf_token=token, **options)


def read_prompt(prompt: str) -> str:
    """The prompt of a command: `-` is standard input, without the line's end at its end."""
    return sys.stdin.read().rstrip("\r\n") if prompt == "-" else prompt


def question(
    *, system: str | None = None, raw: bool = False, action: bool = False, image: Any = None, page: Any = None
) -> dict[str, Any]:
    """What was given beside the question, by the library's names."""
    if raw and (system is not None or action):
        raise typer.BadParameter("--raw has no prompt format, and so no place for --system or --action")
    return given(system=system, raw=raw or None, action=action or None, images=image, page=page)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; those left out are the engine's own business."""
    return {name: value for name, value in options.items() if value not in (None, [], ())}
