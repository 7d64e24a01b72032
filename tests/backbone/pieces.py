"""Real SentencePiece models, trained in a moment on the bundled text, and a thousand texts to ask them with."""

from __future__ import annotations

import io
import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece

from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.backbone.tiny.tokenizer import tiny_text

LIKE_LLAMA = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
LIKE_LLAMA |= {"remove_extra_whitespaces": False}

_WRITTEN = (
    "In: What action should the robot take to pick up the red block?\nOut:",
    *("", "a", " a", "  two leading", "two trailing  ", " ", "   ", "\n", "\r\n", " \n ", "a\n\n\nb\n", "\ttab\t\ttab"),
    "    def f(x):\n        return x[1:-1] != None",
    "Größe, naïve, Ελλάδα, Москва, 数据, データ, 🙂👩\u200d👩\u200d👧 العربية עברית हिन्दी ไทย 한국어",
    "no\u00a0break\u3000wide\u200bzero\ufeff",
    *(
        "ﬁ ﬂ ① Ⅷ ㌔ ｱ",
        "e\u0301 \u212b",
        "1234567890 3.14",
        "\x00\x07",
        "▁a ▁▁b",
        "<0x41>",
        "a <0x0A> b",
        "[INST] <loc>",
    ),
)
_LETTERS = (
    *"abcdefghij THE INOUT:.,?!<>",
    *(" " * 8),
    *"\n\n\n\t\r",
    *"éßñ数テ🙂▁\u00a0\u3000ﬁ",
    *("the", "robot", "  ", "    ", "\n\n", "<0x0A>", "<loc>"),
)


@cache
def probe_texts(count: int = 1000) -> tuple[str, ...]:
    """Texts that tell careless tokenizers from exact ones: blanks, line ends, scripts, and their borders at random."""
    draw = random.Random(0)
    texts = list(_WRITTEN)
    while len(texts) < count:
        if draw.random() < 0.5:
            texts.append("".join(draw.choice(_LETTERS) for _ in range(draw.randint(1, 40))))
        else:
            cut = draw.choice(_WRITTEN)
            gap = draw.choice((" ", "  ", "\n", ""))
            texts.append(cut[draw.randint(0, len(cut)) :] + gap + draw.choice(_WRITTEN))
    return tuple(texts)


def train(**options: Any) -> bytes:
    """A SentencePiece model of 900 pieces, as a file's bytes."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in tiny_text().splitlines() if line.strip()),
        model_writer=written,
        **{"vocab_size": 900, "character_coverage": 0.98, "hard_vocab_limit": False, "num_threads": 1, **options},
        minloglevel=2,
    )
    return written.getvalue()


@cache
def like_llama() -> bytes:
    """As LLaMA-2's own: BPE, bytes, text as it is, a blank in front."""
    return train(**LIKE_LLAMA)


def processor(model: bytes) -> Any:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def folder_with(folder: Path, model: bytes, **settings: Any) -> Path:
    """A tiny LLaMA-2 with a SentencePiece model for its tokenizer, as Vicuna's repository has it."""
    shutil.copytree(tiny_checkpoint("tiny-llama2"), folder)
    for file in [*folder.glob("*token*"), *folder.glob("chat_template*")]:
        file.unlink()
    (folder / "tokenizer.model").write_bytes(model)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
