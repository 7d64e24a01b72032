"""Train a family's tokenizer on the bundled text with the `tokenizers` library, and wrap it in its transformers class.

The vocabulary is put together by hand from the learnt merges, so that special tokens stand where the real ones do and
the same text always gives the same ids. It does not know models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Any

from vertebra.backbone.tiny.spec import TinyTokenizer

_RARE = 2
"""Characters seen fewer times get no piece of their own: byte fallback (or `[UNK]`) must have something to do."""

_SENTENCEPIECE = ("metaspace", "prepend", "gemma")

# What merges may not cross, while training. SentencePiece: a word with its leading `▁`, single digits, punctuation.
_PIECES = r"▁*\p{L}+|\p{N}|▁*[^\p{L}\p{N}▁]+|▁+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN = _LLAMA3.replace("{1,3}", "")


def tiny_text() -> str:
    """The bundled text: English prose, robot instructions, receipts and forms, code, and a dozen scripts."""
    return resources.files("vertebra.backbone.tiny").joinpath("text.txt").read_text(encoding="utf-8")


def chat_template(name: str) -> str:
    """A bundled chat template, without its final newline."""
    file = resources.files("vertebra.backbone.tiny").joinpath("templates", f"{name}.jinja")
    return file.read_text(encoding="utf-8").removesuffix("\n")


def make_tokenizer(spec: TinyTokenizer, *, max_length: int, template: str | None = None) -> Any:
    """The trained tokenizer in its transformers class, ready for `save_pretrained`."""
    import transformers

    settings = {**spec.settings, "model_max_length": max_length, "added_tokens_decoder": _added_tokens(spec)}
    if spec.kind == "wordpiece":
        tokenizer = transformers.BertTokenizer(vocab=_wordpiece(spec), **settings)
    elif spec.cls == "TokenizersBackend":
        backend = _llama3_backend(spec) if spec.kind == "llama3" else _prepend_backend(spec)
        tokenizer = transformers.TokenizersBackend(tokenizer_object=backend, **settings)
    else:
        vocab, merges = _vocabulary(spec)
        tokenizer = getattr(transformers, spec.cls)(vocab=vocab, merges=merges, **settings)
    if template is not None:
        tokenizer.chat_template = chat_template(template)
    return tokenizer


def _added_tokens(spec: TinyTokenizer) -> dict[int, Any]:
    """Every added token at its id. Given to the constructor, which else numbers the named ones before the others."""
    from tokenizers import AddedToken

    swallowing = spec.last[1:] if spec.swallow else ()
    added = dict(enumerate(spec.first))
    added |= dict(enumerate((*spec.last, *spec.plain), start=spec.size - len(spec.last) - len(spec.plain)))
    return {
        number: AddedToken(token, normalized=False, special=token not in spec.plain, rstrip=token in swallowing)
        for number, token in added.items()
    }


def _llama3_backend(spec: TinyTokenizer) -> Any:
    """LLaMA-3's repository names no class of its own: its `tokenizer.json` alone says how text is cut."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    vocab, merges = _vocabulary(spec)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _prepend_backend(spec: TinyTokenizer) -> Any:
    """SentencePiece as older hub files write it: no pre-tokenizer, so that `word_ids()` are all 0."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocab, merges = _vocabulary(spec)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def _vocabulary(spec: TinyTokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(token -> id, merges) without what is added later: `first`, then bytes, characters, and pieces as learnt."""
    size = spec.size - len(spec.first) - len(spec.last) - len(spec.plain)
    if spec.kind in _SENTENCEPIECE:
        alphabet = _pieces_alphabet()
        base = [f"<0x{byte:02X}>" for byte in range(256)] + list(alphabet)
    else:
        alphabet = _byte_alphabet()
        base = list(alphabet)
    merges = _merges(spec.kind, alphabet)[: size - len(base)]
    tokens = [*spec.first, *base, *(left + right for left, right in merges)]
    return {token: number for number, token in enumerate(tokens)}, merges


def _merges(kind: str, alphabet: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merges in the order they were learnt, without those that make a piece which is already there."""
    learnt, known = [], set(alphabet)
    for left, right in _learn(kind, alphabet):
        if left + right not in known:
            known.add(left + right)
            learnt.append((left, right))
    return learnt


@cache
def _learn(kind: str, alphabet: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    from tokenizers import Regex, pre_tokenizers

    cuts: list[Any]
    lines: Iterable[str] = [line for line in tiny_text().splitlines() if line]
    if kind in _SENTENCEPIECE:
        keep, prefix = set(alphabet), "" if kind == "gemma" else "▁"
        lines = ["".join(c if c in keep else "\n" for c in prefix + line.replace(" ", "▁")) for line in lines]
        cuts = [
            pre_tokenizers.Split("\n", behavior="removed"),
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        ]
    else:
        lines = [tiny_text()]  # whole, so that runs of newlines and indents are learnt too
        regex = {"llama3": _LLAMA3, "qwen": _QWEN}.get(kind)
        cuts = [pre_tokenizers.Split(Regex(regex), behavior="isolated")] if regex else []
        cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None))
    return _train(lines, pre_tokenizers.Sequence(cuts), alphabet)


def _train(lines: Iterable[str], cut: Any, alphabet: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Merges of a plain BPE over a fixed alphabet: only then are ties broken the same way every time."""
    from tokenizers import Tokenizer, models, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = cut
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=list(alphabet), limit_alphabet=len(alphabet), show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    return tuple((left, right) for left, right in json.loads(backend.to_str())["model"]["merges"])


@cache
def _pieces_alphabet() -> tuple[str, ...]:
    """Characters with a piece of their own: the frequent ones, `▁` first, in a fixed order."""
    counts = Counter(tiny_text().replace(" ", "▁"))
    frequent = [char for char, count in counts.items() if count > _RARE and not char.isspace()]
    return tuple(sorted(frequent, key=lambda char: (-counts[char], char)))


@cache
def _byte_alphabet() -> tuple[str, ...]:
    """The 256 printable characters that stand for bytes, in GPT-2's order: those that print as themselves first."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return tuple(chr(byte) for byte in own) + tuple(chr(256 + number) for number in range(len(others)))


def _wordpiece(spec: TinyTokenizer) -> dict[str, int]:
    """BERT's vocabulary: lower case, and `##` before what continues a word.

    The library's own WordPiece trainer numbers its pieces differently in every process. So a plain BPE learns them,
    with a character of the private use area for every character inside a word.
    """
    from tokenizers import normalizers, pre_tokenizers

    text = normalizers.BertNormalizer(lowercase=True).normalize_str(tiny_text())
    counts = Counter(text)
    text = "".join(char if counts[char] > _RARE else " " for char in text)
    words = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)]
    inside = {char: chr(0xE000 + n) for n, char in enumerate(sorted({char for word in words for char in word[1:]}))}
    outside = {code: char for char, code in inside.items()}
    coded = [word[0] + "".join(inside[char] for char in word[1:]) for word in words]
    alphabet = sorted(set("".join(coded)))
    merges = _train(coded, pre_tokenizers.WhitespaceSplit(), alphabet)
    tokens = list(spec.first)
    for piece in dict.fromkeys([*alphabet, *(left + right for left, right in merges)]):
        mark = "##" if piece[0] in outside else ""
        tokens.append(mark + "".join(outside.get(char, char) for char in piece))
    return {token: number for number, token in enumerate(tokens[: spec.size])}
