"""The tokenizer of a GGUF file, cutting text as the model's training did.

A GGUF file holds a vocabulary, merges and the *name* of a rule that cuts text before merging; the rule itself is in
llama.cpp. transformers knows some of these names and takes GPT-2's rule for all others, which splits numbers otherwise
than SmolLM2, StarCoder or Command-R were trained on: `1987` as one piece instead of four digits. It knows no weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vertebra import compat, log
from vertebra.backbone.gguf.header import GgufHeader
from vertebra.errors import CheckpointError

# Rules by name. GPT-2's cuts words, numbers and signs; the rules of the second row cut every digit apart before that.
_WORDS = ("gpt-2", "phi-2", "jina-es", "jina-de", "mpt", "olmo", "gigachat", "trillion", "granite-docling")
_SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")


def gguf_tokenizer(header: GgufHeader) -> Any:
    """The fast tokenizer of a GGUF file, chat template included."""
    import transformers

    try:
        with compat.errors_only():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(header.file.parent), gguf_file=header.file.name, trust_remote_code=False
            )
    except Exception as error:  # whatever a damaged vocabulary makes the library raise
        raise CheckpointError(
            f"the tokenizer of `{header.file}` cannot be read ({type(error).__name__}: {error})"
        ) from error
    kind, rule = header.facts.get("tokenizer.ggml.model"), header.facts.get("tokenizer.ggml.pre")
    if kind == "gpt2":
        _cut_like_training(tokenizer, rule, header.file)
    _drop_fillers(tokenizer)
    return tokenizer


def _drop_fillers(tokenizer: Any) -> None:
    """Rows of the matrices behind the vocabulary's end come as tokens `[PAD700]`; they are rows, and no text has them."""
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    vocab = state["model"].get("vocab")
    if not isinstance(vocab, dict):
        return
    kept = {token: number for token, number in vocab.items() if token != f"[PAD{number}]"}
    if len(kept) < len(vocab):
        state["model"]["vocab"] = kept
        backend.model = Tokenizer.from_str(json.dumps(state)).model


def _cut_like_training(tokenizer: Any, rule: Any, file: Path) -> None:
    from tokenizers import pre_tokenizers

    if rule in _SINGLE_DIGITS:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    elif rule not in _WORDS and not _known_to_library(tokenizer):
        log.warn(
            f"`{file}` cuts text by the rule `{rule}`, which is not known here; GPT-2's is used, and ids of numbers and "
            "signs may differ from those in training"
        )


def _known_to_library(tokenizer: Any) -> bool:
    """Whether transformers put a rule of its own in place of GPT-2's."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return "Split" in json.dumps(state.get("pre_tokenizer"))
