"""`vertebra score`: how likely each of several answers is, the question being computed once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vertebra.cli.asking import Attn, Base, Device, Dtype, Family, Image, Name, Page, Raw, System, Token

app = typer.Typer(add_completion=False)


@app.command()
def score(
    model: Name,
    prompt: Annotated[str, typer.Argument(help="The question.")],
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
    """Compare answers by their likelihood. They are told from the likeliest on; `share` sums to 1 among them."""
    from vertebra.backbone.registry import require_name
    from vertebra.cli.asking import Asker, load

    require_name(model)  # before torch is imported for it
    from vertebra.decode.scoring import score as scored

    loaded = load(model, dtype=dtype, device=device, attn=attn, token=token, family=family, base=base)
    asker = Asker(loaded, system=system, raw=raw)
    question = asker.question(prompt, image, page)
    opened = asker.sequence(question)
    candidates = [_ids(asker, question, opened, one) for one in answer]
    found = scored(asker.model, asker.batch(opened, asker.items(image, page)), candidates)
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

        print_json({"model": asker.backbone.name, "prompt_positions": len(opened), "answers": rows})
        return
    _print(rows)


def _ids(asker: Any, question: list[dict[str, Any]], opened: Any, answer: str) -> Any:
    """The ids of an answer as training would have cut them, where the prompt's ids stay what they were; else of its text."""
    if asker.raw or not answer.strip():
        return answer
    whole = asker.sequence([*question, {"role": "assistant", "content": answer}], open_turn=True)
    if whole.ids[: len(opened)].tolist() == opened.ids.tolist() and len(whole) > len(opened):
        return whole.ids[len(opened) :].tolist()
    return answer


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
