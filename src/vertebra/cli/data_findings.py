"""What `vertebra data check` and `stats` print: findings with their places, lengths, padding."""

from __future__ import annotations

from typing import Any


def print_report(report: Any) -> None:
    from rich.text import Text

    from vertebra.cli.output import STYLES, console, table

    out = console()
    styles = STYLES | {"note": "yellow"}
    facts = f"{report.format}, {report.kind}"
    out.print(Text.assemble((f"{report.source} on {report.model}", "bold"), f"  {facts}"))
    shown = table("what", "", "number", "what it is", right=("number",))
    for finding in report.findings:
        shown.add_row(
            Text(finding.name), Text(finding.status, styles[finding.status]), finding.value, Text(finding.message)
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


def print_padding(padding: Any) -> None:
    from vertebra.cli.output import console, table

    shown = table("batches", "number", "slots a token", "padding", right=("number", "slots a token", "padding"))
    for name, slots in padding.slots.items():
        shown.add_row(name, f"{padding.batches[name]:,}", f"{slots:.3f}", f"{padding.waste(name):.1%}")
    console().print(shown)
