"""Compiled steps say what steps say; where nothing compiles, one message says so.

Most run on the compiler's front half, which is where a wrong graph would come from; one goes through C++.
"""

from __future__ import annotations

import pytest
import torch

from tests.decode.plain import backbone, plain_rows, prompts
from tests.model.models import batch_of, page_row, shared, text_row
from vertebra.backbone.registry import load_backbone
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedIds
from vertebra.errors import GenerationError

NEW = 6
# One family of each model class; the whole compiler below has the Llamas.
EACH_CLASS = (
    *("tiny-mistral", "tiny-phi2", "tiny-phi3", "tiny-qwen2", "tiny-qwen3", "tiny-opt", "tiny-gpt2", "tiny-gemma2"),
    *("tiny-gemma3", "tiny-smollm3+window", "tiny-pythia"),
)


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()


@pytest.mark.parametrize("name", EACH_CLASS)
def test_tokens_are_the_same(name):
    """Ragged rows, past the window, in one graph where nothing rolls."""
    result = generate(backbone(name), prompts(name), max_new_tokens=NEW, eos_token_id=(), compile="eager")
    assert result.tokens == plain_rows(name, prompts(name), NEW)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    again = generate(backbone(name), prompts(name), max_new_tokens=NEW, eos_token_id=(), compile="eager")
    assert again.tokens == result.tokens
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs  # nothing was compiled again


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_through_the_whole_compiler():
    """One layer, so that it takes seconds."""
    model = load_backbone(
        "tiny-llama2", inference_mode=True, weights=False, dtype="float32", config_overrides={"num_hidden_layers": 1}
    )
    torch.manual_seed(0)
    model.llm.to_empty(device="cpu")
    for parameter in model.llm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.llm.model.rotary_emb.inv_freq = 1.0 / (10_000 ** (torch.arange(0, 16, 2).float() / 16))
    eager = generate(model, prompts("tiny-llama2"), max_new_tokens=NEW, eos_token_id=())
    assert (
        generate(model, prompts("tiny-llama2"), max_new_tokens=NEW, eos_token_id=(), compile=True).tokens
        == eager.tokens
    )


def test_with_a_constraint_images_and_states_to_look_at():
    model = shared(inference_mode=True, weights=True)
    batch = batch_of(model, [page_row(0), text_row(5)])
    for options in (
        {"constraint": AllowedIds(range(600, 664))},
        {"output_hidden_states": True},
        {"temperature": 0.9, "seed": 2},
    ):
        eager = generate(model, batch, max_new_tokens=4, eos_token_id=(), **options)
        assert (
            generate(model, batch, max_new_tokens=4, eos_token_id=(), compile="eager", **options).tokens == eager.tokens
        )


def test_without_a_compiler(monkeypatch, caplog):
    """One message, and the answer all the same."""

    def missing(graph, inputs):
        raise FileNotFoundError("no C++ compiler")

    result = [
        generate(backbone("tiny-qwen3"), prompts("tiny-qwen3"), max_new_tokens=4, eos_token_id=(), compile=missing)
        for _ in range(2)
    ]
    assert [one.tokens for one in result] == [plain_rows("tiny-qwen3", prompts("tiny-qwen3"), 4)] * 2
    assert caplog.text.count("cannot be compiled here") == 1


def test_it_needs_a_static_cache():
    from transformers import DynamicCache

    model = backbone("tiny-llama2")
    cache = DynamicCache(config=model.llm.config)
    with torch.no_grad():
        model.llm(torch.tensor(prompts("tiny-llama2")[0].ids[None, :5]), past_key_values=cache, use_cache=True)
    with pytest.raises(GenerationError, match="needs a static cache"):
        generate(model, prompts("tiny-llama2")[0], cache=cache, compile="eager", max_new_tokens=3)
