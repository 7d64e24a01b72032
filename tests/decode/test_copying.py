"""Copying: exactly what a slow twin that writes out every answer allows, on every tokenizer; batches right, beams refused."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import torch

from tests.decode.copying_plain import every_answer, plain_pieces, possible, random_lines, token_bytes
from tests.decode.plain import backbone, prompts
from vertebra.backbone.tiny import TINY
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedIds, AllowedSteps
from vertebra.decode.choose.copying import copied, each
from vertebra.decode.choose.grammar import regex
from vertebra.errors import GenerationError
from vertebra.page.pieces import pieces

NAME = "tiny-llama2"
WAYS = [
    {"across": across, "absent": absent, "quoted": quoted, "space": space, "like": like}
    for across, quoted, (absent, space), like in itertools.product(
        (False, True), (False, True), (("null", True), (None, False)), ("", r"[^\d]*\d[\d.,]*[^\d]*")
    )
]


@pytest.mark.parametrize("seed", range(40))
def test_pieces_are_those_of_the_plain_twin(seed):
    for line in random_lines(seed):
        assert pieces(line) == plain_pieces(line), line


def test_pieces_cut_no_number_and_no_word():
    def cut(text):
        return [text[start:end] for start, end in pieces(text)]

    assert cut("Total: RM64.15 (6%)") == ["Total", ":", "RM", "64.15", "(", "6", "%", ")"]
    assert cut("25/12/2018 8:13:39") == ["25/12/2018", "8:13:39"]
    assert cut("-5.00, S.D.N B-12") == ["-", "5.00", ",", "S.D.N", "B", "-", "12"]
    assert cut("合計 900円") == ["合", "計", "900", "円"]
    assert cut("नमस्ते") == ["नमस्ते"]
    assert cut(" \t ") == []


@pytest.mark.parametrize("name", TINY)
def test_masks_are_those_of_the_plain_twin(name):
    """Random pages, random walks through what is possible, at the head's padded width."""
    model = backbone(name)
    written, ends = token_bytes(model.tokenizer), set(model.eos_token_ids)
    vocabulary = model.num_rows
    for seed, how in enumerate(WAYS):
        lines, chance = random_lines(100 + seed, 3), random.Random(seed)
        answers = {answer.encode() for answer in every_answer(lines, **how)}
        if not answers:
            continue
        follower = copied(lines, **how).follow(
            1, tokenizer=model.tokenizer, vocabulary=vocabulary, ends=tuple(ends), steps=99, device=torch.device("cpu")
        )
        generated = b""
        for _ in range(30):
            mask = follower.mask([0])[0]
            assert mask.shape == (vocabulary,)
            found = set(mask.nonzero()[:, 0].tolist())
            twin = possible(written, answers, generated, ends)
            assert found, (lines, how, generated)
            assert found <= twin, (lines, how, generated)
            # of ids that write the same (a letter and its byte) one is enough
            assert {written[one] for one in found} == {written[one] for one in twin}, (lines, how, generated)
            token = chance.choice(sorted(found - ends or ends))
            over = follower.advance(0, token)
            if token in ends:
                break
            generated += written[token]
            if over:
                assert generated in answers
                break


@pytest.mark.parametrize("name", [NAME, "tiny-smollm2"])
def test_a_batch_of_pages(name):
    """Every row has a page of its own, rows end at different steps, and each says what it would say alone."""
    how = {"across": False, "absent": "null", "quoted": True, "space": False, "like": ""}
    pages = [random_lines(seed, 3) for seed in (3, 4, 5)]
    result = generate(
        backbone(name), prompts(name), max_new_tokens=12, constraint=each([copied(p, **how) for p in pages])
    )
    for row, page in enumerate(pages):
        answers = {answer.encode() for answer in every_answer(page, **how)}
        alone = generate(backbone(name), prompts(name)[row], max_new_tokens=12, constraint=copied(page, **how))
        assert result.tokens[row] == alone.tokens[0]
        assert any(answer.startswith(result.text[row].encode()) for answer in answers)
        if result.stop_reason[row] in ("constraint", "eos"):
            printed = json.loads(result.text[row])
            assert printed is None or json.dumps(printed, ensure_ascii=False).encode() in answers


def test_several_answers_to_a_row_and_other_constraints():
    rows = [AllowedIds([700, 701]), regex("[0-9]{3}"), AllowedSteps([[5], [6], [7]])]
    result = generate(
        backbone(NAME), prompts(NAME), max_new_tokens=3, constraint=each(rows), num_return_sequences=2, top_k=9, seed=1,
        eos_token_id=(),
    )  # fmt: skip
    assert all(set(row) <= {700, 701} for row in result.tokens[:2])
    assert all(text.strip().isdigit() for text in result.text[2:4])
    assert result.tokens[4:] == [[5, 6, 7]] * 2


def test_control_tokens_of_a_page_are_text():
    """A page may spell a token: what is said is its letters."""
    for name in ("tiny-smollm2", "tiny-llama3"):
        model = backbone(name)
        token = model.tokenizer.eos_token
        result = generate(
            model, prompts(name)[0], max_new_tokens=40, constraint=copied([token], absent=None, space=False)
        )
        assert not set(result.tokens[0][:-1]) & set(model.tokenizer.all_special_ids)
        assert token.startswith(result.text[0]) or result.text[0] in token


def test_what_cannot_be_copied():
    with pytest.raises(GenerationError, match="nothing to copy from"):
        copied(["", " \t"], absent=None)
    with pytest.raises(GenerationError, match="expected a list of texts"):
        copied("Total 9.50")
    with pytest.raises(GenerationError, match="2 constraints for 3 rows"):
        generate(backbone(NAME), prompts(NAME), max_new_tokens=3, constraint=each([regex("a"), regex("b")]))
    with pytest.raises(GenerationError, match="list of them is empty"):
        each([])
    for constraint in (copied(["a b"]), each([copied(["a b"])] * 3)):
        with pytest.raises(GenerationError, match="beams change places"):
            generate(backbone(NAME), prompts(NAME), num_beams=2, max_new_tokens=3, constraint=constraint)
    nothing = generate(backbone(NAME), prompts(NAME)[0], max_new_tokens=9, constraint=copied([], space=False))
    assert nothing.text == ["null"]


def test_a_large_page():
    """Thousands of words cost no more than a few: the grammar is a suffix automaton."""
    chance = np.random.default_rng(0)
    lines = [" ".join(f"{n:.2f}" for n in chance.random(9) * 1000) for _ in range(900)]
    result = generate(backbone(NAME), prompts(NAME)[0], max_new_tokens=30, constraint=copied(lines, absent=None))
    assert any(result.text[0].strip() in line for line in lines)
