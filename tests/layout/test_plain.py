"""Batches of pages are, byte for byte, those that plain loops make: character by character, position by position."""

from __future__ import annotations

import numpy as np
import pytest

from tests.layout.made import document, model, picture
from vertebra.layout import PageRecord, Renderer, box_part, lines_of, page_row, rows, shuffled
from vertebra.layout.manners import MANNERS
from vertebra.prompt import assembly
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence

TURNS = (("What is it?", "Café 合計"), ([box_part((0.1, 0.2, 0.3, 0.4)), "?"], "9.50"), ("And </s>?", "no"))
CASES = [
    *[(family, manner, "line") for family in ("tiny-llama2", "tiny-gpt2", "tiny-qwen2.5") for manner in MANNERS],
    ("tiny-llama2", "added", "word"),
    ("tiny-gpt2", "added", "word"),
]  # fmt: skip


def by_character(pieces, lengths, encoding):
    characters = [(piece, n) for piece in pieces for n in range(len(piece.text))]
    page = [any(one.start <= n < one.stop for one in piece.pages) for piece, n in characters]
    role, weight = [], []
    for start, stop in zip(encoding.start.tolist(), encoding.stop.tolist(), strict=True):
        last = max(stop, start + 1) - 1
        role.append(int(Role.PAGE if page[last] else characters[last][0].role))
        weights = [characters[n][0].weight for n in range(start, last + 1)]
        weight.append(next((one for one in reversed(weights) if one > 0), 0.0))
    return np.array(role, np.int64), np.array(weight, np.float32)


def by_line(pieces, lengths, encoding, front):
    of = []
    for piece in pieces:
        for n in range(len(piece.text)):
            here = [one for one in piece.pages if one.start <= n < one.stop]
            of.append((max([o.line for o in here], default=-1), max([o.word for o in here], default=-1)))
    if all(line < 0 for line, _ in of):
        return None
    origin = [(-1, -1)] * front
    for start, stop in zip(encoding.start.tolist(), encoding.stop.tolist(), strict=True):
        first, last = of[start], of[max(stop, start + 1) - 1]
        origin.append(first if last[1] < 0 <= first[1] else last)
    return np.array(origin, np.int64).reshape(-1, 2)


def added(traced, lines, record, asked):
    sequence, origin = traced.sequence, traced.origin
    segments = list(sequence.segments) + ([] if "boxes" in sequence.segments else ["boxes"])
    number, slots, boxes, waiting = segments.index("boxes"), [], [], list(asked)
    for position in range(len(sequence)):
        slot, (line, word) = sequence.slot[position].tolist(), origin[position].tolist()
        if slot[0] == number:
            boxes.append(waiting.pop(0))
        elif line >= 0 > slot[0]:
            boxes.append(lines[line].word_boxes[word] if record.boxes == "word" and word >= 0 else lines[line].box)
        else:
            slots.append(slot)
            continue
        slots.append([number, len(boxes) - 1])
    vectors = {**vars(sequence), "slot": np.array(slots, np.int64).reshape(-1, 2), "segments": tuple(segments)}
    return TokenSequence(**vectors), boxes


def batch(one, patches: bool):
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    made = []
    for seed in range(4):
        lines = shuffled(lines_of(document(seed, 2), record), np.random.default_rng(seed))[: 9 if seed else 0]
        images = {number: picture(number) for number in (1, 2)} if patches else None
        made.append(page_row(lines, TURNS[: seed % 3 + 1], record, renderer, images=images))
    found = one.collate([row.sequence for row in made], [one.prepare(row.items) for row in made], side="right")
    return found, [row.places.origin for row in made], [row.items for row in made]


@pytest.mark.parametrize(("family", "manner", "boxes"), CASES)
def test_batches_are_those_of_plain_loops(family, manner, boxes, monkeypatch):
    patches = manner == "doclaylm"
    one = model(family, manner, patches=patches, boxes=boxes)
    ours, origins, items = batch(one, patches)
    monkeypatch.setattr(assembly, "_by_character", by_character)
    monkeypatch.setattr(assembly, "_by_line", by_line)
    monkeypatch.setattr(rows, "_added", added)
    plain, plain_origins, plain_items = batch(one, patches)
    assert repr(items) == repr(plain_items) or patches  # pictures are opened anew
    assert all(np.array_equal(a, b) for a, b in zip(origins, plain_origins, strict=True))
    assert ours.keys() == plain.keys()
    for key, value in ours.items():
        if key == "features":
            for name, block in value.items():
                assert block["values"].numpy().tobytes() == plain[key][name]["values"].numpy().tobytes()
                assert block["rows"].tolist() == plain[key][name]["rows"].tolist()
        elif key == "segments":
            assert value == plain[key]
        else:
            assert value.dtype == plain[key].dtype
            assert value.numpy().tobytes() == plain[key].numpy().tobytes(), key
    assert (ours["weights"] > 0).any()
    assert (ours["role"] == Role.PAGE).any()
