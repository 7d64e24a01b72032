"""Copying with real vocabularies: the masks are those of the twin that tries every id, at every step of random walks."""

from __future__ import annotations

import random

import torch

from tests.decode.copying_plain import every_answer, possible, random_lines, token_bytes
from vertebra.decode.choose.copying import copied


def same_as_the_twin(tokenizer, vocabulary: int, ends: set[int]) -> int:
    written, compared = token_bytes(tokenizer), 0
    for seed in range(4):
        how = {"across": seed == 3, "absent": "null", "quoted": bool(seed % 2), "space": seed < 2, "like": ""}
        lines, chance = random_lines(seed, 5), random.Random(seed)
        answers = {answer.encode() for answer in every_answer(lines, **how)}
        follower = copied(lines, **how).follow(
            1, tokenizer=tokenizer, vocabulary=vocabulary, ends=tuple(ends), steps=99, device=torch.device("cpu")
        )
        reply = b""
        for _ in range(20):
            found = set(follower.mask([0])[0].nonzero()[:, 0].tolist())
            twin = possible(written, answers, reply, ends)
            assert found, (lines, reply)
            assert found <= twin, (lines, reply)
            assert {written[one] for one in found} == {written[one] for one in twin}, (lines, reply)
            compared += 1
            token = chance.choice(sorted(found - ends or ends))
            if follower.advance(0, token) or token in ends:
                break
            reply += written[token]
    return compared


def test_smollm2(smollm2):
    assert same_as_the_twin(smollm2.tokenizer, smollm2.num_rows, set(smollm2.eos_token_ids)) > 10
