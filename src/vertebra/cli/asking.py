"""What `generate`, `trace` and `score` share: a model by its name, and a question with images and pages as a prompt.

What a person types is text and never becomes a control token. It knows how people ask, and nothing of decoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebra.cli.paths import PATH

if TYPE_CHECKING:
    from vertebra.model.model import Model
    from vertebra.sequence.batch import Batch
    from vertebra.sequence.tokens import TokenSequence

Name = Annotated[str, typer.Argument(help="An id, a folder (an adapter's or a run's too), or a hub name.")]
Base = Annotated[str | None, typer.Option(help="For an adapter's folder: its base; by default the one that it names.")]
System = Annotated[str | None, typer.Option(help="The system prompt.")]
Image = Annotated[list[Path] | None, typer.Option(help="An image that stands in the question; repeatable.", **PATH)]
Page = Annotated[
    Path | None, typer.Option(help='Lines of a page as JSON: [{"text": "Total", "box": [10, 20, 90, 30]}, …].', **PATH)
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
    """A model by its name, ready to run; options are those of `load_backbone`."""
    from vertebra.backbone.source import left_by_run
    from vertebra.interop.load import load as load_model
    from vertebra.tune.record import is_adapter_folder

    if base is not None and not is_adapter_folder(left_by_run(name)):
        raise typer.BadParameter(f"--base is the base of an adapter, and `{name}` is a model of its own; leave it out")
    return load_model(name, base=base, hf_token=token, **options)


class Asker:
    """Turns questions into sequences for one model."""

    def __init__(self, model: Model, *, system: str | None = None, raw: bool = False) -> None:
        self.model = model
        self.backbone = model.backbone
        self.system, self.raw = system, raw
        if raw and system is not None:
            raise typer.BadParameter("--raw has no prompt format, and so no place for --system")

    def question(self, text: str, images: list[Path] | None = None, page: Path | None = None) -> list[dict[str, Any]]:
        """A conversation of one question."""
        return [{"role": "user", "content": self._content(text, images or [], page)}]

    def _content(self, text: str, images: list[Path], page: Path | None) -> Any:
        from vertebra.errors import ConfigError

        parts: list[dict[str, Any]] = []
        has = set(self.model.sizes)
        for given, segment in ((images, "image"), (page, "boxes")):
            if given and segment not in has:
                known = f"its parts are {', '.join(sorted(has))}" if has else "it is a language model alone"
                raise ConfigError(f"`{self.backbone.identifier}` has no part `{segment}`; {known}")
        if self.raw and (images or page):
            raise ConfigError("--raw continues plain text; images and pages need the prompt format: leave --raw out")
        parts += [{"type": "image"} for _ in images]
        if page is not None:
            parts.append({"type": "page", "lines": read_page(page)})
        return [*parts, {"type": "text", "text": text}] if parts else text

    def items(self, images: list[Path] | None, page: Path | None) -> dict[str, Any]:
        """The raw items of a question, as the model's encoders take them."""
        given: dict[str, Any] = {}
        if images:
            given["image"] = list(images)
        if page is not None:
            given["boxes"] = [line["box"] for line in read_page(page)]
        return self.model.prepare(given) if given else {}

    def sequence(self, conversation: list[dict[str, Any]], **options: Any) -> TokenSequence:
        """A conversation as this model reads it."""
        if self.raw:
            return self._as_it_stands("".join(turn["content"] for turn in conversation))
        turns = [*([] if self.system is None else [{"role": "system", "content": self.system}]), *conversation]
        return self.model.render(turns, **options)

    def _as_it_stands(self, text: str) -> TokenSequence:
        from vertebra.prompt.tokenizer import tokenizer_of
        from vertebra.sequence.roles import Role
        from vertebra.sequence.tokens import TokenSequence

        encoder = tokenizer_of(self.backbone.tokenizer)
        (encoded,) = encoder.encode([text], [[(0, len(text))]])
        return TokenSequence.of([*encoder.facts().prefix, *encoded.ids.tolist()], role=Role.USER)

    def prompt(
        self, text: str, images: list[Path] | None = None, page: Path | None = None, *, action: bool = False
    ) -> Batch:
        """A question as a batch of one row; `action`: what precedes an answer is what precedes one in training."""
        if action and self.raw:
            raise typer.BadParameter("--raw has no answer that --action could open; leave one of them out")
        asked, options = self.question(text, images, page), {}
        if action:
            asked.append({"role": "assistant", "content": [{"type": "action", "ids": []}]})
            options["open_turn"] = True
        return self.batch(self.sequence(asked, **options), self.items(images, page))

    def batch(self, sequence: TokenSequence, items: dict[str, Any]) -> Batch:
        return self.model.collate([sequence], [items], side="left")


def read_page(path: Path) -> list[dict[str, Any]]:
    """The lines of a page, each with a text and a box."""
    from vertebra.errors import DataError
    from vertebra.reading import json_of

    try:
        lines = json_of(path.read_bytes())
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"`{path}` is no JSON: {error}") from error
    if isinstance(lines, dict):
        lines = lines.get("lines")
    fields = {"text", "box"}
    if not isinstance(lines, list) or not all(isinstance(line, dict) and fields <= set(line) for line in lines):
        raise DataError(f'`{path}` must hold a list of lines, each {{"text": …, "box": [left, top, right, bottom]}}')
    return lines


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; those left out are the engine's own business."""
    return {name: value for name, value in options.items() if value not in (None, [], ())}
