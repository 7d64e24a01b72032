"""What the tokenizer does around a text: BOS, padding, the rows behind its tokens, its fingerprint.

Everything is found by encoding; a flag of a tokenizer says what it was asked for and not what it does.
"""

from __future__ import annotations

import copy

from vertebra.backbone.habits import check_anchor, fingerprint_probes, probe
from vertebra.checks.prompts import builder_of, conversation
from vertebra.checks.results import Measure
from vertebra.checks.subject import Subject
from vertebra.errors import VocabularyError
from vertebra.prompt.rendering import render


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
        ids = render(conversation(1), builder, tokenizer, anchor=backbone.anchor).ids.tolist()
        leading = next((i for i, token in enumerate(ids) if token != start), len(ids))
        if leading != 1:
            faults.append(f"a prompt begins with {leading} BOS; expected 1")
    return Measure(
        number=int(habits.adds_bos),
        relation="==",
        bound=int(backbone.anchor == "bos"),
        message=f"tokens that the tokenizer puts before a text; anchor policy `{backbone.anchor}`",
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
        message=f"disagreements about the pad token, `{tokenizer.pad_token}` ({own})",
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
        message=f"ids that end an answer and also pad; ends are {', '.join(map(str, ends))}",
    )


def rows(subject: Subject) -> Measure:
    """Every id that the tokenizer can give has a row where it enters and where it is predicted."""
    backbone = subject.backbone
    tokens = max(len(backbone.tokenizer), 1 + max(backbone.tokenizer.get_vocab().values()))
    head = int(backbone.llm.get_output_embeddings().weight.shape[0])
    return Measure(
        number=max(0, tokens - min(backbone.num_rows, head)),
        relation="==",
        bound=0,
        message=f"ids without a row; {tokens} tokens, {backbone.num_rows} rows of the embedding, {head} of the head",
    )


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
        message=f"probe strings of {len(first)} whose ids change",
        faults=tuple(faults),
    )
