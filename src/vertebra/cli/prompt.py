"""`vertebra prompt`: one conversation as text, as ids, and with what is trained on, by the code that training uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def prompt(
    model: Annotated[str, typer.Argument(help="An id, a folder, or a hub name; its weights are not loaded.")],
    user: Annotated[list[str] | None, typer.Option(help="The user's text; repeatable, turn by turn.")] = None,
    assistant: Annotated[list[str] | None, typer.Option(help="What the model answers; repeatable.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    fold_system: Annotated[bool, typer.Option("--fold-system", help="Put it before the first question.")] = False,
    builder: Annotated[
        str | None, typer.Option(help="Another prompt builder: pure, chatml, llama2-chat-legacy.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Whose rules a folder follows; none: read off the model.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of HTML there.", **PATH)] = None,
    token: Annotated[str | None, typer.Option(help="Token for private repositories.", envvar="HF_TOKEN")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a conversation as the model sees it: the prompt's text, its ids and roles, and what is trained on."""
    conversation = conversation_of(user or [], assistant or [])

    from vertebra.backbone.registry import load_backbone

    backbone = load_backbone(model, inference_mode=True, builder=builder, family=family, hf_token=token)
    speaker = _speaker(backbone, system, "fold" if fold_system else "native")
    text, sequence = rendered(backbone, speaker, conversation)
    if html is not None:
        from vertebra.cli.output import write_page

        write_page(html, str(sequence.show(backbone.tokenizer, html=True)))
    if json:
        from vertebra.cli.output import print_json

        print_json(_plain(backbone, speaker, text, sequence))
        return
    show(backbone, speaker, text, sequence)
    if html is not None:
        from vertebra.cli.output import console

        console().print(f"written to {html}", soft_wrap=True)


def conversation_of(user: list[str], assistant: list[str]) -> list[dict[str, str]]:
    """Turns in order: the first question, its answer, the next question …; the last one may lack its answer."""
    if not user:
        raise typer.BadParameter("give at least one --user")
    if len(assistant) not in (len(user), len(user) - 1):
        raise typer.BadParameter(
            f"{len(user)} --user and {len(assistant)} --assistant: each question but the last needs its answer"
        )
    from vertebra.prompt.conversation import turns_of

    return turns_of(user, assistant)


def rendered(backbone: Any, speaker: Any, conversation: list[dict[str, str]]) -> tuple[str, Any]:
    """The prompt's text as its builder writes it, and the rendered sequence."""
    from vertebra.prompt.rendering import render

    sequence = render(conversation, speaker, backbone.tokenizer, anchor=backbone.anchor)
    for turn in conversation:
        speaker.add_turn(turn["role"], turn["content"])
    return speaker.get_prompt(), sequence


def _speaker(backbone: Any, system: str | None, choice: str) -> Any:
    cls = backbone.prompt_builder_fn
    if cls.follows_tokenizer:
        cls = cls.of(backbone.tokenizer)
    return cls(backbone.llm_family, system, system=choice)


def show(backbone: Any, speaker: Any, text: str, sequence: Any) -> None:
    """Text, ids, and the table in color, to standard output."""
    from rich.text import Text

    from vertebra.cli.output import console

    out = console()
    out.print(Text.assemble(("text", "bold"), f"  {backbone.identifier}, builder {speaker.name}"))
    out.print(Text(text), soft_wrap=True)
    out.print(Text("ids", "bold"))
    out.print(Text(" ".join(map(str, sequence.ids.tolist()))), soft_wrap=True)
    out.print(Text("tokens: underlined is trained on", "bold"))
    sequence.show(backbone.tokenizer, console=out)


def _plain(backbone: Any, speaker: Any, text: str, sequence: Any) -> dict[str, Any]:
    from vertebra.sequence.roles import Role

    return {
        "model": backbone.identifier,
        "builder": speaker.name,
        "anchor": backbone.anchor,
        "text": text,
        "ids": sequence.ids.tolist(),
        "tokens": backbone.tokenizer.convert_ids_to_tokens(sequence.ids.tolist()),
        "roles": [Role(role).name.lower() for role in sequence.role.tolist()],
        "weights": sequence.weight.tolist(),
    }
