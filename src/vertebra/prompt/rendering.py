"""`render`: a conversation becomes a `TokenSequence` in one pass: ids, supervision, roles and slots, made together.

The prompt is written as one string and encoded as a whole; who spoke and what is trained on are read from the
characters behind each id. Only action ids and slots enter as ids. It knows no models.

    text      In: what now?\\nOut: |</s>          | a splice: seven action ids, or 196 slots
    ids   <s> In : ▁what ▁now ? \\n Out : ▁ 31999 … 31744 </s>
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from vertebra import log
from vertebra.errors import ConfigError, PromptError, did_you_mean
from vertebra.prompt.assembly import Traced, Written, assemble
from vertebra.prompt.builders import PromptBuilder
from vertebra.prompt.conversation import MessageReader, part_types
from vertebra.prompt.pieces import End, PromptPiece, text_of
from vertebra.prompt.registry import prompt_builder
from vertebra.prompt.tokenizer import Spans, TokenizerFacts, tokenizer_of
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence

Conversation = Sequence[Mapping[str, Any]]
Anchor = Literal["bos", "none", "prepend bos"]


class How(TypedDict, total=False):
    """What `render`, `render_many` and `render_traced` are given by name."""

    open_turn: bool | None
    anchor: Anchor | None
    anchored: Collection[str]
    roles: Collection[str]
    trusted: Collection[str]
    both_ways: Collection[str]
    slot_id: int | None


_BATCH = 256
_ANCHORS = ("bos", "none", "prepend bos")


def render(
    conversation: Conversation,
    builder: PromptBuilder | type[PromptBuilder] | str,
    tokenizer: Any,
    sizes: Mapping[str, int] | None = None,
    **how: Unpack[How],
) -> TokenSequence:
    """One conversation as a token sequence.

    `sizes`: slots that a part of each segment takes. `open_turn`: end ready for an answer (after a question), or
    inside the last answer; None opens after a question. `anchor`: a family's rule for BOS (`bos`: the tokenizer adds
    it; `prepend bos`; `none`), None: that of format and tokenizer. `anchored`: part types or segments whose slots stand
    right after BOS. `roles`: who is trained on. `trusted`: roles, never the user, whose text may hold added tokens.
    `both_ways`: part types or segments whose slots see each other, each part a block. `slot_id`: the reserved id.
    """
    return render_many([conversation], builder, tokenizer, sizes, **how)[0]


def render_many(
    conversations: Iterable[Conversation],
    builder: PromptBuilder | type[PromptBuilder] | str,
    tokenizer: Any,
    sizes: Mapping[str, int] | None = None,
    **how: Unpack[How],
) -> list[TokenSequence]:
    """Many conversations, encoded together by the tokenizer's own threads; the arguments of `render`."""
    return [one.sequence for one in render_traced(conversations, builder, tokenizer, sizes, **how)]


def render_traced(
    conversations: Iterable[Conversation],
    builder: PromptBuilder | type[PromptBuilder] | str,
    tokenizer: Any,
    sizes: Mapping[str, int] | None = None,
    *,
    open_turn: bool | None = None,
    anchor: Anchor | None = None,
    anchored: Collection[str] = (),
    roles: Collection[str] = ("assistant",),
    trusted: Collection[str] = (),
    both_ways: Collection[str] = ("action",),
    slot_id: int | None = None,
) -> list[Traced]:
    """The same with the way back: which positions come from which lines and words of pages that number their lines."""
    if anchor not in (None, *_ANCHORS):
        raise ConfigError(f"unknown anchor {anchor!r}.{did_you_mean(str(anchor), _ANCHORS)} Known: {_ANCHORS}.")
    for name, given in (("anchored", anchored), ("both_ways", both_ways)):
        if isinstance(given, str):
            raise ConfigError(f"`{name}` is a collection of part types or segments, not a string; write ({given!r},)")
    if open_turn not in (None, True, False):
        raise ConfigError(
            f"open_turn={open_turn!r}: True ends ready for an answer, False does not, None: after a question"
        )
    speaker = _speaker(builder)
    reader = MessageReader(
        sizes or {}, roles=roles, trusted=trusted, anchored=anchored, empty_questions=speaker.empty_questions
    )
    encoder = tokenizer_of(tokenizer)
    facts = encoder.facts()
    reserved = facts.reserved_id if slot_id is None else slot_id
    waiting = iter(conversations)
    sequences: list[Traced] = []
    # In batches: encodings with their offsets are many times as large as what is kept of them.
    while batch := list(islice(waiting, _BATCH)):
        prompts = [_write(reader, speaker, tokenizer, conversation, open_turn) for conversation in batch]
        _warn_without_stop(speaker, facts, prompts)
        encodings = encoder.encode([prompt.text for prompt in prompts], [_plain_spans(p.pieces) for p in prompts])
        for prompt, encoding in zip(prompts, encodings, strict=True):
            if encoding.typed:
                _warn_of_text(prompt.pieces, facts)
            prefix, front = _front(encoding.ids, facts, anchor, speaker, tokenizer)
            sequences.append(assemble(prompt, encoding, prefix, front, reserved, frozenset(both_ways)))
    seen = {name for one in sequences for name in one.sequence.segments}
    _warn_of_unknown({"anchored": anchored, "both_ways": both_ways}, {*reader.sizes, *seen})
    return sequences


def _warn_of_unknown(settings: Mapping[str, Collection[str]], segments: Collection[str]) -> None:
    """A name that is no part type and no segment so far has no effect: perhaps it is a typo."""
    known = [*part_types(), *{name.split(":")[0] for name in segments}, *segments]
    for setting, names in settings.items():
        for name in names:
            if name not in known:
                log.warn_once(f"{setting}={name!r} is no part type and no segment here.{did_you_mean(name, known)}")


def _speaker(builder: PromptBuilder | type[PromptBuilder] | str) -> PromptBuilder:
    """A fresh builder: only its format and its system prompt count here."""
    if isinstance(builder, str):
        builder = prompt_builder(builder)
    if isinstance(builder, type) and issubclass(builder, PromptBuilder):
        return builder(builder.name)
    if not isinstance(builder, PromptBuilder):
        raise PromptError(f"a prompt builder is an instance, a class or a name, not {builder!r:.80}")
    if builder.turn_count:
        raise PromptError(
            f"this builder already holds {builder.turn_count} turns, which `render` would not see; give a fresh one, "
            "and the turns in the conversation"
        )
    return builder


def _write(
    reader: MessageReader, builder: PromptBuilder, tokenizer: Any, conversation: Conversation, open_turn: bool | None
) -> Written:
    """The conversation as one string and its pieces."""
    messages = builder.with_system(reader.read(conversation))
    if messages[0].role == "system" and "system" in reader.trusted:
        messages[0] = replace(messages[0], plain=False)
    last = messages[-1]
    if last.role == "system":
        raise PromptError("the conversation holds a system message alone; it needs at least a user's message")
    end: End = "closed"
    cut = False
    if last.role == "assistant" and open_turn:
        # An answer that ends with an action is rendered closed and cut behind it: what precedes the action is then,
        # id for id, what training saw.
        cut = any(not last.content.text[at:].strip() and not splice.anchored for at, splice in last.content.splices)
        end = "closed" if cut else "answer"
    elif last.role != "assistant" and open_turn is not False:
        end = "open"
    pieces = [piece for piece in builder.layout(messages, end, tokenizer) if piece.text or piece.splices]
    return Written(text_of(pieces), pieces, cut)


def _plain_spans(pieces: Sequence[PromptPiece]) -> Spans:
    """Where no added token may be recognised; neighbors become one span."""
    spans: list[tuple[int, int]] = []
    at = 0
    for piece in pieces:
        end = at + len(piece.text)
        if piece.plain and piece.text:
            if spans and spans[-1][1] == at:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((at, end))
        at = end
    return spans


def _front(
    ids: np.ndarray, facts: TokenizerFacts, anchor: Anchor | None, builder: PromptBuilder, tokenizer: Any
) -> tuple[tuple[int, ...], int]:
    """(ids to put in front of the text, how many of the sequence's first ids are BOS)."""
    own = facts.prefix or (() if facts.bos_id is None else (facts.bos_id,))
    if not own and builder.writes_bos(tokenizer):
        own = tuple(ids[:1].tolist())  # nobody gave the tokenizer's BOS a name; the format writes it
    by_template = builder.follows_tokenizer
    if anchor == "none":
        if facts.prefix and not by_template:
            raise PromptError(
                f"the anchor policy is `none`, but this tokenizer puts the ids {list(facts.prefix)} before every text; "
                "use the policy `bos`, or a tokenizer that adds none"
            )
        return (), 0
    if own and tuple(ids[: len(own)].tolist()) == own:
        # In a template, a token that also opens turns (SmolLM's) is no BOS, unless the template means it as one.
        alone = by_template and int((ids == own[0]).sum()) == 1
        if alone or builder.writes_bos(tokenizer):
            return (), len(own)
    if anchor is None:
        if by_template:
            return (), 0
        if not facts.prefix and (builder.bos is None or builder.bos != facts.bos):
            return (), 0
    elif anchor == "bos" and not facts.prefix:
        raise PromptError("the anchor policy is `bos`, but this tokenizer adds none; use the policy `prepend bos`")
    elif not own:
        raise PromptError(
            f"the anchor policy is `{anchor}`, but this tokenizer has no BOS token; use the policy `none`"
        )
    return own, len(own)


def _warn_of_text(pieces: Sequence[PromptPiece], facts: TokenizerFacts) -> None:
    """A user's typed tokens are expected to stay text; an answer's may have been meant."""
    for piece in pieces:
        if not piece.plain or piece.role not in (Role.ASSISTANT, Role.SYSTEM, Role.TOOL):
            continue
        for token in facts.added:
            if token.strip() and token in piece.text:
                who = piece.role.name.lower()
                log.warn_once(
                    f"the text of `{who}` holds `{token}`, which stays text. If the token is meant: trusted=('{who}',)."
                )


def _warn_without_stop(builder: PromptBuilder, facts: TokenizerFacts, prompts: Sequence[Written]) -> None:
    stop = builder.stop
    if stop is None or stop in facts.added or not any(piece.weight for p in prompts for piece in p.pieces):
        return
    log.warn_once(
        f"the `{builder.name}` format ends answers with `{stop}`, which is no token of this tokenizer: a model trained "
        f"so will not stop. Use prompt_builder('{builder.name}', eos={facts.eos!r})."
    )
