"""The table of `docs/generation.md`, cell by cell: every mode, by both engines, on ids and on embeddings.

And that the engines agree: greedy token for token, sampling in distribution.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, TopKLogitsWarper, WatermarkingConfig

from tests.decode.plain import FAMILIES, backbone, plain_rows, prompts
from tests.model.models import batch_of, page_row, shared, text_row
from vertebra.backbone.registry import load_backbone
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedIds, AllowedSteps
from vertebra.decode.choose.grammar import regex
from vertebra.decode.settings import KEYS
from vertebra.decode.state.capture import Capture
from vertebra.errors import GenerationError
from vertebra.sequence.tokens import TokenSequence

PAGE = Path(__file__).parents[2] / "docs" / "generation.md"
CELLS = [(engine, kind) for engine in ("vertebra", "hf") for kind in ("ids", "embeddings")]
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.7, "seed": 1},
    "top-k": {"top_k": 5, "seed": 1},
    "top-p": {"top_p": 0.8, "seed": 1},
    "min-p": {"min_p": 0.1, "seed": 1},
    "typical, epsilon, eta, top-h": {"do_sample": True, "typical_p": 0.8, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01},
    "a seed a row": {"temperature": 1.0, "seed": [1, 2]},
    "several answers": {"num_return_sequences": 2, "temperature": 1.0, "seed": 1},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5, "early_stopping": True},
    "beams that sample": {"num_beams": 3, "do_sample": True, "seed": 1},
    "repetition penalty": {"repetition_penalty": 1.3},
    "no repeated n-grams": {"no_repeat_ngram_size": 2},
    "bias, banned and forced ids": {
        "sequence_bias": {(9,): 3.0}, "bad_words_ids": [[8]], "suppress_tokens": [7], "begin_suppress_tokens": [6],
        "forced_bos_token_id": 12, "forced_eos_token_id": 2,
    },
    "exponential decay of length": {"exponential_decay_length_penalty": (2, 1.1)},
    "processors": {"logits_processor": [TopKLogitsWarper(3)]},
    "allowed ids": {"constraint": AllowedIds(range(100, 200))},
    "ids by step": {"constraint": AllowedSteps([[1], [2, 3], [4], [5]])},
    "grammars": {"constraint": regex("[a-z]*")},
    "end ids, stop strings, time": {"eos_token_id": [2, 5], "stop_strings": ["a"], "max_time": 60.0, "min_new_tokens": 1},
    "the caller's own stop": {"stop": lambda step: [step.index > 1] * 2},
    "prompt in chunks": {"chunk": 3},
    "static cache": {"cache": "static"},
    "compiled": {"compile": "eager"},
    "no cache": {"use_cache": False},
    "a free rule of attention": {"attend": lambda query, key: key.index >= 0},
    "logits, scores, states": {
        "output_logits": True, "output_scores": True, "output_attentions": True,
        "output_hidden_states": Capture(layers=[-1]),
    },
    "the state at the end": {"keep_state": True},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
    "guidance": {"guidance_scale": 1.5},
    "watermarks": {"watermarking_config": WatermarkingConfig()},
}  # fmt: skip
ONE_ROW = ("prompt lookup", "guidance")


def table() -> dict[str, list[str]]:
    """The page's table: mode → its four cells."""
    rows = re.findall(
        r"^\| ([^|]+) \|(.+)\|$",
        PAGE.read_text(encoding="utf-8").partition("<!-- modes -->\n")[2].partition("\n\n")[0],
        re.MULTILINE,
    )
    found = {name.strip(): [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    return {name: cells for name, cells in found.items() if name not in ("mode", "---")}


@cache
def inputs(kind: str, rows: int) -> tuple[Any, Any]:
    model = shared(inference_mode=True, weights=True)
    if kind == "ids":
        return model.backbone, batch_of(model, [text_row(7), text_row(5)][:rows])
    return model, batch_of(model, [page_row(0), text_row(7)][:rows])


def test_the_table_has_every_mode():
    assert list(table()) == list(MODES)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize(("engine", "kind"), CELLS)
def test_every_cell(name, engine, kind):
    cell = table()[name][CELLS.index((engine, kind))]
    model, batch = inputs(kind, 1 if name in ONE_ROW else 2)
    options = {"max_new_tokens": 4, **MODES[name]}
    if cell == "yes":
        result = generate(model, batch, engine=engine, **options)
        assert result.engine == engine
        assert result.lengths
        assert max(result.lengths) <= 4
    else:
        assert cell == "no"
        with pytest.raises(GenerationError):
            generate(model, batch, engine=engine, **options)


def test_what_only_one_engine_does_is_chosen_by_itself():
    model, batch = inputs("ids", 2)
    assert generate(model, batch, num_beams=2, max_new_tokens=2).engine == "hf"
    assert generate(model, batch, max_new_tokens=2).engine == "vertebra"
    for name, key in KEYS.items():
        if key.fate.startswith("hf"):
            with pytest.raises(GenerationError, match=f"`{name}`"):
                generate(model, batch, engine="vertebra", max_new_tokens=2, **{name: 2})


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_agrees_token_for_token(name):
    """On ragged rows, with a penalty over the text, in every family; and both are what a plain loop says."""
    options = {"max_new_tokens": 6, "eos_token_id": ()}
    theirs = generate(backbone(name), prompts(name), engine="hf", **options)
    assert theirs.tokens == plain_rows(name, prompts(name), 6)
    assert theirs.shape_of_passes == [17] + [1] * 5
    penalized = [
        generate(backbone(name), prompts(name), engine=e, repetition_penalty=1.5, **options).tokens
        for e in ("vertebra", "hf")
    ]
    assert penalized[0] == penalized[1]


def test_ends_agree():
    """End ids, stop strings and lengths: the same tokens, the same reasons, the same text."""
    model = backbone("tiny-llama2")
    whole = generate(model, prompts("tiny-llama2"), max_new_tokens=12, eos_token_id=())
    stop = whole.text[2][8:11]
    options = {"max_new_tokens": 12, "eos_token_id": [whole.tokens[0][3]], "stop_strings": [stop]}
    ours, theirs = (generate(model, prompts("tiny-llama2"), engine=engine, **options) for engine in ("vertebra", "hf"))
    assert ours.stop_reason == theirs.stop_reason == ["eos", "length", "stop string"]
    assert (ours.tokens, ours.text) == (theirs.tokens, theirs.text)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.8, "top_k": 8}, {"temperature": 1.3, "top_p": 0.7}, {"min_p": 0.2, "do_sample": True}]
)
@pytest.mark.parametrize("kind", ["ids", "embeddings"])
def test_sampling_agrees_in_distribution(kind, options):
    """Two thousand first tokens of each: the shares of every token lie within four standard errors of each other."""
    (model, prompt), count = inputs(kind, 1), 2000
    shares = []
    for engine in ("vertebra", "hf"):
        result = generate(model, prompt, engine=engine, max_new_tokens=1, num_return_sequences=count, seed=5, **options)
        shares.append(torch.tensor(result.tokens).flatten().bincount(minlength=1100) / count)
    spread = ((shares[0] + shares[1]) / 2 * (1 - (shares[0] + shares[1]) / 2) * 2 / count).sqrt()
    assert ((shares[0] - shares[1]).abs() <= 4 * spread + 1e-3).all()
    assert (shares[0] > 0).sum() > 1
    logits = generate(model, prompt, max_new_tokens=1, output_scores=True, seed=1, **options).scores[0][0]
    expected = torch.nn.functional.pad(logits.softmax(-1), (0, 1100 - len(logits)))
    assert ((shares[0] - expected).abs() <= 4 * (expected * (1 - expected) / count).sqrt() + 1e-3).all()


def test_the_other_engine_goes_on_from_what_we_computed():
    """Blocks and packed documents need a mask of ours: we compute the prompt, and beams go on from the cache."""
    from vertebra.decode.state.prefill import prefill
    from vertebra.sequence.tokens import TokenSequence

    model = backbone("tiny-llama2")
    one, two, _ = prompts("tiny-llama2")
    packed = TokenSequence.join([one, two], new_documents=True)
    blocked = one.with_vectors(block=one.block + 1)
    for prompt in (packed, blocked):
        ours, theirs = (
            generate(model, prompt, engine=e, max_new_tokens=5, eos_token_id=()).tokens for e in ("vertebra", "hf")
        )
        assert ours == theirs
    alone = generate(model, two, num_beams=3, max_new_tokens=5)
    assert generate(model, prefill(model, two), num_beams=3, max_new_tokens=5).tokens == alone.tokens
    shared_model, batch = inputs("embeddings", 2)
    beams = generate(shared_model, batch, num_beams=3, max_new_tokens=4)
    assert generate(shared_model, prefill(shared_model, batch), num_beams=3, max_new_tokens=4).tokens == beams.tokens


@pytest.mark.parametrize("name", ["tiny-mistral", "tiny-gemma3"])
def test_a_window_of_one_position(name):
    """The library's dynamic layers keep all that such a window should forget; its engine gets layers of ours."""
    model = load_backbone(
        name, inference_mode=True, weights=True, dtype="float32", config_overrides={"sliding_window": 1}
    )
    rows = [TokenSequence.of(range(10, 22)), TokenSequence.of(range(30, 35)), TokenSequence.of([9])]
    plain = generate(model, rows, max_new_tokens=8, eos_token_id=(), use_cache=False).tokens
    for options in ({}, {"chunk": 3}, {"cache": "static"}, {"engine": "hf"}):
        assert generate(model, rows, max_new_tokens=8, eos_token_id=(), **options).tokens == plain
    for engine in ("vertebra", "hf"):
        assert generate(model, rows[2], max_new_tokens=8, eos_token_id=(), engine=engine).tokens == plain[2:]
    cache = DynamicCache(config=model.llm.config)
    with torch.no_grad():
        model.llm(input_ids=torch.tensor(rows[0].ids[None, :9]), past_key_values=cache, use_cache=True)
    assert generate(model, rows[0], max_new_tokens=8, eos_token_id=(), cache=cache).tokens == plain[:1]
    ids = torch.tensor(rows[0].ids)[None]
    with torch.inference_mode():
        options = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "use_cache": False, "eos_token_id": 2**31}
        uncached = model.llm.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(rows[0]) :]
    beams = generate(model, rows[0], max_new_tokens=5, num_beams=3, eos_token_id=())
    assert beams.tokens == [uncached.tolist()]
    with pytest.raises(GenerationError, match="keeps more of a window of one position"):
        generate(model, rows, max_new_tokens=5, cache_implementation="quantized")
