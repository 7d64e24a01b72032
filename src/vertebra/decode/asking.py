"""What a person gives as a prompt, made ready to be decoded.

    "Where is the cup?"      a text: one question in the model's prompt format, or continued as it stands (`raw`)
    [{"role": …}, …]         a conversation
    TokenSequence            rendered before
    a list of these          one row each
    Batch, DecodeState       taken as they are
    inputs_embeds=           [B, L, D] embeddings made elsewhere, with their `attention_mask`

What a person types is text and never becomes a control token. The model renders; nothing is decoded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.decode.settings import Question
from vertebra.decode.state.decoding import DecodeState
from vertebra.errors import ConfigError, DataError, GenerationError
from vertebra.model.fresh import given_part
from vertebra.model.inputs import whole_batch
from vertebra.model.model import Model
from vertebra.page.formats.registry import read_pages, seen
from vertebra.page.page import Document, Line, Page
from vertebra.page.reading import read_document
from vertebra.prompt.tokenizer import tokenizer_of
from vertebra.reading import json_of
from vertebra.sequence.batch import Batch
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence

GIVEN = "inputs_embeds"
"""The segment of embeddings that were made elsewhere."""
_SEGMENTS = {"images": "image", "page": "boxes"}


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedPrompt:
    """A prompt that a model can take."""

    model: Model
    prompt: Any
    """A batch, sequences, or a state."""
    asker: Asker | None = None
    """Who rendered it, where something was."""
    turns: Sequence[Any] = ()
    """Its conversations; None for a row that came as a sequence."""
    opened: Sequence[TokenSequence] = ()
    """The same, rendered."""

    def answer(self, row: int, answer: Any) -> Any:
        """An answer after one of its rows: a text as training would cut it, where the row was rendered here."""
        if self.asker is None or self.turns[row] is None or not isinstance(answer, str):
            return answer
        return self.asker.answer(self.turns[row], self.opened[row], answer)


def ask(model: Model, prompt: Any, question: Question | None = None) -> AskedPrompt:
    """Whatever a prompt is given as."""
    question = question or Question()
    if question.inputs_embeds is not None or question.attention_mask is not None:
        return _embeddings(model, prompt, question)
    if prompt is None:
        raise GenerationError("there is no prompt; give a text, a conversation, a TokenSequence, or inputs_embeds=…")
    rows = _rows(prompt, question)
    if rows is None:
        if question.given:
            raise GenerationError(
                f"{', '.join(question.given)}: the prompt is a {type(prompt).__name__}, which holds all of it already"
            )
        _require_prompt(prompt)
        return AskedPrompt(model=model, prompt=prompt)
    if len(rows) > 1 and (question.images or question.page is not None):
        raise GenerationError(
            f"images and page belong to one prompt, and there are {len(rows)}: collate them (`model.collate`)"
        )
    asker = Asker(model, question)
    turns = [None if isinstance(row, TokenSequence) else asker.turns(row) for row in rows]
    opened = [row if turn is None else asker.open(turn) for row, turn in zip(rows, turns, strict=True)]
    return AskedPrompt(model=model, prompt=asker.batch(opened), asker=asker, turns=turns, opened=opened)


def _rows(prompt: Any, question: Question) -> list[Any] | None:
    """The prompts of a call, where one of them is to be rendered or has items; None: taken as it is."""
    if isinstance(prompt, str) or _is_conversation(prompt):
        return [prompt]
    if isinstance(prompt, TokenSequence):
        return [prompt] if question.images or question.page is not None else None
    if isinstance(prompt, Sequence) and any(isinstance(one, str) or _is_conversation(one) for one in prompt):
        return list(prompt)
    return None


def _require_prompt(given: Any) -> None:
    """Refuse what is no prompt in the words of whoever wrote it."""
    several = isinstance(given, Sequence) and not isinstance(given, bytes) and len(given) > 0
    if isinstance(given, TokenSequence | Batch | DecodeState):
        return
    if several and all(isinstance(one, TokenSequence) for one in given):
        return
    what, mend = f"of type {type(given).__name__}", ""
    if isinstance(given, Mapping):
        mend = ". One message becomes a conversation in a list: [{…}]"
    elif isinstance(given, bytes):
        mend = ". Bytes become a text by `.decode()`"
    elif isinstance(given, torch.Tensor | np.ndarray) or (several and all(isinstance(one, int) for one in given)):
        mend = ". Ids become a sequence by `TokenSequence.of(ids)`"
    elif several:
        what = f"a {type(given).__name__} of {', '.join(sorted({type(one).__name__ for one in given}))}"
    elif isinstance(given, Sequence):
        what = f"an empty {type(given).__name__}"
    raise GenerationError(
        f"the prompt is {what}; expected a text, a conversation ([{{role, content}}, …]), a TokenSequence, a list of these, "
        f"a Batch or a DecodeState{mend}"
    )


def _is_conversation(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str) and any(isinstance(one, Mapping) for one in given)


class Asker:
    """Turns what a person types into sequences for one model."""

    def __init__(self, model: Model, question: Question | None = None) -> None:
        self.model, self.question = model, question or Question()
        given = self.question
        if given.raw:
            wrong = [name for name in given.given if name in ("system", "images", "page", "action")]
            if wrong:
                raise ConfigError(
                    f"`raw` continues a text without a prompt format, which {', '.join(wrong)} would need"
                )
        scale = model.record.get("page", {}).get("scale", 1000)
        lines = None if given.page is None else page_lines(given.page, scale)
        self._items = {"images": list(given.images), "page": lines}
        for name, segment in _SEGMENTS.items():
            if self._items[name] and segment not in model.sizes:
                has = model.sizes
                known = f"its parts are {', '.join(sorted(has))}" if has else "it is a language model alone"
                raise ConfigError(f"`{model.identifier}` has no part `{segment}`; {known}")

    def turns(self, prompt: Any) -> list[Any]:
        """A text or a conversation as turns, the images and the page that came beside it in their places."""
        turns: list[Any] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        parts: list[dict[str, Any]] = []
        if not _has(turns, "image"):
            parts += [{"type": "image"} for _ in self._items["images"] or ()]
        if self._items["page"] is not None and not _has(turns, "page"):
            parts.append({"type": "page", "lines": self._items["page"]})
        for at, turn in enumerate(turns):
            if parts and isinstance(turn, Mapping) and turn.get("role") in ("user", "human"):
                content = turn.get("content")
                content = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
                turns[at], parts = {**turn, "content": [*parts, *content]}, []
        system = self.question.system
        return turns if system is None else [{"role": "system", "content": system}, *turns]

    def open(self, turns: Sequence[Any]) -> TokenSequence:
        """The conversation, ready for what comes next."""
        if self.question.raw:
            texts: list[Any] = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in turns]
            wrong = [one for one in texts if not isinstance(one, str)]
            if wrong:
                raise GenerationError(f"`raw` continues a text, and {wrong[0]!r:.60} is none; give it as one text")
            return self._as_it_stands("".join(texts))
        if self.question.action:
            return self.model.render([*turns, _turn([{"type": "action", "ids": []}])], open_turn=True)
        return self.model.render(turns)

    def answer(self, turns: Sequence[Any], opened: TokenSequence, answer: str) -> Any:
        """The ids of an answer as training would cut them, where the prompt's stay what they are; else the text."""
        if self.question.raw or not answer.strip():
            return answer
        whole = self.model.render([*turns, _turn(answer)], open_turn=True)
        if whole.ids[: len(opened)].tolist() == opened.ids.tolist() and len(whole) > len(opened):
            return whole.ids[len(opened) :].tolist()
        return answer

    def batch(self, sequences: Sequence[TokenSequence]) -> Batch:
        """Rows to be decoded, with the images and the page of the first."""
        items: dict[str, Any] = {}
        if self._items["images"]:
            items["image"] = self._items["images"]
        if self._items["page"] is not None:
            items["boxes"] = [line["box"] for line in self._items["page"]]
        features = [self.model.prepare(items)] if items else None
        return self.model.collate(sequences, features, side="left", max_length=None)  # decoding knows its limits itself

    def _as_it_stands(self, text: str) -> TokenSequence:
        encoder = tokenizer_of(self.model.tokenizer)
        (encoded,) = encoder.encode([text], [[(0, len(text))]])
        ids = [*encoder.facts().prefix, *encoded.ids.tolist()]
        if not ids:
            raise GenerationError(
                f"the text is empty, and `{self.model.identifier}` puts nothing before one; say something"
            )
        return TokenSequence.of(ids, role=Role.USER)


def _turn(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _has(turns: Sequence[Any], kind: str) -> bool:
    contents = [turn.get("content") for turn in turns if isinstance(turn, Mapping)]
    parts = [part for content in contents if isinstance(content, list | tuple) for part in content]
    return any(isinstance(part, Mapping) and part.get("type") == kind for part in parts)


def page_lines(given: Any, scale: int = 1000) -> list[dict[str, Any]]:
    """The lines of a page, each with a text and a box of whole numbers 0..`scale`. A list of such lines is taken as it is;
    a page has its own unit, and is read as everywhere: one of ours, JSON of one, or a file that `read_document` reads."""
    path = Path(given) if isinstance(given, str | Path) else None
    what = "`page`" if path is None else f"`{path}`"
    content = given if path is None else _json(path, what)
    lines = content
    if isinstance(content, Mapping) and not {"size", "unit"} & content.keys():
        lines = content.get("lines", content)
    if isinstance(lines, list) and all(isinstance(line, Mapping) and {"text", "box"} <= line.keys() for line in lines):
        return lines
    if isinstance(content, list | Mapping) and seen(content) is None:
        raise DataError(
            f'{what} must hold a list of lines, each {{"text": …, "box": [left, top, right, bottom]}}, or a page'
        )
    if isinstance(content, Page | Document):
        pages = [content] if isinstance(content, Page) else list(content)
    else:
        pages = list(read_pages(content, on_bad="repair") if path is None else read_document(path, on_bad="repair"))
    if len(pages) != 1:
        raise DataError(f"{what} holds {len(pages)} pages; give one (`vertebra doc read FILE --pages 1 --json`)")
    return [_line(line, scale) for line in pages[0].to("relative").lines if line.text.strip()]


def _line(line: Line, scale: int) -> dict[str, Any]:
    box = None if line.box is None else [min(max(round(number * scale), 0), scale) for number in line.box]
    return {"text": " ".join(line.text.split()), "box": box}


def _json(path: Path, what: str) -> Any:
    """What a file holds, where it is JSON; None: another format of pages."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}") from error
    if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return None
    try:
        return json_of(content)
    except ValueError as error:
        raise DataError(f"{what} is no JSON: {error}") from error


def _embeddings(model: Model, prompt: Any, question: Question) -> AskedPrompt:
    """Embeddings as the slots of a segment, and the model with a part that hands them on: from here on like any others."""
    embeds, mask = question.inputs_embeds, question.attention_mask
    if embeds is None or prompt is not None or set(question.given) - {GIVEN, "attention_mask"}:
        raise GenerationError(
            "`inputs_embeds` [B, L, D], with an `attention_mask` [B, L] or without, are a prompt of their own; leave "
            "everything else about the prompt out"
        )
    width = model.backbone.embedding_width
    if embeds.ndim != 3 or embeds.shape[-1] != width or not embeds.is_floating_point():
        raise GenerationError(
            f"inputs_embeds are {embeds.dtype} of shape {tuple(embeds.shape)}; expected numbers of shape [rows, "
            f"positions, {width}], the width of `{model.identifier}`'s embedding matrix"
        )
    mask = torch.ones(embeds.shape[:2], dtype=torch.long) if mask is None else mask.detach().long()
    mask, embeds = mask.to(model.device), embeds.detach().to(model.device)
    real = mask.bool()
    if mask.shape != embeds.shape[:2] or not bool(real.any(1).all()):
        raise GenerationError(
            f"the attention_mask has the shape {tuple(mask.shape)}; expected {tuple(embeds.shape[:2])}, with something "
            "real in every row"
        )
    index = torch.where(real, real.long().cumsum(1) - 1, -1)
    made = whole_batch(
        {
            "input_ids": torch.full_like(mask, model.backbone.pad_token_id),
            "attention_mask": real.long(),
            "slot": torch.stack([torch.where(real, 0, -1), index], -1),
            "segments": (GIVEN,),
            "features": {GIVEN: {"values": embeds[real], "rows": real.nonzero()[:, 0]}},
        }
    )
    parts: dict[str, Any] = {**model.parts, GIVEN: given_part(width)}
    return AskedPrompt(model=Model(model.backbone, parts), prompt=made)
