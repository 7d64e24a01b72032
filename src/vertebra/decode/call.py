"""`generate` and `stream`: one call, to its end or token by token, by our engine or by Hugging Face's.

Which of the two it is follows from what is asked for, unless it is named. It knows settings and results, no models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal

from vertebra.decode.asking import ask
from vertebra.decode.engine import DecodeRun
from vertebra.decode.result import Generation, Step, Timings
from vertebra.decode.settings import DecodeConfig, question_of, settings_of
from vertebra.decode.start import eval_mode, start
from vertebra.errors import GenerationError, UnknownNameError
from vertebra.model.model import model_of

EngineName = Literal["auto", "vertebra", "hf"]
ENGINES = ("auto", "vertebra", "hf")


def generate(
    model: Any, prompt: Any = None, settings: DecodeConfig | None = None, *, engine: EngineName = "auto", **options: Any
) -> Generation:
    """Decode a prompt to its end.

    `model`: a `Model` or a backbone. `prompt`: a text, a conversation, a `TokenSequence`, a list of these, a `Batch`,
    or a `DecodeState`, which is not changed. `options`: what stands beside the prompt (`Question`: `system`, `images`,
    `page`, `raw`, `action`, `inputs_embeds`), names of `DecodeConfig`, keys of transformers' `GenerationConfig`, or
    `generation_config=` a whole one. `engine`: `auto` takes Hugging Face's only for what ours does not do.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    question, options = question_of(options)
    config = settings_of(settings, **options)
    asked = ask(model_of(model), prompt, question)
    with eval_mode(asked.model):
        if engine == "hf" or (engine == "auto" and config.hf):
            from vertebra.decode.hf.generate import generate_hf

            return generate_hf(asked.model, asked.prompt, config)
        _refuse_theirs(config)
        run = DecodeRun(start(asked.model, asked.prompt, config), config)
        return collect(run, run.go())


def stream(model: Any, prompt: Any = None, settings: DecodeConfig | None = None, **options: Any) -> Iterator[Step]:
    """The same token by token, with the text of each as it becomes certain; close it whenever you have enough."""
    question, options = question_of(options)
    config = settings_of(settings, **options)
    _refuse_theirs(config)
    asked = ask(model_of(model), prompt, question)
    with eval_mode(asked.model):
        yield from DecodeRun(start(asked.model, asked.prompt, config), config, text=True).go()


def _refuse_theirs(settings: DecodeConfig) -> None:
    if settings.hf:
        names = ", ".join(f"`{name}`" for name in settings.hf)
        raise GenerationError(f'{names}: only Hugging Face\'s engine does that; use generate(…, engine="hf")')


def collect(run: DecodeRun, steps: Iterator[Step]) -> Generation:
    """Run it to its end and keep what was asked for."""
    given = run.settings
    kept: dict[str, list[Any]] = {"logits": [], "scores": [], "hidden_states": [], "attentions": []}
    requested = {
        "logits": given.output_logits,
        "scores": given.output_scores,
        "hidden_states": bool(given.output_hidden_states),
        "attentions": bool(given.output_attentions),
    }
    seconds = []
    for step in steps:
        seconds.append(step.seconds)
        for name, values in kept.items():
            if requested[name]:
                values.append(getattr(step, name))
    total = time.perf_counter() - run.begin
    kept_of: dict[str, Any] = {name: tuple(values) if requested[name] else None for name, values in kept.items()}
    reasons = run.ends.reasons
    return Generation(
        tokens=run.tokens,
        prompt_length=run.prompt_length,
        stop_reason=[reasons[row] for row in range(run.total)],
        passes=tuple(run.state.passes),
        timings=Timings(prefill=run.prefilled, first_token=seconds[0], steps=tuple(seconds[1:]), total=total),
        seeds=run.seeds,
        pad_id=run.pad_id,
        device=run.language.device,
        tokenizer=run.backbone.tokenizer,
        stop_strings=given.stops,
        state=run.end_state() if given.keep_state else None,
        failed=[row for row in range(run.total) if reasons[row] in ("not a number", "nothing possible")],
        **kept_of,
    )
