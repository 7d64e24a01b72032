"""`vertebra score`: how likely each of several answers is, the question being computed once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vertebra.cli.asking import Attn, Base, Device, Dtype, Family, Image, Name, Page, Prompt, Raw, System, Token

app = typer.Typer(add_completion=False)


@app.command()
def score(
    model: Name,
    prompt: Prompt,
    answer: Annotated[list[str], typer.Argument(help="Answers to compare.")],
    image: Image = None,
    page: Page = None,
    system: System = None,
    raw: Raw = False,
    base: Base = None,
    dtype: Dtype = None,
    device: Device = None,
    attn: Attn = None,
    family: Family = None,
    token: Token = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare answers by their likelihood. They are listed from the likeliest on; `share` sums to 1 among them."""
    from vertebra.backbone.registry import require_name
    from vertebra.cli.asking import load, question, read_prompt

    require_name(model)  # before torch is imported for it
    question_text = read_prompt(prompt)
    from vertebra.decode.scoring import score as scored

    loaded = load(model, dtype=dtype, device=device, attn=attn, token=token, family=family, base=base)
    found = scored(loaded, question_text, answer, **question(system=system, raw=raw, image=image, page=page))
    rows: list[dict[str, Any]] = [
        {
            "answer": text, "log_prob": found.total[0][at], "per_token": found.per_token[0][at],
            "share": found.probability[0][at], "tokens": found.tokens[0][at],
        }
        for at, text in enumerate(answer)
    ]  # fmt: skip
    rows.sort(key=lambda row: -row["log_prob"])
    if json:
        from vertebra.cli.output import print_json

        print_json({"model": loaded.backbone.name, "prompt_positions": found.passes[0].columns, "answers": rows})
        return
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from vertebra.cli.output import console, table

    made = table("answer", "share", "log P", "per token", "tokens", right=("share", "log P", "per token", "tokens"))
    for row in rows:
        made.add_row(
            Text(row["answer"]), f"{row['share']:.1%}", f"{row['log_prob']:.3f}", f"{row['per_token']:.3f}",
            str(len(row["tokens"])),
        )  # fmt: skip
    console().print(made)
