"""An evaluation of documents as one self-contained page: rates by field and type, arms beside them, whether confidences
mean what they say, and some pages with right and wrong answers. No network, no library; texts are texts.

    solid green, red   where a right, a wrong answer points       dashed blue   where the answer stands, of a wrong one
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

from vertebra.documents.calibration import reliability
from vertebra.documents.drawing import Mark, light, sheet
from vertebra.evaluate.documents.asked import evidence
from vertebra.evaluate.documents.results import AnswerRecord, DocumentResults, PairedAnswers, Summary, summary
from vertebra.folders import named_file
from vertebra.page.page import Page
from vertebra.webpage import beside, escaped, webpage

DRAWN = 6
"""Pages that are drawn."""
_MEANS = {
    "no-boxes": "No line has a place: the difference is what layout is worth.",
    "no-pixels": "No picture of the page.",
    "boxes-shuffled": "Every line has the place of another one: without a fall, places are not read.",
    "lines-shuffled": "Lines in random order, places kept: a fall shows that the order was read.",
    "written": "The model writes its answers, and copies nothing: the difference is what copying is worth.",
    "ocr": "The page as OCR reads its picture.",
}


def documents_page(results: DocumentResults, pages: Sequence[Page], *, drawn: int = DRAWN) -> str:
    """The page, ready to be written to a file. `pages`: those that were asked about, in their order."""
    body = [_head(results, pages), _rates(results), _measures(results), _arms(results), _calibration(results)]
    body += [_page(results, pages[number], number) for number in _chosen(results, drawn)]
    title, style = f"{results.model}: an evaluation on documents", beside("vertebra.evaluate.documents", "page.css")
    return webpage(title, "\n".join(body), style=style, data=("results", results.to_json()), script=light())


def write_documents_page(results: DocumentResults, pages: Sequence[Page], path: str | Path, **how: int) -> Path:
    """The same as a file."""
    with named_file(path) as file:
        file.write_text(documents_page(results, pages, **how), encoding="utf-8")
    return file


def _own(results: DocumentResults) -> list[AnswerRecord]:
    return results.of(results.arms[0])


def _head(results: DocumentResults, pages: Sequence[Page]) -> str:
    whole = summary(_own(results))
    asked = len({one.page for one in _own(results)})
    return (
        f"<header><h1>{escaped(results.model)}: {whole.exact:.1%} of {whole.count} answers exact</h1><p class='soft'>"
        f"{asked} of {len(pages)} pages asked about. Bars are Wilson's intervals of 95 %; those of ANLS are of the normal "
        "distribution.</p></header>"
    )


def _cell(one: Summary | None) -> str:
    if one is None:
        return "<td></td>"
    left, width = 100 * one.exact_low, 100 * (one.exact_high - one.exact_low)
    bar = (
        f"<span class='rate'><i style='left:{left:.1f}%;width:{width:.1f}%'></i>"
        f"<b style='left:calc({100 * one.exact:.1f}% - 1px)'></b></span>"
    )
    interval = f"{100 * one.exact_low:.0f}–{100 * one.exact_high:.0f}"
    return f"<td class='number'>{bar}{one.exact:.1%} <span class='soft'>[{interval}]</span></td>"


def _groups(results: DocumentResults, arm: str) -> dict[str, Summary]:
    """Of an arm: all answers, then by field, then by type where there are several."""
    kinds = results.by(arm, lambda one: one.kind)
    typed = {f"({kind})": one for kind, one in kinds.items()} if len(kinds) > 1 else {}
    return {"all answers": summary(results.of(arm)), **results.by(arm, lambda one: one.field), **typed}


def _rates(results: DocumentResults) -> str:
    arms = {arm: _groups(results, arm) for arm in results.arms}
    head = "".join(f"<th>{escaped(arm)}</th>" for arm in arms)
    rows = "".join(
        f"<tr><td>{escaped(name)}</td>{''.join(_cell(own.get(name)) for own in arms.values())}</tr>"
        for name in arms[results.arms[0]]
    )
    return (
        f"<div class='card' id='rates'><h2>Exact answers</h2><table><thead><tr><th>field, or type</th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _measures(results: DocumentResults) -> str:
    """Of the model itself, what else is measured."""
    rows = []
    for name, one in _groups(results, results.arms[0]).items():
        places = ["–" if value is None else f"{value:.3f}" for value in (one.line_f1, one.box_hits)]
        anls = f"{one.anls:.3f} <span class='soft'>[{one.anls_low:.3f}–{one.anls_high:.3f}]</span>"
        cells = [str(one.count), f"{one.same:.1%}", anls, *places, f"{one.stands:.1%}"]
        rows.append(f"<tr><td>{escaped(name)}</td>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>")
    heads = ("field, or type", "answers", "equal as values", "ANLS", "F1 of lines", "boxes hit", "stands on the page")
    return (
        "<div class='card' id='measures'><h2>How near, and where</h2><table><thead><tr>"
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _arms(results: DocumentResults) -> str:
    if not results.paired:
        return ""
    return (
        "<div class='card' id='arms'><h2>The same pages, one thing changed</h2><table><thead><tr><th>arm</th><th>pairs</th>"
        "<th>model − arm, exact, in points</th><th>McNemar's p</th><th>model − arm, ANLS</th></tr></thead><tbody>"
        + "".join(map(_pair, results.paired))
        + "</tbody></table></div>"
    )


def _pair(one: PairedAnswers) -> str:
    points = f"{100 * one.difference:+.1f} <span class='soft'>[{100 * one.low:+.1f} to {100 * one.high:+.1f}]</span>"
    anls = f"{one.anls:+.3f} <span class='soft'>[{one.anls_low:+.3f} to {one.anls_high:+.3f}]</span>"
    p = f"{one.p:.3f}" if one.p >= 0.001 else "below 0.001"
    about = _MEANS.get("ocr" if one.arm.startswith("ocr-") else one.arm, "Another model.")
    return (
        f"<tr><td>{escaped(one.arm)}<br><span class='soft'>{escaped(about)}</span></td><td>{one.count}</td>"
        f"<td class='number'>{points}</td><td>{p}</td><td class='number'>{anls}</td></tr>"
    )


def _calibration(results: DocumentResults) -> str:
    """How often answers of a confidence are right: on the dashed line, confidences mean what they say."""
    own = _own(results)
    found = reliability([one.confidence for one in own], [one.same for one in own])
    side, edge = 240, 40
    bars = []
    for one in found:
        x, width, height = edge + side * one.low, side * (one.high - one.low) - 2, side * one.right
        mean = edge + side * one.confidence
        bars.append(
            f"<rect class='bin' x='{x + 1:.1f}' y='{edge / 2 + side - height:.1f}' width='{width:.1f}' "
            f"height='{max(height, 1):.1f}'><title>{one.answers} answers of {one.low:.1f} to {one.high:.1f}: mean confidence "
            f"{one.confidence:.2f}, {one.right:.0%} right</title></rect>"
            f"<circle class='mean' cx='{mean:.1f}' cy='{edge / 2 + side - height:.1f}' r='3'/>"
            f"<text x='{x + side / 20:.1f}' y='{edge / 2 + side + 14}' text-anchor='middle'>{one.answers}</text>"
        )
    low, high = edge / 2 + side, edge / 2
    drawn = (
        f"<svg viewBox='0 0 {side + edge + 20} {side + edge + 20}' role='img'>"
        f"<path class='axis' d='M{edge} {high}V{low}H{edge + side}'/>"
        f"<line class='even' x1='{edge}' y1='{low}' x2='{edge + side}' y2='{high}'/>{''.join(bars)}"
        f"<text x='{edge - 6}' y='{high + 4}' text-anchor='end'>100 %</text>"
        f"<text x='{edge - 6}' y='{low + 4}' text-anchor='end'>0 %</text>"
        f"<text x='{edge + side / 2}' y='{low + 30}' text-anchor='middle'>confidence 0 to 1, and answers of each</text></svg>"
    )
    return (
        f"<div class='card' id='calibration'><h2>Confidences: calibration error {results.ece:.3f}</h2><p class='soft'>Bars: "
        "how often answers of a confidence are right as values. Bars on the dashed line: confidences mean what they say. Dots: "
        f"the mean confidence of a bar.</p>{drawn}</div>"
    )


def _chosen(results: DocumentResults, count: int) -> list[int]:
    """Pages with wrong answers and pages without, in turns, in the order of the data."""
    own = {number: [one for one in _own(results) if one.page == number] for number in {r.page for r in _own(results)}}
    wrong = [number for number in sorted(own) if not all(one.same for one in own[number])]
    right = [number for number in sorted(own) if number not in wrong]
    found = [one for one in chain(*zip_longest(wrong, right)) if one is not None]
    return sorted(found[:count])


def _page(results: DocumentResults, page: Page, number: int) -> str:
    """One page of the data and the model's answers on it."""
    own = [one for one in _own(results) if one.page == number and one.seed == 0]
    marks, rows = [], []
    for one in own:
        name = f"{number}:{one.field}"
        look = "good" if one.same else "bad"
        marks += _lit(page, one.lines, name, look, f"{one.field}: {one.answer} ({one.confidence:.2f})")
        if not one.same:
            marks += _lit(page, evidence(page, one.golds), name, "gold", f"{one.field}: {' or '.join(one.golds)}")
        answer = "<span class='soft'>absent</span>" if one.answer is None else escaped(one.answer)
        expected = "" if one.same else escaped(" or ".join(one.golds) or "absent")
        rows.append(
            f"<tr data-field='{escaped(name)}'><td>{escaped(one.field)}</td><td class='{look}'>{answer}</td><td>{expected}</td>"
            f"<td>{one.confidence:.2f}</td></tr>"
        )
    title = page.name or f"page {number + 1} of the data"
    drawn = sheet(page, page.image, marks, title)
    table = (
        "<div class='card'><h2>Answers</h2><table><thead><tr><th>field</th><th>answer</th><th>expected</th><th>confidence</th>"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return f"<div class='pair'>{drawn}{table}</div>"


def _lit(page: Page, lines: Sequence[int], name: str, look: str, title: str) -> list[Mark]:
    boxes = [page.lines[number].box for number in lines]
    return [Mark(name, look, title, box) for box in boxes if box is not None]
