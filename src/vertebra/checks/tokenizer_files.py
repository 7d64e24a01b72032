"""The tokenizer as it was loaded, beside the files that it came from: `tokenizer.json` and a SentencePiece model.

The file is read by the `tokenizers` library alone, the model by `sentencepiece`: neither knows the classes by which a
tokenizer is loaded, some of which have rules of their own. Texts are asked alone and behind special tokens.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vertebra.backbone.habits import PROBES
from vertebra.backbone.sentencepiece_file import is_sentencepiece
from vertebra.backbone.source import find
from vertebra.backbone.tokenizers import FILE, SENTENCEPIECE, file_backend
from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject

_TEXTS = (
    *PROBES,
    *(
        "a  b   c",
        " \n a",
        "a\n",
        "\na",
        "\tx\r\ny",
        "a ",
        "12 3",
        "[INST] x",
        "<0x41>",
        "▁a",
        "no\u00a0break\u3000wide",
        "e\u0301ﬁ",
    ),
    "Go left.\n\n  1. Then stop.  ",
)
_MARKS = 3
"""Special tokens behind which every text is asked."""
Probe = tuple[str, ...]
"""Text, special token, text, …: joined, what is encoded."""


def files(subject: Subject) -> Measure | Skip:
    """How many texts get other ids than the checkpoint's own files say."""
    backbone, tokenizer = subject.backbone, subject.backbone.tokenizer
    where, token = getattr(backbone, "hf_hub_path", None), getattr(backbone, "_hf_token", None)
    if where is None:
        return Skip("the backbone is somebody's own, and names no files that its tokenizer came from")
    source = find(where, token=token)
    backend, model = file_backend(source, token), source.file(SENTENCEPIECE, token=token)
    if model is not None and not is_sentencepiece(model):
        model = None
    if backend is None and model is None:
        return Skip(f"there is neither {FILE} nor {SENTENCEPIECE}")
    own = {
        probe: list(tokenizer(_text(probe), add_special_tokens=False).input_ids)
        for probe in _probes(tokenizer, {token for growth in backbone.growths for token in growth.tokens})
    }
    asked: dict[str, dict[Probe, list[int]]] = {}
    if backend is not None:
        asked[FILE] = {probe: backend.encode(_text(probe), add_special_tokens=False).ids for probe in own}
    unasked = ""
    if model is not None and importlib.util.find_spec("sentencepiece") is not None:
        asked["sentencepiece"] = dict(_by_sentencepiece(own, model, tokenizer))
    elif model is not None:
        unasked = f"; {SENTENCEPIECE} was not asked, for want of the package sentencepiece"
    differing = {probe for others in asked.values() for probe in others if others[probe] != own[probe]}
    return Measure(
        number=len(differing),
        relation="==",
        bound=0,
        message=f"texts of {len(own)} whose ids are not those of {' and '.join(asked) or 'the files'}{unasked}",
        faults=tuple(fault for who, others in asked.items() for fault in _shown(who, others, own)),
    )


def _text(probe: Probe) -> str:
    return "".join(probe)


def _probes(tokenizer: Any, since: set[str]) -> Iterator[Probe]:
    """Texts alone, and each around special tokens: text, token, text, … None holds a token that was added since."""
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    marks = [token for token in special if token == tokenizer.eos_token]
    marks += [token for token in special if token not in {*tokenizer.all_special_tokens, *since}]
    for text in _TEXTS:
        if any(token in text for token in since):
            continue
        yield (text,)
        for mark in marks[:_MARKS]:
            yield (text, mark, text, mark, "In")


def _by_sentencepiece(probes: Iterable[Probe], model: Path, tokenizer: Any) -> Iterator[tuple[Probe, list[int]]]:
    """The ids of each stretch of text. A special token takes the blanks that its entry declares; one that stands in a
    text is nothing special to SentencePiece, so that such a text is not compared."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    added = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
    for probe in probes:
        if any(token in text for text in probe[::2] for token in added if token.strip()):
            continue
        ids: list[int] = []
        for number, text in enumerate(probe):
            if number % 2:
                ids.append(tokenizer.convert_tokens_to_ids(text))
                continue
            if number and added[probe[number - 1]].rstrip:
                text = text.lstrip()
            if number + 1 < len(probe) and added[probe[number + 1]].lstrip:
                text = text.rstrip()
            ids += processor.encode(text)
        yield probe, ids


def _shown(who: str, others: dict[Probe, list[int]], own: dict[Probe, list[int]]) -> Iterator[str]:
    """The shortest text that differs, and the ids around the first that do."""
    wrong = sorted((probe for probe in others if own[probe] != others[probe]), key=lambda probe: len(_text(probe)))
    for probe in wrong[:1]:
        ours, theirs = own[probe], others[probe]
        shorter = min(len(ours), len(theirs))
        at = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
        yield f"{_text(probe)!r:.60} has {ours[at : at + 4]} from token {at} on, {theirs[at : at + 4]} by {who}"
