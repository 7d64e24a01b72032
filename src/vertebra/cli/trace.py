"""`vertebra trace`: how an answer is made, shown step by step as it really ran; in the terminal, or as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.cli.asking import Action, Attn, Base, Device, Dtype, Family, Image, Name, Page, Prompt, Raw, System, Token
from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def trace(
    model: Name,
    prompt: Prompt,
    image: Image = None,
    page: Page = None,
    system: System = None,
    raw: Raw = False,
    action: Action = False,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many.")] = 8,
    temperature: Annotated[float | None, typer.Option(help="Draw instead of taking the best.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k best.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the best that hold this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Draw from what is this likely beside the best.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1, tokens that occurred become rarer.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same answer again.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute the whole row anew for every token.")] = False,
    chunk: Annotated[int | None, typer.Option(help="Compute the prompt in pieces of so many positions.")] = None,
    details: Annotated[int, typer.Option(help="Print everything that was called, for the first so many steps.")] = 2,
    html: Annotated[
        Path | None, typer.Option(help="Write a page of HTML there: no network, no other file.", **PATH)
    ] = None,
    dtype: Dtype = None,
    device: Device = None,
    attn: Attn = None,
    base: Base = None,
    family: Family = None,
    token: Token = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Watch a model answer: what goes in, who sees whom, what is cached, which tokens were likely, which was chosen."""
    from vertebra.backbone.registry import require_name
    from vertebra.cli.asking import given, load, question, read_prompt

    require_name(model)  # before torch is imported for it
    question_text = read_prompt(prompt)
    from vertebra.decode.tracing.trace import trace as traced

    loaded = load(model, dtype=dtype, device=device, attn=attn, token=token, family=family, base=base)
    beside = question(system=system, raw=raw, action=action, image=image, page=page)
    options = given(
        max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
        repetition_penalty=repetition_penalty, chunk=chunk,
    )  # fmt: skip
    if no_cache:
        options["use_cache"] = False
    made = traced(loaded, question_text, **beside, **options)
    if html is not None:
        from vertebra.cli.output import write_page
        from vertebra.decode.tracing.html import trace_page

        write_page(html, trace_page(made))
    if json:
        from vertebra.cli.output import print_json

        print_json(made.to_json())
        return
    from vertebra.cli.output import console
    from vertebra.decode.tracing.terminal import print_trace

    out = console()
    print_trace(made, out, details=details)
    if html is not None:
        out.print(f"written to {html}", soft_wrap=True)
