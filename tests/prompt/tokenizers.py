"""The tokenizers of these tests: the committed ones, and made-up ones with the habits that break careless code."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

GOLDEN = Path(__file__).parent.parent / "golden"
TYPED = ("<ACT>", "<image>", "<tool_call>")
"""Added with special=False: what most protections forget."""


def committed(name: str) -> Tokenizer:
    return Tokenizer.from_file(str(GOLDEN / "tokenizers" / f"{name}.json"))


def with_typed(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_tokens([AddedToken("<ACT>"), AddedToken("<image>", normalized=False), AddedToken("<tool_call>")])
    return tokenizer


def llama_prefixing() -> Tokenizer:
    """The hub's LLaMA-2 file: a `▁` is put before every stretch between added tokens, there is no pre-tokenizer."""
    state = json.loads(committed("llama").to_str())
    tokenizer = Tokenizer.from_str(json.dumps({**state, "pre_tokenizer": None}))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return with_typed(tokenizer)


def llama_always() -> Tokenizer:
    tokenizer = committed("llama")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return with_typed(tokenizer)


def llama_merging() -> Tokenizer:
    """Merges that make `</s>` out of plain characters, as old converters wrote them."""
    state = json.loads(committed("llama").to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    for character in "</s>":
        vocab.setdefault(character, len(vocab))
    for left, right in (("<", "/"), ("s", ">"), ("</", "s>")):
        vocab.setdefault(left + right, len(vocab))
        merges.append([left, right])
    return Tokenizer.from_str(json.dumps(state))


def chat_ignoring_merges() -> Tokenizer:
    """LLaMA-3's habit: a word in the vocabulary is taken whole. `gripper` is such a word here, and a special token."""
    state = json.loads(committed("chat").to_str())
    state["model"]["ignore_merges"] = True
    vocab = state["model"]["vocab"]
    number = len(vocab)
    vocab["gripper"] = number
    for token in state["added_tokens"]:
        token["id"] += 1
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(["gripper"])
    tokenizer.add_tokens(["<image>"])
    return tokenizer


def swallowing() -> Tokenizer:
    """Phi-3's tokens eat the white space behind them; runs of spaces are added tokens, as Pythia's are."""
    tokenizer = committed("llama")
    tokenizer.post_processor = None  # type: ignore[assignment]
    names = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False, rstrip=True) for name in names])
    tokenizer.add_tokens([AddedToken("  ", normalized=False), AddedToken("    ", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    return with_typed(tokenizer)


def unigram() -> Tokenizer:
    """Unigram, whose lattice takes `</s>` from its vocabulary; NFKC makes `＜ACT＞` into `<ACT>`."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0)]
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?<>/|_[]()'-\n"))
    pieces += [(letter, -5.0 - 0.01 * number) for number, letter in enumerate(letters)]
    pieces += [(word, -4.0) for word in ("▁the", "▁cup", "▁In", "Out", "▁What", "▁next", "▁a", "▁b", "ing", "▁Go")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    special = [AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return with_typed(tokenizer)


MAKERS = {
    "llama": lambda: with_typed(committed("llama")),
    "gpt2": lambda: with_typed(committed("gpt2")),
    "chat": lambda: with_typed(committed("chat")),
    "llama-prefixing": llama_prefixing,
    "llama-always": llama_always,
    "llama-merging": llama_merging,
    "chat-ignoring-merges": chat_ignoring_merges,
    "swallowing": swallowing,
    "unigram": unigram,
}


@cache
def tokenizer(name: str) -> Tokenizer:
    return MAKERS[name]()


@cache
def plain(name: str) -> Tokenizer:
    """The same without a post-processor: offsets untrimmed, no BOS."""
    copy = MAKERS[name]()
    copy.post_processor = None  # type: ignore[assignment]
    return copy
