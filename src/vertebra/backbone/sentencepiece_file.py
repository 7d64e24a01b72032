"""Read a SentencePiece model (`tokenizer.model`) and write the fast tokenizer that gives the same ids.

The file is a protobuf message of which a dozen fields matter; they are read straight from its bytes, so that neither
`protobuf` nor `sentencepiece` needs to be installed. It knows files and the `tokenizers` library, not checkpoints.

    piece 259  "▁t"   score -0          BPE: each piece of two known halves is a merge, the best score first
    piece 260  "er"   score -1          Unigram: pieces and scores as they are
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vertebra.errors import CheckpointError
from vertebra.protobuf import fields, signed

# SentencePiece's own numbers, of its file sentencepiece_model.proto.
_UNIGRAM, _BPE = 1, 2
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "▁"


@dataclass(frozen=True)
class Pieces:
    """What a SentencePiece model says."""

    pieces: tuple[tuple[str, float, int], ...]
    """Text, score and kind of each id."""
    is_bpe: bool
    byte_fallback: bool
    unk_id: int
    bos_id: int
    """Below 0: there is none; so too `eos_id` and `pad_id`."""
    eos_id: int
    pad_id: int
    charsmap: bytes
    """A compiled normalization; empty where text is taken as it is, as in LLaMA and Mistral."""
    dummy_prefix: bool
    """A blank is put before every text."""
    trims: bool
    """Outer blanks go, and runs of them become one."""
    escapes: bool
    """A blank is written `▁`."""

    def text(self, number: int) -> str | None:
        return self.pieces[number][0] if 0 <= number < len(self.pieces) else None

    def of_kind(self, *kinds: int) -> list[str]:
        return [text for text, _, kind in self.pieces if kind in kinds]


def is_sentencepiece(file: Path) -> bool:
    """Whether a `tokenizer.model` begins as such a model does; tiktoken's files of that name are lines of base64."""
    with file.open("rb") as stream:
        return stream.read(1) == b"\n"


def read_pieces(file: Path) -> Pieces:
    """The model in a file, checked: what could not be written as a fast tokenizer with equal ids is refused."""
    try:
        return _pieces(file.read_bytes())
    except (IndexError, ValueError, TypeError, KeyError, struct.error) as error:
        raise CheckpointError(
            f"`{file}` is no whole SentencePiece model ({type(error).__name__}: {error}); copy it again"
        ) from error


def fast_tokenizer(model: Pieces, *, add_bos: bool, add_eos: bool = False) -> Tokenizer:
    """The same tokenizer for the `tokenizers` library: id for id what SentencePiece gives.

    Every stretch of text between special tokens is encoded for itself, with its own blank in front, as SentencePiece
    encodes each text that it is given.
    """
    named = model.of_kind(_USER_DEFINED)
    backend = Tokenizer(_bpe(model, bool(named)) if model.is_bpe else _unigram(model))
    steps = _normalizers(model)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    if named and model.is_bpe:
        # not added tokens: text behind one would get a blank of its own in front
        words = "|".join(re.escape(text) for text in sorted(named, key=len, reverse=True))
        typed = rf"|(?<=<0x[0-9A-F]{{2}})>(?=\z|{words})" if model.byte_fallback else ""
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(words + typed), "isolated")
    undone: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(undone + ([decoders.Strip(" ", 1, 0)] if model.dummy_prefix else []))
    special = model.of_kind(_UNKNOWN, _CONTROL)
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    before = f"{model.text(model.bos_id)} " if add_bos and model.bos_id >= 0 else ""
    after = f" {model.text(model.eos_id)}" if add_eos and model.eos_id >= 0 else ""
    around = [(model.text(number), number) for number in (model.bos_id, model.eos_id) if number >= 0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{before}$A{after}", pair=f"{before}$A{after} {before}$B{after}", special_tokens=around
    )
    return backend


def _bpe(model: Pieces, has_named: bool) -> models.BPE:
    vocab = {text: number for number, (text, _, _) in enumerate(model.pieces)}
    return models.BPE(
        vocab=vocab,
        merges=_merges(model),
        unk_token=model.text(model.unk_id),
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
        ignore_merges=has_named,  # a user-defined piece is a word of its own, and no merge makes it
    )


def _merges(model: Pieces) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others. Control and byte pieces never come of text."""
    score = {text: score for text, score, kind in model.pieces if kind == _NORMAL}
    found = []
    for number, (text, value, kind) in enumerate(model.pieces):
        if kind != _NORMAL:
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in score and right in score:
                found.append((-value, number, left, right))
    found.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in found]


def _unigram(model: Pieces) -> models.Unigram:
    """Pieces with their scores. A user-defined one has the bonus by which SentencePiece prefers it to every way around
    it; a byte piece that somebody types must stay text, so that its score is below that of its six characters."""
    worst = min((score for _, score, kind in model.pieces if kind == _NORMAL), default=0.0)
    scores = {_USER_DEFINED: 1.0, _BYTE: 8 * (worst - 10)}
    vocab = [(text, scores.get(kind, score)) for text, score, kind in model.pieces]
    return models.Unigram(vocab, unk_id=model.unk_id, byte_fallback=model.byte_fallback)


def _normalizers(model: Pieces) -> list[Any]:
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.trims:
        trimmed = ((r"\A +", ""), (r"[ ▁]+\z", ""), (" {2,}", " "))
        steps += [normalizers.Replace(Regex(pattern), written) for pattern, written in trimmed]
    space = _SPACE if model.escapes else " "
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(space))
    if model.escapes:
        steps.append(normalizers.Replace(" ", _SPACE))
    return steps


def _pieces(data: bytes) -> Pieces:
    pieces, trainer, normalizer = [], b"", b""
    value: Any
    for number, _, value in fields(data):
        if number == 1:
            piece = _by_number(value)
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            pieces.append((piece[1].decode("utf-8"), score, piece.get(3, _NORMAL)))
        elif number == 2:
            trainer = value
        elif number == 3:
            normalizer = value
    trained, normal = _by_number(trainer), _by_number(normalizer)
    if not pieces:
        raise ValueError("it has no pieces")
    kind = trained.get(3, _UNIGRAM)
    suffixed, unused = bool(trained.get(24, 0)), any(kind == _UNUSED for _, _, kind in pieces)
    if kind not in (_UNIGRAM, _BPE) or suffixed or unused:
        what = "blanks behind words" if suffixed else "unused pieces" if unused else f"the model type {kind}"
        raise ValueError(f"it has {what}, which no fast tokenizer has; save a tokenizer.json beside it")
    return Pieces(
        pieces=tuple(pieces),
        is_bpe=kind == _BPE,
        byte_fallback=bool(trained.get(35, 0)),
        unk_id=signed(trained.get(40, 0)),
        bos_id=signed(trained.get(41, 1)),
        eos_id=signed(trained.get(42, 2)),
        pad_id=signed(trained.get(43, -1)),
        charsmap=normal.get(2, b""),
        dummy_prefix=bool(normal.get(3, 1)),
        trims=bool(normal.get(4, 1)),
        escapes=bool(normal.get(5, 1)),
    )


def _by_number(data: bytes) -> dict[int, Any]:
    """The last value of each field."""
    return {number: value for number, _, value in fields(data)}
