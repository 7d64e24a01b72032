"""What `vertebra data check` and `stats` print: findings with their places, lengths, padding."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def print_findings(out: Any, findings: Collection[Any]) -> None:
    """A table of what was looked at, and below it where each finding is."""
    from rich.text import Text

    from vertebra.cli.output import STYLES, table

    styles = STYLES | {"note": "yellow"}
    shown = table("what", "", "number", "what it is", right=("number",))
    for one in findings:
        shown.add_row(Text(one.name), Text(one.status, styles[one.status]), one.value, Text(one.message))
    out.print(shown)
    for one in findings:
        for place in one.places:
            out.print(Text.assemble((f"{one.name}: ", styles[one.status]), place), soft_wrap=True)


def print_verdict(out: Any, findings: Collection[Any], *, mend: str = "must be mended") -> None:
    """One line: whether a run would stop, or learn what it should not."""
    from rich.text import Text

    from vertebra.cli.output import STYLES

    bad, noted = ([one.name for one in findings if one.status == status] for status in ("fail", "note"))
    good = "nothing would stop or spoil a run" + (f"; worth a look: {', '.join(noted)}" if noted else "")
    out.print(Text(f"{mend}: {', '.join(bad)}" if bad else good, STYLES["fail" if bad else "pass"]))


def print_report(report: Any) -> None:
    from rich.text import Text

    from vertebra.cli.output import console

    out = console()
    facts = f"{report.format}, {report.kind}"
    out.print(Text.assemble((f"{report.source} on {report.model}", "bold"), f"  {facts}"))
    print_findings(out, report.findings)
    most = max(count for _, _, count in report.histogram)
    out.print(Text("lengths", "bold"))
    for low, high, count in report.histogram:
        out.print(Text(f"{low:>6} – {high:<6} {count:>8,}  {'█' * -(-40 * count // most)}"))
    print_verdict(out, report.findings)


def print_padding(padding: Any) -> None:
    from vertebra.cli.output import console, table

    shown = table("batches", "number", "slots a token", "padding", right=("number", "slots a token", "padding"))
    for name, slots in padding.slots.items():
        shown.add_row(name, f"{padding.batches[name]:,}", f"{slots:.3f}", f"{padding.waste(name):.1%}")
    console().print(shown)
