"""Extraction: eight fields behind a page that is computed once beside field by field, and what masks of copying cost a step.

    python benchmarks/bench_extract.py [MODEL] [--lines 70] [--rounds 3] [--device cpu]

One thread, process CPU time, both sides in turn; MODEL is smollm2-135m-instruct (`vertebra get`), or tiny-smollm2 where that
is absent. Goals: 3 × for eight fields, 5 % of a step for masks. The page is drawn at random, about 10 positions a line.
"""

from __future__ import annotations

import argparse
import random
import time

import torch

import vertebra as vt
from timing import in_turn
from vertebra.decode.choose.copying import copied
from vertebra.documents import fields_of
from vertebra.documents.asking import DocumentReader
from vertebra.documents.settings import ExtractSettings
from vertebra.errors import VertebraError
from vertebra.page import Box, Document, Line, Page

FIELDS = {
    "invoice number": "text", "date": "date", "seller": "text", "buyer": "text", "net": "number", "tax": "number",
    "total": "number", "due date": "date",
}  # fmt: skip
WORDS = ["Invoice", "No.", "Total", "Net", "Tax", "GST", "Cash", "Change", "Rice", "Tea", "Jalan", "Sdn", "Bhd", "Tel"]
STEPS = 24
"""Tokens that a value may take."""


def drawn(lines: int) -> Page:
    chance = random.Random(0)

    def word() -> str:
        return chance.choice([*WORDS, f"{chance.random() * 100:.2f}", str(chance.randrange(10_000))])

    made = [Line(" ".join(word() for _ in range(4)), Box(0, 10 * n, 100, 10 * n + 9)) for n in range(lines)]
    return Page.of(made, size=(100, 10 * lines))


def masks(model: vt.Model, page: Page, rounds: int) -> None:
    """One row that copies at every step: CPU time of its masks beside that of its steps."""
    backbone, texts = model.backbone, [line.text for line in page.lines]
    # over the ends of lines and never absent: it goes on for as long as it is let
    constraint = copied(texts, across=True, absent=None)
    prompt = page.text + "\nRead it out."
    said, begun = [], time.process_time()
    for step in vt.stream(model, prompt, max_new_tokens=STEPS, constraint=constraint):
        said.append(step.tokens[0])
        if len(said) == 1:  # the prompt's pass is no step
            begun = time.process_time()
    steps = (time.process_time() - begun) / max(len(said) - 1, 1)
    logits, taken = torch.randn(1, backbone.num_rows), []
    how = {"tokenizer": backbone.tokenizer, "vocabulary": backbone.num_rows, "ends": tuple(backbone.eos_token_ids)}
    for _ in range(rounds):
        begun = time.process_time()
        follower = constraint.follow(1, steps=STEPS, device=torch.device("cpu"), **how)
        first = time.process_time() - begun
        begun = time.process_time()
        for token in said:
            possible = follower.mask([0])
            assert possible is not None, "a schema's answers are masked step by step"
            logits.masked_fill(~possible, float("-inf"))
            follower.advance(0, token)
        taken.append((first, (time.process_time() - begun) / len(said)))
    first, mask = min(taken)
    print(
        f"  masks: {mask * 1e6:.0f} µs of a step of {steps * 1e3:.1f} ms ({mask / steps:.2%}, goal 5 %), "
        f"{backbone.num_rows} rows; the grammar of {len(texts)} lines once: {first * 1e3:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--lines", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = arguments.model or "smollm2-135m-instruct"
    try:
        model = vt.load(name, device=arguments.device)
    except VertebraError:
        if arguments.model:
            raise
        name, model = (
            "tiny-smollm2",
            vt.load("tiny-smollm2", weights=True, inference_mode=True, device=arguments.device),
        )
    page = drawn(arguments.lines or (70 if (model.context or 9999) > 2000 else 20))
    reader = DocumentReader(model=model, settings=ExtractSettings(max_new_tokens=STEPS))
    questions = [reader.question(one) for one in fields_of(FIELDS)]
    (lines,) = reader.windows(Document((page,)), questions, STEPS, {})
    positions = len(reader.row(lines, questions[0]).sequence)
    found = {
        "together": lambda: vt.extract(model, page, FIELDS, max_new_tokens=STEPS),
        "field by field": lambda: [
            vt.extract(model, page, {field: kind}, max_new_tokens=STEPS) for field, kind in FIELDS.items()
        ],
    }
    together, apart = found["together"](), found["field by field"]()
    same = sum(together[name].text == one[name].text for name, one in zip(FIELDS, apart, strict=True))
    taken = in_turn(found, rounds=arguments.rounds, clock=time.process_time)
    ratio = taken["field by field"] / taken["together"]
    print(
        f"  {name}, a page of {positions} positions, {len(FIELDS)} fields: together {taken['together']:.2f} s, field by field "
        f"{taken['field by field']:.2f} s: {ratio:.1f} × (goal 3); {same} of {len(FIELDS)} answers equal"
    )
    masks(model, page, arguments.rounds)


if __name__ == "__main__":
    main()
