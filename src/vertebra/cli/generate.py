"""`vertebra generate`: ask a model, and read its answer as it comes; one question, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.asking import Action, Attn, Base, Device, Dtype, Family, Image, Name, Page, Raw, System, Token
from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    model: Name,
    prompt: Annotated[str | None, typer.Argument(help="The question; `-` reads it from standard input.")] = None,
    image: Image = None,
    page: Page = None,
    system: System = None,
    raw: Raw = False,
    action: Action = False,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many.")] = 256,
    temperature: Annotated[
        float | None, typer.Option(help="Draw instead of taking the best; below 1 is calmer.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k best.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the best that hold this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Draw from what is this likely beside the best.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1, tokens that occurred become rarer.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same answer again.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop at this text; repeatable.")] = None,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Search with so many beams (Hugging Face's engine).")
    ] = None,
    answers: Annotated[int | None, typer.Option(min=1, help="So many answers; the prompt is computed once.")] = None,
    regex: Annotated[str | None, typer.Option(help="The answer matches this regular expression.")] = None,
    choice: Annotated[list[str] | None, typer.Option(help="The answer is one of these; repeatable.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="The answer is JSON, valid for the schema in this file.", **PATH)
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the decode step; slow to start.")] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="A conversation, line by line.")] = False,
    base: Base = None,
    dtype: Dtype = None,
    device: Device = None,
    attn: Attn = None,
    family: Family = None,
    token: Token = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a model. The answer is printed as it comes; times and counts go to standard error."""
    from vertebra.backbone.registry import require_name
    from vertebra.cli.asking import given, load, question, read_prompt

    require_name(model)  # before torch is imported for it

    if interactive and (json or num_beams or answers or action or compiled):
        raise typer.BadParameter(
            "--interactive is a conversation in a terminal: leave --json, --num-beams, --answers, --action, --compile out"
        )
    if prompt is None and not interactive:
        raise typer.BadParameter("give a prompt, or --interactive")
    prompt = None if prompt is None else read_prompt(prompt)
    beside = question(system=system, raw=raw, action=action, image=image, page=page)
    options = given(
        max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
        repetition_penalty=repetition_penalty, stop_strings=stop, num_beams=num_beams, num_return_sequences=answers,
        constraint=_constraint(regex, choice, json_schema), compile=compiled or None,
    )  # fmt: skip
    loaded = load(model, dtype=dtype, device=device, attn=attn, token=token, family=family, base=base)
    if interactive:
        _converse(loaded, prompt, beside, options)
    elif json or num_beams or answers:
        _whole(loaded, prompt, {**beside, **options}, json=json)
    else:
        _print_answer(loaded, prompt, {**beside, **options})


def _constraint(regex: str | None, choice: list[str] | None, schema: Path | None) -> Any:
    chosen = [
        name
        for name, value in (("--regex", regex), ("--choice", choice), ("--json-schema", schema))
        if value not in (None, [])
    ]
    if not chosen:
        return None
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(chosen)} each say what the answer is; give one of them")
    from vertebra.decode.choose import grammar
    from vertebra.errors import DataError

    if regex == "":
        raise typer.BadParameter("--regex is empty, and nothing but an empty answer matches it")
    if regex is not None:
        return grammar.regex(regex, space=True)
    if choice:
        return grammar.one_of(choice, space=True)
    assert schema is not None
    try:
        return grammar.json_schema(schema.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"`{schema}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"`{schema}` is no text in UTF-8, and so no JSON schema: {error.reason}") from error


def _whole(model: Any, prompt: Any, options: dict[str, Any], *, json: bool) -> None:
    """All at once: JSON, or one answer after the other."""
    from vertebra.decode.call import generate as decode

    result = decode(model, prompt, **options)
    if not json:
        print(result)
        return
    from vertebra.cli.output import print_json

    print_json({
        "model": model.backbone.name,
        "text": result.text if len(result) > 1 else result.text[0],
        "tokens": result.tokens if len(result) > 1 else result.tokens[0],
        "stop_reason": result.stop_reason if len(result) > 1 else result.stop_reason[0],
        "prompt_positions": result.prompt_length,
        "seeds": result.seeds,
        "engine": result.engine,
        "passes": result.shape_of_passes,
        "seconds": {
            "prefill": result.timings.prefill, "first_token": result.timings.first_token, "total": result.timings.total,
        },
        "tokens_per_second": result.timings.tokens_per_second,
    })  # fmt: skip


def _print_answer(model: Any, prompt: Any, options: dict[str, Any]) -> str:
    """Print an answer as it comes; the whole of it."""
    from vertebra.decode.call import stream
    from vertebra.decode.result import REASONS

    texts, ids, times, reason = [], [], [], ""
    for step in stream(model, prompt, **options):
        sys.stdout.write(step.text[0])
        sys.stdout.flush()
        texts.append(step.text[0])
        ids += [number for number, live in zip(step.tokens, step.live, strict=True) if live]
        times.append(step.seconds)
        reason = step.ended.get(0, reason)
    print()
    rate = (len(times) - 1) / sum(times[1:]) if len(times) > 1 else 0.0
    speed = f", {rate:.1f} a second after the first" if rate else ""
    # special tokens (an action's, say) are no text: an answer of them alone would look like none
    names = model.tokenizer.convert_ids_to_tokens(ids) if not "".join(texts).strip() else []
    unseen = f" without text: {' '.join(names[:16])}{' …' if len(names) > 16 else ''}" if names else ""
    sys.stderr.write(f"[{len(times)} tokens{unseen}{speed}; stopped: {REASONS[reason]}]\n")
    if reason in ("not a number", "nothing possible"):
        raise typer.Exit(1)
    return "".join(texts)


def _converse(model: Any, first: str | None, beside: dict[str, Any], options: dict[str, Any]) -> None:
    """Question and answer in turns; what the conversation shares with its last turn is not computed again."""
    from vertebra.decode.asking import Asker
    from vertebra.decode.settings import about_prompt

    asker = Asker(model, about_prompt(beside))
    turns: list[dict[str, Any]] = []
    state: Any = None
    ids: list[int] = []
    sys.stderr.write("A conversation: an empty line or the end of input leaves it, /new begins another one.\n")
    while True:
        question = first if first is not None else _line()
        first = None
        if not question:
            return
        if question == "/new":
            turns, state = [], None
            continue
        turns.append({"role": "user", "content": question})
        sequence = asker.open(asker.turns(turns))
        state = _continue(asker, state, ids, sequence)
        ids = sequence.ids.tolist()
        turns.append({"role": "assistant", "content": _print_answer(asker.model, state, options)})


def _line() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def _continue(asker: Any, state: Any, known: list[int], sequence: Any) -> Any:
    """The state after `sequence`: what it shares with the state's own ids is kept."""
    from vertebra.decode.state.prefill import prefill

    if state is None:
        return prefill(asker.model, asker.batch([sequence]))
    shared = 0
    for old, new in zip(known, sequence.ids.tolist(), strict=False):
        if old != new:
            break
        shared += 1
    rest = sequence.cut(shared)
    if not shared or not len(rest) or bool((rest.slot[:, 0] >= 0).any()):
        return prefill(asker.model, asker.batch([sequence]))
    state.trim(shared)
    state.extend(rest)
    return state
