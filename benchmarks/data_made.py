"""What the benchmarks of data are made of: words of the standard library, a tokenizer trained on them, tables, lengths.

`SCALE` is what `--small` turns down.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from timing import in_turn
from vertebra.data.read.corpus import python_corpus
from vertebra.data.read.rows import Row
from vertebra.data.samples.table import ChunkBuilder, Table

EOS = "<|endoftext|>"
SCALE = 1.0


def scaled(count: int) -> int:
    return max(64, int(count * SCALE))


def corpus_words() -> list[str]:
    return " ".join(row.fields["text"] for row in python_corpus(megabytes=3).rows() if isinstance(row, Row)).split()


def trained_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 8k tokens, trained on the standard library: its words are as long as those of real ones."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    texts = [row.fields["text"] for row in python_corpus(megabytes=3).rows() if isinstance(row, Row)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS, pad_token=EOS)


def texts_of(count: int, words: int) -> list[str]:
    known, rng = corpus_words(), np.random.default_rng(words)
    picked = rng.integers(0, len(known), count * words)
    return [" ".join(known[i] for i in picked[n * words : (n + 1) * words]) for n in range(count)]


def log_normal(count: int, most: int = 1024) -> np.ndarray:
    """Lengths as instructions have them: median 120, sigma 0.8."""
    return np.clip(np.random.default_rng(0).lognormal(np.log(120), 0.8, count).astype(int), 2, most)


def table_of(lengths: np.ndarray, vocabulary: int = 8000) -> Table:
    rng, made = np.random.default_rng(1), ChunkBuilder(("ids",))
    for length in lengths:
        made.place("made", 1)
        made.vectors({"ids": rng.integers(1, vocabulary, length).astype(np.int32)})
    return Table([made.built()], meta={"fingerprint": "made"})


def cpu(works: dict[str, Any], *, rounds: int = 5) -> dict[str, float]:
    return in_turn(works, rounds=rounds, clock=time.process_time)
