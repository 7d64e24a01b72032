"""`vertebra data show|check|stats|convert`: a data set as a model will see it, before anything is trained on it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli import data_pictures, episodes
from vertebra.cli.data_findings import print_padding, print_report

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look at data as a model will see it.")

IMAGE_SLOTS = 16
"""Slots of an image where the model does not say how many."""


@dataclass(frozen=True)
class DataOptions:
    """What the shared options ask for."""

    job: Any
    batch: int | None
    """Rows of a batch, where a recipe says."""
    finding: dict[str, Any]
    """How the model is found beside its name."""

    @property
    def title(self) -> str:
        return f"{self.job.data.named} on {self.job.model.name}"

    def set_up(self, **changes: Any) -> Any:
        """All rows, for a report; `changes` to the data's settings."""
        from vertebra.tasks.inspection import set_up

        return set_up(replace(self.job, data=replace(self.job.data, **changes)))


def _asked(
    data: Annotated[
        str,
        typer.Argument(
            help="A file, a folder, a pattern, a hub name, `stdlib` (the sources of this Python); or a recipe (.yaml)."
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="An id, a folder, or a hub name; by default the recipe's.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="What is trained: text, masked, chat, pairs …; else what fits data and model.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Positions of a block, or of the longest sample.")] = None,
    format: Annotated[
        str | None, typer.Option(help="What a row is, where it is not recognised: text, alpaca, pairs …")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Our name=theirs, as text=body; repeatable.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder that image paths are relative to.")] = None,
    image_slots: Annotated[int | None, typer.Option(help="How many slots an image takes.")] = None,
    builder: Annotated[str | None, typer.Option(help="A prompt builder, where the id names none.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt of every conversation.")] = None,
    fold_system: Annotated[
        bool, typer.Option("--fold-system", help="Put system prompts before the first question.")
    ] = False,
    trusted: Annotated[
        list[str] | None,
        typer.Option(
            help="Whose text may hold added tokens: assistant, system, tool, or all of them, never the user; repeatable."
        ),
    ] = None,
    add_token: Annotated[
        list[str] | None, typer.Option("--add-token", help="A token to add, as model.tokens does; repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="A class of the pairs, in order; repeatable. Else inferred.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of a dataset.")] = None,
    pattern: Annotated[str | None, typer.Option(help="Which files of a folder, as **/*.jsonl.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unusable rows out instead of failing.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting as a recipe has it: data.held_out=0.1. Repeatable.")
    ] = None,
    token: Annotated[str | None, typer.Option(help="Token for private repositories.", envvar="HF_TOKEN")] = None,
) -> DataOptions:
    """The options that all three commands share, as what they ask for."""
    given = {
        "kind": kind, "block": size, "format": format, "columns": _columns(column), "images": images and str(images),
        "system": system, "fold_system": fold_system, "trusted": tuple(trusted or ()), "labels": tuple(label or ()),
        "split": split, "pattern": pattern, "on_bad": "skip" if skip_bad else None,
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value}
    if data.endswith((".yaml", ".yml")):
        asked = _of_recipe(data, settings, set_ or [])
    elif model is None:
        raise typer.BadParameter("--model is missing: whose tokenizer and prompt format? (A recipe names its own.)")
    else:
        asked = _of_path(data, model, settings, set_ or [], builder=builder, token=token, tokens=tuple(add_token or ()))
    return asked if image_slots is None else replace(asked, job=_with_slots(asked.job, image_slots))


def _with_slots(job: Any, count: int) -> Any:
    return replace(job, model=replace(job.model, sizes={**job.model.sizes, "image": count}))


def _of_recipe(path: str, settings: dict[str, Any], overrides: list[str]) -> DataOptions:
    from vertebra.training.data import outlined_job
    from vertebra.training.recipes import read_recipe

    config = read_recipe(path, overrides)
    config = replace(config, data=replace(config.data, **settings))
    if config.task.reads:  # what is cached tells the places of the file that it was made from, wherever that lay
        config = replace(config, data=replace(config.data, cache=False))
    return DataOptions(outlined_job(config), config.optim.batch, {})


def _of_path(
    path: str, model: str, settings: dict[str, Any], overrides: list[str], *, tokens: tuple[str, ...], **finding: Any
) -> DataOptions:
    from vertebra.data.model_facts import ModelFacts

    facts = ModelFacts.find(model, tokens=tokens, **finding)  # a wrong name is no reason to import torch
    from vertebra import config as configs
    from vertebra.tasks.chain import data_config
    from vertebra.tasks.config import DataConfig
    from vertebra.tasks.task import Job

    chosen = data_config(path, facts, held_out=0.0, cache=False, **settings)
    tree = configs.apply(DataConfig, configs.plain(chosen), [text.removeprefix("data.") for text in overrides])
    chosen = configs.build(DataConfig, tree, where="the options")
    job = Job(data=chosen, model=facts, tokens=tokens)
    # a language model alone has no slots for images, and their rows can be looked at all the same
    job = job if facts.sizes or facts.is_encoder else _with_slots(job, IMAGE_SLOTS)
    return DataOptions(job, None, {"builder": finding["builder"], "hf_token": finding["token"]})


def on_data(command: Callable[..., None]) -> Callable[..., None]:
    """A command of `DataOptions` and options of its own, called by the shared options and these; of episodes, its namesake."""
    shared = inspect.signature(_asked, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def call(**given: Any) -> None:
        if episodes.handles(command.__name__, given, [one.name for one in own]):
            return
        command(_asked(**{name: given.pop(name) for name in shared}), **given)

    call.__signature__ = inspect.Signature([*shared.values(), *own])  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in (*shared.values(), *own)}
    return call


app.command()(episodes.convert)


@app.command()
@on_data
def show(
    asked: DataOptions,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="Rows of the batch.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of HTML there.")] = None,
    episode: Annotated[int | None, typer.Option(min=0, help="Of episodes: the first that is shown.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Of episodes: write the first one's film strip there; of documents: the first page, with its slots."
        ),
    ] = None,
) -> None:
    """Show the first batch that training would see: every token by role, its target, weight, block, slot and document. Of a
    robot's episodes: the instruction and the actions of the first `--count`, with film strips by --html."""
    if episode is not None:
        raise typer.BadParameter("--episode is for a set of episodes, and this is none (no meta/info.json)")
    made, batch = first_batch(asked, count)
    facts = _facts(asked, made, batch)
    _print_batch(asked, batch, facts)
    if picture is not None:
        data_pictures.write_first(made, picture, rows=batch.rows)
    if html is not None:
        from vertebra.cli.output import write_page

        write_page(html, _page(asked, batch, facts, data_pictures.of_rows(made, batch.rows)))
        _out().print(f"written to {html}", soft_wrap=True)


def first_batch(asked: DataOptions, rows: int | None = None) -> tuple[Any, Any]:
    """The data as its kind makes it, and the batch that a training would see first."""
    from vertebra.tasks.chain import read_data

    made = read_data(asked.job)
    return made, next(iter(made.loader(rows or asked.batch or 3, rank=0, world=1)))


@app.command()
@on_data
def check(
    asked: DataOptions,
    packing: Annotated[
        bool, typer.Option("--packing/--no-packing", help="Load the weights, and hold packed against unpacked.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    skip: Annotated[
        Path | None, typer.Option(help="Of episodes: write the numbers of those to leave out there, as JSON.")
    ] = None,
) -> None:
    """Hold a data set against a model, or episodes against themselves. Exit code 0: nothing would stop or spoil a run."""
    if skip is not None:
        raise typer.BadParameter("--skip names episodes, and this is no set of them (it has no meta/info.json)")
    from vertebra.tasks.registry import task_of

    report = task_of(asked.job.data).checked(asked.job) or _checked(asked, packing=packing)
    if json:
        from vertebra.cli.output import print_json

        print_json(report.to_json())
    else:
        print_report(report)
    if not report.passed:
        raise typer.Exit(1)


def _checked(asked: DataOptions, *, packing: bool) -> Any:
    """Rows held against a model."""
    from vertebra.data.look.report import check_data, check_packing

    made = asked.set_up(on_bad="skip")
    report = check_data(made)
    if not packing or made.model.is_encoder:
        return report
    from vertebra.backbone.registry import load_backbone
    from vertebra.backbone.vocabulary import grow_to

    backbone = load_backbone(made.model.name, **asked.finding)
    grow_to(backbone, asked.job.tokens)
    return replace(report, findings=(*report.findings, check_packing(made, backbone)))


@app.command()
@on_data
def stats(
    asked: DataOptions,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("lengths.png"),
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 8,
    capacity: Annotated[
        int | None, typer.Option(help="Positions of a packed row; the model's limit by default.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw the lengths, and the padding before and after grouping and packing; of a robot's episodes, their lengths and a
    histogram of every dimension."""
    from vertebra.data.look.stats import padding_of, write_picture
    from vertebra.data.samples.causal import Windows

    made = asked.set_up()
    samples = Windows(made.table, made.limit)  # what is longer than the model reads comes in pieces
    padding = padding_of(samples, batch_size=batch_size, capacity=capacity or made.limit)
    written = write_picture(out, made.table.lengths, padding, title=asked.title, limit=made.limit)
    if json:
        from vertebra.cli.output import print_json

        print_json({"slots": padding.slots, "batches": padding.batches, "picture": str(written)})
        return
    print_padding(padding)
    _out().print(f"written to {written}", soft_wrap=True)


def _columns(given: list[str] | None) -> dict[str, str]:
    pairs = [part.partition("=") for part in given or []]
    for ours, sign, theirs in pairs:
        if not sign or not ours or not theirs:
            raise typer.BadParameter(f"--column {ours}{sign}{theirs}: write our name=their name, as text=body")
    return {ours: theirs for ours, _, theirs in pairs}


def _print_batch(asked: DataOptions, batch: Any, facts: str) -> None:
    from rich.text import Text

    from vertebra.sequence.batch import uncollate

    out = _out()
    out.print(Text.assemble((asked.title, "bold"), f"  {facts}"))
    for number, sequence in enumerate(uncollate(batch)):
        out.print()
        out.print(Text(_called(batch, number, sequence), "bold"))
        sequence.show(asked.job.model.tokenizer, console=out)


def _called(batch: Any, number: int, sequence: Any) -> str:
    label = f", label {batch['labels'][number]}" if "labels" in batch else ""
    return f"row {number}: {len(sequence)} positions, {batch.length - len(sequence)} padding{label}"


def _page(asked: DataOptions, batch: Any, facts: str, pictures: Sequence[str]) -> str:
    """The rows as one page, each under its name."""
    from vertebra.sequence.batch import uncollate
    from vertebra.sequence.show import STYLE, body_of
    from vertebra.webpage import escaped, webpage

    title = escaped(asked.title)
    bodies = [
        f"<h2>{escaped(_called(batch, number, sequence))}</h2>{pictures[number]}\n"
        + body_of(sequence, asked.job.model.tokenizer)
        for number, sequence in enumerate(uncollate(batch))
    ]
    body = f"<h1>{title}</h1><p>{escaped(facts)}</p>{'<hr>'.join(bodies)}"
    return webpage(asked.title, body, style=STYLE)


def _facts(asked: DataOptions, made: Any, batch: Any) -> str:
    data, reads = asked.job.data, made.task.reads
    formats = [part.settled(format=made.task.format).name for part in data.single().values()] if reads else []
    padding = int((batch["attention_mask"] == 0).sum())
    counted = f"{int((batch['weights'] > 0).sum())} supervised, {padding} padding"
    what = ", ".join([*dict.fromkeys(formats), made.task.name])
    return f"{what}, {batch.rows} rows of {batch.length} positions, {counted}"


def _out() -> Any:
    from vertebra.cli.output import console

    return console()
