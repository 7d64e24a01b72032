"""`vertebra data show|check|stats`: a data set as a model will see it, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look at data as a model will see it.")

Data = Annotated[
    str, typer.Argument(help="A file, a folder, a pattern, a hub name, or `stdlib`: the sources of this Python.")
]
ModelName = Annotated[str, typer.Option("--model", help="An id, a folder, or a hub name: whose tokenizer and format.")]
Objective = Annotated[str, typer.Option(help="auto, causal, rows, chat, masked or pairs.")]
Size = Annotated[int | None, typer.Option(help="Positions of a block, or of the longest sample.")]
Format = Annotated[str | None, typer.Option(help="What a row is, where it is not recognised: text, alpaca, pairs …")]
Columns = Annotated[list[str] | None, typer.Option("--column", help="Our name=theirs, as text=body; repeatable.")]
Images = Annotated[Path | None, typer.Option(help="The folder that image paths are relative to.")]
ImageSlots = Annotated[int | None, typer.Option(help="How many slots an image takes.")]
Builder = Annotated[str | None, typer.Option(help="A prompt builder, where the id names none.")]
System = Annotated[str | None, typer.Option(help="The system prompt of every conversation.")]
FoldSystem = Annotated[bool, typer.Option("--fold-system", help="Put system prompts before the first question.")]
Trusted = Annotated[
    list[str] | None,
    typer.Option(
        help="Whose text may hold added tokens: assistant, system, tool, or all of them, never the user; repeatable."
    ),
]
AddToken = Annotated[
    list[str] | None, typer.Option("--add-token", help="A token to add, as model.tokens does; repeatable.")
]
Label = Annotated[
    list[str] | None, typer.Option("--label", help="A class of the pairs, in order; repeatable. Else inferred.")
]
Split = Annotated[str | None, typer.Option(help="Which split of a dataset.")]
Pattern = Annotated[str | None, typer.Option(help="Which files of a folder, as **/*.jsonl.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unusable rows out instead of failing.")]
Token = Annotated[str | None, typer.Option(help="Token for private repositories.", envvar="HF_TOKEN")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(
    data: Data,
    model: ModelName,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many samples.")] = 3,
    objective: Objective = "auto",
    size: Size = None,
    pack: Annotated[bool, typer.Option("--pack", help="Pack the samples into as few rows as they fit.")] = False,
    format: Format = None,
    column: Columns = None,
    images: Images = None,
    image_slots: ImageSlots = None,
    builder: Builder = None,
    system: System = None,
    fold_system: FoldSystem = False,
    trusted: Trusted = None,
    add_token: AddToken = None,
    label: Label = None,
    split: Split = None,
    pattern: Pattern = None,
    skip_bad: SkipBad = False,
    html: Annotated[Path | None, typer.Option(help="Write a page of HTML there.")] = None,
    token: Token = None,
) -> None:
    """Show a batch as the model will see it: every token by role, its target, weight, block, slot and document."""
    from vertebra.data.loaders.samplers import InOrder, Packed
    from vertebra.data.samples.samples import Picked

    made = _set_up(
        data, model, builder, token, add_token,
        system=system, fold_system=fold_system, trusted=trusted or (), labels=label or (),
        objective=objective, size=size, format=format, columns=_columns(column), images=images,
        image_slots=image_slots, split=split, pattern=pattern, on_bad="skip" if skip_bad else "fail",
    )  # fmt: skip
    first = Picked(made.samples, range(min(count, len(made.samples))))
    batch = _batch(made, first, Packed(count, made.limit) if pack else InOrder(count))
    _print_batch(made, batch)
    if html is not None:
        _write(html, _page(made, batch))


@app.command()
def check(
    data: Data,
    model: ModelName,
    objective: Objective = "auto",
    size: Size = None,
    format: Format = None,
    column: Columns = None,
    images: Images = None,
    image_slots: ImageSlots = None,
    builder: Builder = None,
    system: System = None,
    fold_system: FoldSystem = False,
    trusted: Trusted = None,
    add_token: AddToken = None,
    label: Label = None,
    split: Split = None,
    pattern: Pattern = None,
    packing: Annotated[
        bool, typer.Option("--packing/--no-packing", help="Load the weights, and hold packed against unpacked.")
    ] = True,
    token: Token = None,
    json: Json = False,
) -> None:
    """Hold a data set against a model. Exit code 0: nothing would stop or spoil a run; 1: something would."""
    from dataclasses import replace

    from vertebra.data.look.report import check_data, check_packing

    made = _set_up(
        data, model, builder, token, add_token,
        system=system, fold_system=fold_system, trusted=trusted or (), labels=label or (),
        objective=objective, size=size, format=format, columns=_columns(column), images=images,
        image_slots=image_slots, split=split, pattern=pattern, on_bad="skip",
    )  # fmt: skip
    report = check_data(made)
    if packing and not made.model.is_encoder:
        from vertebra.backbone.registry import load_backbone
        from vertebra.data.encode.added import grow_to

        backbone = load_backbone(model, builder=builder, hf_token=token)
        if add_token:
            grow_to(backbone, add_token)
        report = replace(report, findings=(*report.findings, check_packing(made, backbone)))
    if json:
        from vertebra.cli.output import print_json

        print_json(report.to_json())
    else:
        _print_report(report)
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def stats(
    data: Data,
    model: ModelName,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("lengths.png"),
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 8,
    capacity: Annotated[
        int | None, typer.Option(help="Positions of a packed row; the model's limit by default.")
    ] = None,
    objective: Objective = "auto",
    size: Size = None,
    format: Format = None,
    column: Columns = None,
    images: Images = None,
    image_slots: ImageSlots = None,
    builder: Builder = None,
    system: System = None,
    fold_system: FoldSystem = False,
    trusted: Trusted = None,
    add_token: AddToken = None,
    label: Label = None,
    split: Split = None,
    pattern: Pattern = None,
    skip_bad: SkipBad = False,
    token: Token = None,
    json: Json = False,
) -> None:
    """Draw the lengths, and the padding before and after grouping and packing."""
    from vertebra.data.look.stats import padding_of, write_picture
    from vertebra.data.samples.causal import Windows

    made = _set_up(
        data, model, builder, token, add_token,
        system=system, fold_system=fold_system, trusted=trusted or (), labels=label or (),
        objective=objective, size=size, format=format, columns=_columns(column), images=images,
        image_slots=image_slots, split=split, pattern=pattern, on_bad="skip" if skip_bad else "fail",
    )  # fmt: skip
    samples = Windows(made.table, made.limit)  # what is longer than the model reads comes in pieces
    padding = padding_of(samples, batch_size=batch_size, capacity=capacity or made.limit)
    title = f"{made.source.name} on {made.model.name}"
    written = write_picture(out, made.table.lengths, padding, title=title, limit=made.limit)
    if json:
        from vertebra.cli.output import print_json

        print_json({"slots": padding.slots, "batches": padding.batches, "picture": str(written)})
        return
    _print_padding(padding)
    _out().print(f"written to {written}", soft_wrap=True)


def _set_up(
    data: str, model: str, builder: str | None, token: str | None, tokens: list[str] | None, **options: Any
) -> Any:
    from vertebra.data.look.setup import Model, set_up

    opening = {name: options.pop(name) for name in ("split", "pattern") if options.get(name)}
    options = {name: value for name, value in options.items() if name not in ("split", "pattern")}
    return set_up(data, Model.find(model, builder=builder, token=token, tokens=tokens or ()), **options, **opening)


def _columns(given: list[str] | None) -> dict[str, str]:
    pairs = [part.partition("=") for part in given or []]
    for ours, sign, theirs in pairs:
        if not sign or not ours or not theirs:
            raise typer.BadParameter(f"--column {ours}{sign}{theirs}: write our name=their name, as text=body")
    return {ours: theirs for ours, _, theirs in pairs}


def _batch(made: Any, samples: Any, sampler: Any) -> Any:
    """One batch of these samples. Pixels are not read: a slot says where they would go."""
    from vertebra.data.loaders.collate import Collator
    from vertebra.data.loaders.loader import Loader

    collator = Collator(made.model.pad_id, multiple_of=1)
    return next(iter(Loader(samples, sampler, collator, pin_memory=False, rank=0, world=1, shift=made.shift)))


def _print_batch(made: Any, batch: Any) -> None:
    from rich.text import Text

    from vertebra.sequence.batch import uncollate

    out = _out()
    out.print(Text.assemble((f"{made.source.name} on {made.model.name}", "bold"), f"  {_facts(made, batch)}"))
    for number, sequence in enumerate(uncollate(batch)):
        out.print()
        out.print(Text(_called(batch, number, sequence), "bold"))
        sequence.show(made.model.tokenizer, console=out)


def _called(batch: Any, number: int, sequence: Any) -> str:
    label = f", label {batch['labels'][number]}" if "labels" in batch else ""
    return f"row {number}: {len(sequence)} positions, {batch.length - len(sequence)} padding{label}"


def _page(made: Any, batch: Any) -> str:
    """The rows' pages as one: the head of the first, the bodies of all, each under the name of its row."""
    from html import escape

    from vertebra.sequence.batch import uncollate

    title = escape(f"{made.source.name} on {made.model.name}")
    head, bodies = "", []
    for number, sequence in enumerate(uncollate(batch)):
        page = str(sequence.show(made.model.tokenizer, html=True))
        head, _, body = page.partition("<body>")
        _, _, body = body.rpartition("</body>")[0].partition("</h1>")
        bodies.append(f"<h2>{escape(_called(batch, number, sequence))}</h2>{body}")
    head = head.replace("<title>Token sequence</title>", f"<title>{title}</title>")
    return f"{head}<body><h1>{title}</h1><p>{escape(_facts(made, batch))}</p>{'<hr>'.join(bodies)}</body></html>\n"


def _facts(made: Any, batch: Any) -> str:
    padding = int((batch["attention_mask"] == 0).sum())
    counted = f"{int((batch['weights'] > 0).sum())} supervised, {padding} padding"
    return f"{made.reader.name}, {made.objective}, {batch.rows} rows of {batch.length} positions, {counted}"


def _print_report(report: Any) -> None:
    from rich.text import Text

    from vertebra.cli.output import STYLES, table

    out = _out()
    styles = STYLES | {"note": "yellow"}
    facts = f"{report.format}, {report.objective}"
    out.print(Text.assemble((f"{report.source} on {report.model}", "bold"), f"  {facts}"))
    shown = table("what", "", "number", "what it is", right=("number",))
    for finding in report.findings:
        shown.add_row(
            Text(finding.name), Text(finding.status, styles[finding.status]), finding.value, Text(finding.said)
        )
    out.print(shown)
    for finding in report.findings:
        for place in finding.places:
            out.print(Text.assemble((f"{finding.name}: ", styles[finding.status]), place), soft_wrap=True)
    most = max(count for _, _, count in report.histogram)
    out.print(Text("lengths", "bold"))
    for low, high, count in report.histogram:
        out.print(Text(f"{low:>6} – {high:<6} {count:>8,}  {'█' * -(-40 * count // most)}"))
    bad = [finding.name for finding in report.findings if finding.status == "fail"]
    noted = [finding.name for finding in report.findings if finding.status == "note"]
    good = "nothing would stop or spoil a run" + (f"; worth a look: {', '.join(noted)}" if noted else "")
    out.print(Text(f"must be mended: {', '.join(bad)}" if bad else good, STYLES["fail" if bad else "pass"]))


def _print_padding(padding: Any) -> None:
    from vertebra.cli.output import table

    shown = table("batches", "number", "slots a token", "padding", right=("number", "slots a token", "padding"))
    for name, slots in padding.slots.items():
        shown.add_row(name, f"{padding.batches[name]:,}", f"{slots:.3f}", f"{padding.waste(name):.1%}")
    _out().print(shown)


def _out() -> Any:
    from vertebra.cli.output import console

    return console()


def _write(path: Path, page: str) -> None:
    from vertebra.errors import ConfigError

    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"`{path}` cannot be written: {error.strerror}; name a file in a folder that exists"
        ) from error
    _out().print(f"written to {path}", soft_wrap=True)
