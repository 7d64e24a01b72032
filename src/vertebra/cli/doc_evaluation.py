"""`vertebra doc eval`: how often a model's answers about documents are right, point at the right place, and know it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.asking import Device, Dtype, Name, Token


def evaluate(
    model: Name,
    data: Annotated[
        str,
        typer.Argument(
            help="Pages with their answers: SROIE, CORD, FUNSD, LayTextLLM, or rows of {lines, fields}; a file, a folder, or "
            "a pattern in quotes."
        ),
    ],
    arms: Annotated[
        str,
        typer.Option(
            help="The same pages with one thing changed: no-boxes, no-pixels, boxes-shuffled, lines-shuffled, written, ocr, "
            "ocr=tesseract, or NAME=MODEL; separated by commas."
        ),
    ] = "",
    field: Annotated[list[str] | None, typer.Option(help="A field to ask for; repeatable. All by default.")] = None,
    across: Annotated[
        list[str] | None, typer.Option(help="A field over several lines; repeatable. `address` by default.")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--pages", min=1, help="So many pages of the data, from --first on.")
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="The first page that counts.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How often what is shuffled is shuffled anew.")] = 1,
    images: Annotated[
        Path | None, typer.Option(help="A folder of pictures, NAME.jpg or NAME.png.", exists=True, file_okay=False)
    ] = None,
    format: Annotated[str | None, typer.Option(help="The data's format, where it is not recognised.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, for formats without.")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="Fit the confidences on these answers and write it there.")
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="temperature, or isotonic (needs hundreds of answers).")
    ] = "temperature",
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that one value may take.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    token: Token = None,
    out: Annotated[Path | None, typer.Option(help="Write everything there as JSON, every answer included.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page: rates, arms, calibration, and some pages with their answers.")
    ] = None,
    drawn: Annotated[int, typer.Option(min=0, help="Of --html: how many pages of the data are drawn.")] = 6,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold a model's answers against known ones: by field and type, with evidence, confidences and arms."""
    from vertebra.backbone.registry import require_name

    require_name(model)  # before torch is imported for it
    from vertebra.cli.doc_files import require_targets, size_of
    from vertebra.evaluate.documents.arms import document_arms

    if calibration not in ("temperature", "isotonic"):
        raise typer.BadParameter(f"--calibration {calibration!r:.40}: expected temperature or isotonic")
    document_arms(arms)  # a wrong name before everything that takes time
    require_targets(calibrate, out, html)
    found = _pages_of(data, format, size_of(size))
    pages = _with_pictures(found[first : None if most is None else first + most], images)
    from vertebra.cli.asking import load
    from vertebra.documents.settings import ExtractSettings
    from vertebra.evaluate.documents.running import evaluate_documents

    def loaded(name: str) -> Any:
        return load(name, dtype=dtype, device=device, token=token)

    results = evaluate_documents(
        loaded(model), pages, arms=arms, fields=field, seeds=seeds, loaded=loaded,
        across=("address",) if across is None else across, settings=ExtractSettings(max_new_tokens=max_new_tokens),
    )  # fmt: skip
    if html is not None:
        from vertebra.evaluate.documents.page import write_documents_page

        write_documents_page(results, pages, html, drawn=drawn)
    _report(results, calibrate=calibrate, calibration=calibration, out=out, html=html, json=json)


def _pages_of(data: str, format: str | None, size: Any) -> list[Any]:
    """All pages of a file, a folder or a pattern, one after the other."""
    from dataclasses import replace

    from vertebra.page.files import document_files
    from vertebra.page.formats.registry import read_pages

    files = document_files(data)
    pages = [page for file in files for page in read_pages(file, format, size=size, on_bad="repair")]
    return pages if len(files) == 1 else [replace(page, number=number) for number, page in enumerate(pages, 1)]


def _with_pictures(pages: list[Any], folder: Path | None) -> list[Any]:
    """The pages, each with the picture of its name."""
    from dataclasses import replace

    from vertebra.errors import DataError
    from vertebra.page.pictures import SUFFIXES

    if not pages:
        raise DataError("no page of the data is left; give an earlier --first")
    if folder is None:
        return pages
    made = []
    for page in pages:
        there = [folder / f"{Path(page.name or '').stem}{suffix}" for suffix in SUFFIXES]
        found = next((path for path in there if path.is_file()), None)
        if found is None and page.image is None:
            raise DataError(
                f"`{folder}` has no picture of the page `{page.name}`; expected {there[0].name} or the like"
            )
        made.append(page if found is None else replace(page, image=found))
    return made


def _report(
    results: Any, *, calibrate: Path | None, calibration: str, out: Path | None, html: Path | None, json: bool
) -> None:
    import json as codec

    from vertebra.cli.output import console, print_json

    plain = results.to_json()
    if calibrate is not None:
        fitted, left = results.calibrated(calibration)
        fitted.write(calibrate)
        plain["calibrated_ece"] = left
    if out is not None:
        out.write_text(codec.dumps(plain, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if json:
        print_json(plain)
        return
    _tables(results)
    error = f"calibration error (ECE, 10 bins) {results.ece:.3f}"
    if calibrate is not None:
        error += (
            f"; calibrated, on pages that the fit did not see, {plain['calibrated_ece']:.3f}: written to {calibrate}"
        )
    console().print(error, soft_wrap=True)
    for path in (out, html):
        if path is not None:
            console().print(f"written to {path}", soft_wrap=True)


def _tables(results: Any) -> None:
    from vertebra.cli.output import console, table
    from vertebra.evaluate.documents.results import summary

    names = ("answers", "exact", "95 %", "as values", "ANLS", "line F1", "boxes", "on the page")
    made = table("arm", "of", *names, right=names)
    for arm in results.arms:
        groups = {"all": summary(results.of(arm)), **results.by(arm, lambda one: one.field)}
        types = results.by(arm, lambda one: one.kind)
        for name, one in {
            **groups,
            **({f"({kind})": own for kind, own in types.items()} if len(types) > 1 else {}),
        }.items():
            made.add_row(
                arm if name == "all" else "", name, str(one.count), f"{one.exact:.1%}",
                f"{one.exact_low:.1%} – {one.exact_high:.1%}", f"{one.same:.1%}", f"{one.anls:.3f}",
                *("" if value is None else f"{value:.3f}" for value in (one.line_f1, one.box_hits)), f"{one.stands:.1%}",
            )  # fmt: skip
    console().print(made)
    if results.paired:
        pairs = table("model − arm", "pairs", "exact, in points", "95 %", "McNemar's p", "ANLS", "95 % ",
                      right=("pairs", "exact, in points", "McNemar's p", "ANLS"))  # fmt: skip
        for one in results.paired:
            pairs.add_row(
                one.arm, str(one.count), f"{100 * one.difference:+.1f}", f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
                f"{one.p:.4f}", f"{one.anls:+.3f}", f"{one.anls_low:+.3f} to {one.anls_high:+.3f}",
            )  # fmt: skip
        console().print(pairs)
