"""What the tokenizer does around a text: BOS, padding, the prompt of training beside that of inference, its fingerprint.

Everything is found by encoding; a flag of a tokenizer says what it was asked for and not what it does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from vertebra.backbone.habits import check_anchor, fingerprint_probes, probe
from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject
from vertebra.errors import ConfigError, VocabularyError
from vertebra.prompt.builders import PromptBuilder
from vertebra.prompt.chat_template import TemplatePromptBuilder
from vertebra.prompt.conversation import turns_of
from vertebra.prompt.rendering import render

_TURNS = (
    ("What is on the table?", "A red cup."),
    ("¿Dónde está la taza? 杯子在哪里？", "À gauche — 左边."),
    ("Pick up 12.5 g of salt,\nthen stop.", "Done:\n- salt\n- 12.5 g"),
)


def bos(subject: Subject) -> Measure:
    """What stands before a text is what the anchor policy says, and stands before a prompt exactly once."""
    backbone, tokenizer = subject.backbone, subject.backbone.tokenizer
    habits = probe(tokenizer)
    faults = []
    try:
        check_anchor(backbone.anchor, habits, tokenizer, backbone.identifier)
    except VocabularyError as error:
        faults.append(str(error))
    builder = builder_of(backbone)
    if backbone.anchor != "none" and builder is not None and not faults:
        start = habits.bos_id if habits.bos_id is not None else tokenizer.bos_token_id
        ids = render(_conversation(1), builder, tokenizer, anchor=backbone.anchor).ids.tolist()
        leading = next((i for i, token in enumerate(ids) if token != start), len(ids))
        if leading != 1:
            faults.append(f"a prompt begins with {leading} BOS; expected 1")
    return Measure(
        number=int(habits.adds_bos),
        relation="==",
        bound=int(backbone.anchor == "bos"),
        said=f"tokens that the tokenizer puts before a text; anchor policy `{backbone.anchor}`",
        faults=tuple(faults),
    )


def pad(subject: Subject) -> Measure:
    """The pad token exists, is a row of the matrix, and tokenizer, config and decoding settings name the same."""
    backbone, tokenizer = subject.backbone, subject.backbone.tokenizer
    own = tokenizer.pad_token_id
    padding_row = getattr(backbone.llm.get_input_embeddings(), "padding_idx", None)
    seen = {
        "the model's config": backbone.llm.config.pad_token_id,
        "the generation settings": getattr(backbone.llm.generation_config, "pad_token_id", own),
        "the vocabulary": tokenizer.get_vocab().get(tokenizer.pad_token),
        "the embedding's padding_idx": own if padding_row is None else padding_row,
    }
    faults = [f"{where} has {value}" for where, value in seen.items() if value != own]
    if own is None or own >= backbone.num_rows:
        faults.append(f"{own} is no row of the embedding, which has {backbone.num_rows}")
    return Measure(
        number=len(faults),
        relation="==",
        bound=0,
        said=f"disagreements about the pad token, `{tokenizer.pad_token}` ({own})",
        faults=tuple(faults),
    )


def pad_is_no_end(subject: Subject) -> Measure:
    """A pad that is also an end would be masked away as padding, and the model never learn to stop."""
    backbone = subject.backbone
    ends = backbone.eos_token_ids
    return Measure(
        number=sum(end == backbone.tokenizer.pad_token_id for end in ends),
        relation="==",
        bound=0,
        said=f"ids that end an answer and also pad; ends are {', '.join(map(str, ends))}",
    )


def prompt_ids(subject: Subject) -> Measure | Skip:
    """The prompt that a model is asked with is, id for id, the start of what it was trained on.

    It is asked in both ways: rendered, and as the builder's string through the tokenizer.
    """
    backbone = subject.backbone
    builder = builder_of(backbone)
    if builder is None:
        return Skip("no prompt format is known for this model; name one with `--builder`")
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
        said=f"ids of {compared} that differ between training and inference, builder `{builder.name}`",
        faults=tuple(faults[:2]),
    )


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


def fingerprint(subject: Subject) -> Measure:
    """The same ids when asked again, from a copy, and after writing and reading the tokenizer."""
    tokenizer = subject.backbone.tokenizer
    first = fingerprint_probes(tokenizer)
    tokenizer.save_pretrained(subject.scratch)
    others = {
        "asked again": tokenizer,
        "a copy": copy.deepcopy(tokenizer),
        "written and read": type(tokenizer).from_pretrained(subject.scratch),
    }
    faults = []
    differing: set[str] = set()
    for how, other in others.items():
        second = fingerprint_probes(other)
        wrong = [text for text in {**first, **second} if first.get(text) != second.get(text)]
        differing |= set(wrong)
        if wrong:
            then, now = ((probes.get(wrong[0]) or [])[:6] for probes in (first, second))
            faults.append(f"{how}: {wrong[0]!r:.40} began with {then}, now with {now}")
    return Measure(
        number=len(differing),
        relation="==",
        bound=0,
        said=f"probe strings of {len(first)} whose ids change",
        faults=tuple(faults),
    )


def builder_of(backbone: Any) -> type[PromptBuilder] | None:
    """The model's prompt builder; None where its id names none."""
    try:
        return backbone.prompt_builder_fn
    except ConfigError:
        return None


def _conversation(turns: int, system: str | None = None) -> list[dict[str, str]]:
    questions, answers = zip(*_TURNS[:turns], strict=True)
    return turns_of(questions, answers, system=system)


def _conversations(backbone: Any, builder: type[PromptBuilder]) -> Sequence[list[dict[str, str]]]:
    """One turn and three, and a system prompt where the format has a place for one."""
    plain = [_conversation(1), _conversation(2), _conversation(3)]
    with_system = _conversation(1, "You are a robot.")
    try:
        render(with_system, builder, backbone.tokenizer, anchor=backbone.anchor)
    except ValueError:  # refused by the format, or by the template of the tokenizer
        return plain
    return [*plain, with_system]
