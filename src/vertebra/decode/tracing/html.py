"""A trace as one self-contained page: a timeline of tokens, and behind each the whole of its step. No network, no library.

Without scripts every step is simply shown. It draws, and computes nothing.
"""

from __future__ import annotations

from itertools import groupby

from vertebra.decode.tracing.pictures import MaskPicture
from vertebra.decode.tracing.record import PassRecord
from vertebra.decode.tracing.sheets import TraceSheet
from vertebra.decode.tracing.trace import Candidate, StepTrace, Trace
from vertebra.decode.tracing.words import MEANS, line_place, size, span, story, time_of, what_went_in
from vertebra.webpage import beside, escaped, webpage

_KINDS = {
    "prefill": "the prompt (prefill)",
    "extend": "the next piece of the prompt",
    "step": "the last token (decode)",
}
_PAGE = (700, 990)
"""Units of a drawn page."""
_SIDE = 220
"""Pixels of a mask's longer side, at least."""


def trace_page(trace: Trace) -> str:
    """The page, ready to be written to a file."""
    pages = [_sheet(sheet, number) for number, sheet in enumerate(trace.pages, 1)]
    body = [_head(trace), _prompt(trace), *pages, _timeline(trace), *map(_step, trace.steps), _end(trace)]
    style, script = (beside("vertebra.decode.tracing", name) for name in ("page.css", "open.html"))
    title, data = f"{trace.model}: a trace", ("trace", trace.to_json())
    return webpage(title, "\n".join(body), style=style, data=data, script=script)


def _list(facts: dict[str, str]) -> str:
    return (
        "<dl>"
        + "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in facts.items())
        + "</dl>"
    )


def _head(trace: Trace) -> str:
    facts = {
        **trace.facts,
        "settings": trace.settings,
        "time in all": f"{time_of(trace.total_seconds)}, looking on included",
    }
    return (
        f"<h1>{escaped(trace.model)}</h1><p class='soft'>How an answer is made, one token at a time, as it really ran. "
        "Choose a token of the answer (or use the arrow keys) to see everything that was done for it.</p>"
        f"<div class='card'>{_list(facts)}</div>"
    )


def _prompt(trace: Trace) -> str:
    parts = []
    for segment, group in groupby(trace.prompt, key=lambda token: token.segment):
        tokens = list(group)
        if segment is None:
            parts += [
                f"<span class='token {escaped(token.role)}' title='id {token.id}, {escaped(token.role)}'>"
                f"{escaped(token.text)}</span>"
                for token in tokens
            ]
        else:
            parts.append(f"<span class='token slot'>{len(tokens)} × {escaped(segment)}</span>")
    return (
        f"<div class='card' id='prompt'><h2>The prompt: {len(trace.prompt)} positions</h2>"
        f"<div class='tokens'>{''.join(parts)}</div><p class='soft'>A box is a token, a piece of text with a number "
        "(␣: a blank, ⏎: a line end). Blue: places that are filled from outside, by images or boxes.</p></div>"
    )


def _sheet(sheet: TraceSheet, number: int) -> str:
    """A page as the row has it: the box of each line, its text, the positions that it takes."""
    x, y = _PAGE[0] / sheet.scale, _PAGE[1] / sheet.scale
    drawn, bare = [], []
    for line in sheet.lines:
        place = line_place(line)
        if line.box is None:
            bare.append(f"<li>{escaped(place)}: {escaped(line.text)}</li>")
            continue
        left, top, right, bottom = line.box[0] * x, line.box[1] * y, line.box[2] * x, line.box[3] * y
        kind = "line asked" if line.asked else "line"
        drawn.append(
            f"<g class='{kind}'><title>{escaped(place)}: {escaped(line.text)}</title><rect x='{left:.1f}' y='{top:.1f}' "
            f"width='{max(right - left, 2):.1f}' height='{max(bottom - top, 2):.1f}'/>"
            f"<text x='{left + 3:.1f}' y='{(top + bottom) / 2 + 4:.1f}'><tspan class='at'>{escaped(place)}</tspan> "
            f"{escaped(line.text)}</text></g>"
        )
    without = f"<p class='soft'>Without a box:</p><ul>{''.join(bare)}</ul>" if bare else ""
    return (
        f"<div class='card sheet'><h2>Page {number} as the row has it: {sum(not line.asked for line in sheet.lines)} lines</h2>"
        f"<svg class='page' viewBox='0 0 {_PAGE[0]} {_PAGE[1]}' role='img'>{''.join(drawn)}</svg>{without}"
        "<p class='soft'>Before a line: its positions in the row, and ▢ where a box enters. Dashed: a box that a question is "
        f"about. The model knows boxes as shares of the page, 0 to {sheet.scale:g}, and not how high the page is.</p></div>"
    )


def _timeline(trace: Trace) -> str:
    buttons = []
    for step in trace.steps:
        kind = "token ended" if step.ended else "token"
        label = step.text if step.id is not None else "nothing"
        title = f"step {step.index}, {step.probability:.1%}, {time_of(step.seconds)}"
        what = f"class='{kind}' aria-pressed='false' data-step='{step.index}' title='{escaped(title)}'"
        buttons.append(f"<button {what}>{escaped(label)}</button>")
    return (
        f"<div class='card' id='timeline'><h2>The answer: {len(trace.steps)} steps</h2>"
        f"<div class='tokens'>{''.join(buttons)}</div>"
        "<p class='soft'>One step, one token; the outlined one ends the answer.</p></div>"
    )


def _step(step: StepTrace) -> str:
    title = f"<code>{escaped(step.text)}</code> (id {step.id})" if step.id is not None else "nothing could be chosen"
    parts = [
        f"<section class='step card' id='step-{step.index}'><h2>Step {step.index}: {title}</h2><p>{escaped(story(step))}</p>",
        "<div class='two'><div>",
        _inputs(step),
        "</div><div><h3>The likeliest tokens</h3>",
        _candidates(step),
        f"<p class='soft'>{escaped(step.how)}.</p></div></div>",
        _masks(step),
        "<h3>What was called, in this order</h3>",
        _calls(step),
    ]
    if step.ended:
        parts.append(f"<p><strong>The row ends here: {escaped(step.ended)}.</strong></p>")
    return "".join([*parts, "</section>"])


def _inputs(step: StepTrace) -> str:
    parts = []
    for one in step.passes:
        facts = {
            "goes in": f"{what_went_in(one)}, {size(one.input_bytes)}",
            "positions": span(one.positions),
            "injected": "; ".join(one.injected) or "nothing",
            "cache": f"{one.cached} columns before, {one.cached_after} after, {size(one.cache_bytes)}",
            "mask": "; ".join(f"{mask.layers}: {mask.caption}" for mask in one.masks),
            "time": time_of(one.seconds),
        }
        parts.append(f"<h3>What goes in: {escaped(_KINDS.get(one.kind, one.kind))}</h3>{_list(facts)}{_cache(one)}")
    return "".join(parts)


def _cache(one: PassRecord) -> str:
    """A bar: what was cached, and what was new."""
    total = max(one.cached + one.shape[1], 1)
    before = 100 * one.cached / total
    return (
        "<h3>Cached (grey) and new (green)</h3><svg class='cache' viewBox='0 0 100 6' preserveAspectRatio='none' role='img'>"
        f"<rect x='0' y='0' width='{before:.2f}' height='6' fill='#98a2b3'/>"
        f"<rect x='{before:.2f}' y='0' width='{100 - before:.2f}' height='6' fill='#1a7f37'/></svg>"
    )


def _candidates(step: StepTrace) -> str:
    return "<div class='bars'>" + "".join(_candidate(one, step) for one in step.candidates) + "</div>"


def _candidate(one: Candidate, step: StepTrace) -> str:
    kind = "bar chosen" if one.id == step.id else ("bar out" if one.after is None else "bar")
    after = "ruled out" if one.after is None else f"{one.after:.1%} after the rules"
    share = f"{one.probability:.1%}"
    if one.after is None or abs(one.after - one.probability) > 5e-4:
        share += f", {after}"
    return (
        f"<span class='mono'>{escaped(one.text)}</span><span class='{kind}' style='width:{max(one.probability, 0.004):.2%}' "
        f"title='id {one.id}'></span><span class='mono soft'>{escaped(share)}</span>"
    )


def _masks(step: StepTrace) -> str:
    figures = [_mask(mask) for one in step.passes for mask in one.masks]
    if not figures:
        return ""
    note = "One line for each position that goes in, from the top; dark: the positions that it may look at."
    return f"<h3>Who may see whom</h3><p class='soft'>{note}</p><div class='masks'>{''.join(figures)}</div>"


def _mask(mask: MaskPicture) -> str:
    rows, columns = len(mask.cells), len(mask.cells[0])
    cell = max(_SIDE // max(rows, columns), 4)
    height = max(rows * cell, 14)  # a single line must still be seen
    drawn = []
    for y, line in enumerate(mask.cells):
        x = 0
        for digit, run in groupby(line):
            length = len(list(run))
            if digit != "0":
                drawn.append(f"<rect x='{x}' y='{y}' width='{length}' height='1' opacity='{int(digit) / 9:.2f}'/>")
            x += length
    first = f" Keys begin at column {mask.first_key}." if mask.first_key else ""
    return (
        f"<figure><svg class='mask' width='{columns * cell}' height='{height}' viewBox='0 0 {columns} {rows}' "
        f"preserveAspectRatio='none' shape-rendering='crispEdges' fill='#2456d6' role='img'>{''.join(drawn)}</svg>"
        f"<figcaption>{escaped(mask.layers)} layers: {escaped(mask.caption)}.{first}</figcaption></figure>"
    )


def _calls(step: StepTrace) -> str:
    rows = [
        f"<tr><td>{escaped(event.name)}</td><td>{time_of(event.seconds)}</td><td>{escaped(event.detail)}</td>"
        f"<td class='soft'>{escaped(MEANS.get(event.name, ''))}</td></tr>"
        for event in step.events
    ]
    return f"<table class='calls'>{''.join(rows)}</table>"


def _end(trace: Trace) -> str:
    return (
        f"<div class='card' id='end'><h2>Why it stopped: {escaped(trace.stop_reason)}</h2><p>{escaped(trace.stop_means)}.</p>"
        f"<h3>The text</h3><p class='mono' style='white-space:pre-wrap'>{escaped(trace.text)}</p></div>"
    )
