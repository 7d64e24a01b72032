"""Prompts: of training beside those of inference, of the builder beside the tokenizer's chat template, and their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject
from vertebra.errors import ConfigError
from vertebra.prompt.builders import PromptBuilder, TurnPromptBuilder
from vertebra.prompt.chat_template import TemplatePromptBuilder
from vertebra.prompt.conversation import turns_of
from vertebra.prompt.rendering import render
from vertebra.sequence.batch import collate

_TURNS = (
    ("What is on the table?", "A red cup."),
    ("¿Dónde está la taza? 杯子在哪里？", "À gauche — 左边."),
    ("Pick up 12.5 g of salt,\nthen stop.", "Done:\n- salt\n- 12.5 g"),
)
_NO_FORMAT = Skip("no prompt format is known for this model; name one with `--builder`")


def prompt_ids(subject: Subject) -> Measure | Skip:
    """The prompt that a model is asked with is, id for id, the start of what it was trained on.

    It is asked in both ways: rendered, and as the builder's string through the tokenizer.
    """
    backbone = subject.backbone
    builder = builder_of(backbone)
    if builder is None:
        return _NO_FORMAT
    if issubclass(builder, TemplatePromptBuilder):
        builder = builder.of(backbone.tokenizer)
    differing = compared = 0
    faults: list[str] = []
    for conversation in _conversations(backbone, builder):
        trained = render(conversation, builder, backbone.tokenizer, anchor=backbone.anchor)
        rendered = render(conversation[:-1], builder, backbone.tokenizer, anchor=backbone.anchor).ids.tolist()
        ways = {"rendered": rendered, "as a string": _string_ids(backbone, builder, conversation[:-1])}
        for how, asked in ways.items():
            start = trained.ids[: len(asked)].tolist()
            parted = [i for i in range(len(asked)) if start[i : i + 1] != asked[i : i + 1]]
            if parted:
                faults.append(f"{how}, {conversation[-2]['content']!r:.40} parts at position {parted[0]}")
            differing, compared = differing + len(parted), compared + len(asked)
        if not trained.weight[len(rendered) :].any():
            faults.append("no position after the prompt is supervised")
    return Measure(
        number=differing,
        relation="==",
        bound=0,
        message=f"ids of {compared} that differ between training and inference, builder `{builder.name}`",
        faults=tuple(faults[:2]),
    )


def answer_ends(subject: Subject) -> Measure | Skip:
    """What an answer is trained to end with is what ends decoding, in rows with padding too.

    Labels that are masked by the pad id lose it where pad = eos, and a base model's EOS is often no token of its chat
    format: a model trained either way never stops.
    """
    backbone = subject.backbone
    builder = builder_of(backbone)
    if builder is None:
        return _NO_FORMAT
    made = [render(conversation(n), builder, backbone.tokenizer, anchor=backbone.anchor) for n in (1, 2, 3)]
    batch = collate(made, pad_id=backbone.pad_token_id)
    lasts: list[int] = []
    for weights, targets in zip(batch["weights"].numpy(), batch["targets"].numpy(), strict=True):
        trained = np.append(weights > 0, False)
        lasts += targets[trained[:-1] & ~trained[1:]].tolist()
    wrong = [last for last in lasts if last not in backbone.eos_token_ids]
    ends = ", ".join(map(repr, backbone.tokenizer.convert_ids_to_tokens(list(backbone.eos_token_ids))))
    shown = backbone.tokenizer.convert_ids_to_tokens(wrong[:1])
    return Measure(
        number=len(lasts) - len(wrong),
        relation="==",
        bound=1 + 2 + 3,
        message=f"answers trained to end with what ends decoding: {ends}",
        faults=tuple(f"one ends with {token!r}" for token in shown),
    )


def chat_template(subject: Subject) -> Measure | Skip:
    """From the first question on, the builder writes what the tokenizer's own chat template does; a system prompt that
    the template adds by itself is named."""
    backbone, tokenizer = subject.backbone, subject.backbone.tokenizer
    builder = builder_of(backbone)
    if builder is None:
        return _NO_FORMAT
    if not getattr(tokenizer, "chat_template", None):
        return Skip("the tokenizer has no chat template")
    if issubclass(builder, TemplatePromptBuilder):
        return Skip("the builder follows the tokenizer's chat template")
    if not issubclass(builder, TurnPromptBuilder) or builder.template.marks:  # marks that are plain text: OpenVLA's
        return Skip(f"`{builder.name}` is not meant to be the template's format; `--builder template` follows it")
    differing, added = 0, []
    for number in (1, 2, 3):
        asked = conversation(number)[:-1]
        ours, theirs = (
            render(asked, speaker, tokenizer, anchor=backbone.anchor).ids.tolist()
            for speaker in (builder, TemplatePromptBuilder.of(tokenizer))
        )
        front = int(backbone.anchor != "none")
        start = len(theirs) - len(ours) + front
        differing += theirs[max(0, start) :] != ours[front:]
        added = theirs[front:start]
    message = f"prompts of 3 that the tokenizer's template writes otherwise, builder `{builder.name}`"
    if added and not differing:
        message += f"; without a system prompt the template adds {tokenizer.decode(added)!r:.120}, the builder nothing"
    return Measure(number=differing, relation="==", bound=0, message=message)


def _string_ids(backbone: Any, builder: type[PromptBuilder], turns: list[dict[str, str]]) -> list[int]:
    """The ids of an open prompt as older code makes them: one string, tokenized."""
    system = turns[0]["content"] if turns[0]["role"] == "system" else None
    speaker = builder(backbone.llm_family, system)
    for turn in turns[system is not None :]:
        speaker.add_turn(turn["role"], turn["content"])
    tokenizer = backbone.tokenizer
    ids = list(tokenizer(speaker.get_prompt(), add_special_tokens=not speaker.writes_bos(tokenizer)).input_ids)
    lacks_bos = backbone.anchor == "prepend bos" and ids[:1] != [tokenizer.bos_token_id]
    return [tokenizer.bos_token_id, *ids] if lacks_bos else ids


def builder_of(backbone: Any) -> type[PromptBuilder] | None:
    """The model's prompt builder; None where its id names none."""
    try:
        return backbone.prompt_builder_fn
    except ConfigError:
        return None


def conversation(turns: int, system: str | None = None) -> list[dict[str, str]]:
    """So many questions and answers."""
    questions, answers = zip(*_TURNS[:turns], strict=True)
    return turns_of(questions, answers, system=system)


def _conversations(backbone: Any, builder: type[PromptBuilder]) -> Sequence[list[dict[str, str]]]:
    """One turn and three, and a system prompt where the format has a place for one."""
    plain = [conversation(1), conversation(2), conversation(3)]
    with_system = conversation(1, "You are a robot.")
    try:
        render(with_system, builder, backbone.tokenizer, anchor=backbone.anchor)
    except ValueError:  # refused by the format, or by the template of the tokenizer
        return plain
    return [*plain, with_system]
