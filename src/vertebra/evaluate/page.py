"""An evaluation as one self-contained page: rates with intervals, arms beside them, films that move. No network, no library."""

from __future__ import annotations

from collections.abc import Mapping

from vertebra.evaluate.films import EpisodeFilm
from vertebra.evaluate.results import ArmResults, Paired, Rate, Results
from vertebra.webpage import beside, data_url, escaped, webpage

_MEANS = {
    "swapped": "The instruction of the task that shares the scene, or of the next task. A policy that listens does not do the "
    "task it was not asked for: low is good.",
    "paraphrase": "Other words for the same, never seen in training: a fall shows how much hangs on the very words.",
    "frozen": "The first image all along: the difference is what looking again is worth.",
    "blind": "A policy that never saw an image. What it reaches, the placement of objects gives away: only the difference "
    "shows that seeing matters.",
}


def evaluation_page(results: Results, films: Mapping[str, EpisodeFilm] | None = None) -> str:
    """The page, ready to be written to a file."""
    body = [_head(results), _rates(results), _arms(results), _films(films or {}), _facts(results)]
    title, style = f"{results.policy}: an evaluation", beside("vertebra.evaluate", "page.css")
    return webpage(title, "\n".join(body), style=style, data=("results", results.to_json()))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _bar(rate: Rate) -> str:
    left, width, at = 100 * rate.low, 100 * (rate.high - rate.low), 100 * rate.rate
    return (
        f"<span class='rate' title='{_percent(rate.low)} to {_percent(rate.high)}'>"
        f"<i style='left:{left:.1f}%;width:{width:.1f}%'></i><b style='left:calc({at:.1f}% - 1px)'></b></span>"
    )


def _cell(rate: Rate) -> str:
    interval = f"{100 * rate.low:.0f}–{100 * rate.high:.0f}"
    return f"<td class='number'>{_bar(rate)}{_percent(rate.rate)} <span class='soft'>[{interval}]</span></td>"


def _head(results: Results) -> str:
    settings, mean = results.settings, results.arms[0].mean
    options = ", ".join(f"{name}={value}" for name, value in sorted(settings.options.items())) or "stock placement"
    return (
        f"<h1>{escaped(results.policy)}: {_percent(mean.rate)} of {mean.episodes} episodes</h1>"
        f"<p class='soft'>{settings.episodes} seeds of each task that no demonstration had (seed {settings.seed} of the "
        f"whole); {escaped(options)}. In brackets and as bars: Wilson's intervals of 95 %.</p>"
    )


def _rates(results: Results) -> str:
    head = "".join(f"<th>{escaped(one.arm.name)}</th>" for one in results.arms)
    rows = [
        f"<tr><td>{escaped(task)}<br><span class='soft'>{escaped(results.arms[0].instructions[task])}</span></td>"
        + "".join(_cell(one.tasks[task]) for one in results.arms)
        + "</tr>"
        for task in results.settings.tasks
    ]
    mean = "<tr><td><strong>mean of tasks</strong></td>" + "".join(_cell(one.mean) for one in results.arms) + "</tr>"
    return (
        f"<div class='card' id='rates'><h2>Success</h2><table><thead><tr><th>task</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}{mean}</tbody></table></div>"
    )


def _arms(results: Results) -> str:
    compared = [(one, one.paired) for one in results.arms if one.paired is not None]
    if not compared:
        return ""
    rows = "".join(_pair(one, paired) for one, paired in compared)
    return (
        "<div class='card' id='arms'><h2>The same seeds, one thing changed</h2><table><thead><tr><th>arm</th>"
        "<th>policy − arm, in points</th><th>both</th><th>only the policy</th><th>only the arm</th><th>neither</th>"
        f"<th>McNemar's p</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _pair(one: ArmResults, paired: Paired) -> str:
    points = f"{100 * paired.difference:+.0f} <span class='soft'>[{100 * paired.low:+.0f} to {100 * paired.high:+.0f}]</span>"
    p = f"{paired.p:.3f}" if paired.p >= 0.001 else "below 0.001"
    counts = "".join(f"<td>{n}</td>" for n in (paired.both, paired.only_policy, paired.only_arm, paired.neither))
    about = _MEANS.get(one.arm.name, f"another policy: {one.arm.model}" if one.arm.model else "")
    return (
        f"<tr><td>{escaped(one.arm.name)}<br><span class='soft'>{escaped(about)}</span></td>"
        f"<td class='number'>{points}</td>{counts}<td>{p}</td></tr>"
    )


def _films(films: Mapping[str, EpisodeFilm]) -> str:
    if not films:
        return ""
    figures = []
    for name, film in films.items():
        record = film.record
        verdict = "<span class='good'>done</span>" if record.success else "<span class='bad'>not done</span>"
        figures.append(
            f"<figure><video autoplay loop muted playsinline controls title='{escaped(name)}' "
            f"src='{data_url(film.mp4, 'video/mp4')}'></video><figcaption>"
            f"{escaped(record.task)}, episode {record.number}: {verdict} after {record.steps} steps</figcaption></figure>"
        )
    return f"<div class='card' id='films'><h2>Films</h2><div class='films'>{''.join(figures)}</div></div>"


def _facts(results: Results) -> str:
    rows = []
    for one in results.arms:
        cells = (
            "–" if one.steps is None else f"{one.steps:g}",
            "–" if one.milliseconds is None else f"{one.milliseconds:.1f} ms",
            "–" if one.slowest is None else f"{one.slowest:.1f} ms",
            "–" if one.change is None else f"{one.change:.3f}",
            str(one.outside),
            str(one.not_a_number),
            str(one.refused),
            str(one.broken),
        )
        rows.append(f"<tr><td>{escaped(one.arm.name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = (
        "arm", "steps of a success", "a decision", "95 % of them within", "change between actions", "numbers beyond the data",
        "numbers that were none", "episodes refused", "failures of the simulator",
    )  # fmt: skip
    return (
        "<div class='card' id='facts'><h2>How it acted</h2><table><thead><tr>"
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table><p class='soft'>Change between actions: how far "
        "an action lies from the one before it, in the mean of steps and numbers; small is smooth. Numbers beyond the data: "
        "actions that went "
        "beyond everything that the policy was trained on, passed on or cut (--outside). Episodes in which the simulator "
        "failed count for nothing; refused ones are lost.</p></div>"
    )
