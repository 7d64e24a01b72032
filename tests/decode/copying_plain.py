"""The slow truth of copying: every text that may be said, written out, and every token tried against all of them."""

from __future__ import annotations

import json
import random
import re
import unicodedata

WORDS = ["TOTAL", "CASH", "RM", "64.15", "1,234.50", "é", "naïve", 'say "x"', "a\\b", "合計金額", "¥900", "(6%)", "25/12/2018",
         "null", "RM64.15", "Total:", "No.", "<|im_end|>", "</s>", "🙂", "מחיר", "नमस्ते", "x" * 12]  # fmt: skip


def random_lines(seed: int, count: int = 6) -> list[str]:
    chance = random.Random(seed)
    return [
        chance.choice(["", " "]) + "  ".join(chance.choice(WORDS) for _ in range(chance.randint(0, 5)))
        for _ in range(count)
    ]


def plain_pieces(text: str) -> list[tuple[int, int]]:
    """By regular expressions over a text whose letters are replaced by their classes."""
    classes = "".join(map(_class, text))
    unit = r"s[m]*|dm*(?:dm*|(?<=[dm])j(?=d)|(?<=[dm])n(?=d))*|lm*(?:lm*|(?<=[lm])j(?=l)|(?<=[lm])w(?=l))*|[jnwom]m*"
    return [match.span() for match in re.finditer(unit, classes)]


def _class(letter: str) -> str:
    if letter.isspace():
        return "_"
    if letter.isdigit():
        return "d"
    if "\u2e80" <= letter <= "\u9fff":
        return "s"
    if letter.isalpha():
        return "l"
    if unicodedata.category(letter)[0] == "M":
        return "m"
    both, numbers, words = ".-'’", ",:/٫٬", "&_"
    return "j" if letter in both else "n" if letter in numbers else "w" if letter in words else "o"


def every_answer(
    lines: list[str], *, across: bool, absent: str | None, quoted: bool, space: bool, like: str
) -> set[str]:
    """All texts that may be said."""
    texts = [" ".join(line.split()) for line in lines]
    texts = [text for text in texts if text]
    texts = [" ".join(texts)] if across else texts
    runs = set()
    for text in texts:
        found = plain_pieces(text)
        runs |= {text[start:end] for start, _ in found for _, end in found if start < end}
    runs = {run for run in runs if not like or re.fullmatch(like, run)}
    reply = {json.dumps(run, ensure_ascii=False) if quoted else run for run in runs}
    if absent is not None:
        reply.add(absent)
    return reply | {f" {one}" for one in reply} if space else reply


def token_bytes(tokenizer) -> list[bytes | None]:
    """What each id writes; None: nothing that text may hold."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    byte_level = sum("Ġ" in token for token in tokens) > sum("▁" in token for token in tokens)
    letters = _letters() if byte_level else {}
    made: list[bytes | None] = []
    for token in tokens:
        if token in special:
            made.append(None)
        elif byte_level:
            made.append(bytes(letters[letter] for letter in token))
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            made.append(bytes([int(token[3:5], 16)]))
        else:
            made.append(token.replace("▁", " ").encode())
    return made


def _letters() -> dict[str, int]:
    """GPT-2's letter of each byte, from its paper's code: printable bytes are themselves, the others follow from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in plain]
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


def possible(written: list[bytes | None], answers: set[bytes], reply: bytes, ends: set[int]) -> set[int]:
    """The ids that may come next, each tried."""
    left = [answer[len(reply) :] for answer in answers if answer.startswith(reply)]
    starts = {rest[:end] for rest in left for end in range(1, len(rest) + 1)}
    found = {number for number, own in enumerate(written) if own and own in starts and number not in ends}
    return found | (ends if b"" in left else set())
