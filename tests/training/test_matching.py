"""New weights that match: equal tokens find each other before anything is learned, whatever the grouping of heads."""

from __future__ import annotations

import pytest
import torch

from vertebra.errors import ConfigError
from vertebra.training.building import build_late, build_model
from vertebra.training.matching import FAR, HANDED_ON, match
from vertebra.training.recipes import read_recipe

RECIPE = "receipts-drawn"
WIDE = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}


def built(**model):
    settings = [f"model.{name}={value}" for name, value in model.items()]
    return build_model(read_recipe(RECIPE, ["data.count=8", *settings])).eval()


def looks(model, ids):
    """[heads, L, L]: where the first layer looks."""
    llm = model.backbone.llm
    llm.set_attn_implementation("eager")
    with torch.no_grad():
        return llm(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions[0][0]


def found(model, repeats: int = 40) -> float:
    """How often the last token looks most at the one place, among forty, where the same token stands."""
    draw = torch.Generator().manual_seed(1)
    right = 0
    for _ in range(repeats):
        ids = (torch.randperm(700, generator=draw)[:40] + 20).tolist()
        at = int(torch.randint(40, (1,), generator=draw))
        seen = looks(model, [*ids, ids[at]]).mean(0)[-1, :-1]  # itself left out
        right += int(seen.argmax()) == at
    return right / repeats


def test_equal_tokens_find_each_other_before_anything_is_learned():
    assert found(built(init="matching")) > 0.5
    assert found(built(init="own")) < 0.2, "chance is one in forty"


def test_it_does_not_see_itself_first():
    """Of two equal tokens far apart, the later one looks at the other no less than at itself."""
    model = built(init="matching")
    ids = torch.randperm(700, generator=torch.Generator().manual_seed(2))[:60].tolist()
    seen = looks(model, [300, *ids, 300])[:, -1]
    assert float(seen[:, 0].sum()) > float(seen[:, -1].sum())


def test_what_is_seen_is_handed_on():
    """W_o W_v is a multiple of one, all heads together."""
    attention = built(init="matching").backbone.llm.model.layers[1].self_attn
    product = attention.o_proj.weight @ attention.v_proj.weight
    torch.testing.assert_close(product, HANDED_ON * torch.eye(len(product)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("groups", [1, 2])
def test_heads_that_share_keys_share_queries(groups: int):
    model = built(init="matching", overrides={**WIDE, "num_key_value_heads": groups})
    attention = model.backbone.llm.model.layers[0].self_attn
    size = attention.head_dim
    queries = attention.q_proj.weight.view(groups, 4 // groups, size, 96)
    keys = attention.k_proj.weight.view(groups, 1, size, 96)
    slow = torch.arange(size) % (size // 2) >= size // 2 * (1 - FAR)
    assert torch.equal(queries[:, :, slow], keys[:, :, slow].expand(-1, 4 // groups, -1, -1))
    assert torch.equal(queries[:, :, ~slow], -keys[:, :, ~slow].expand(-1, 4 // groups, -1, -1))
    product = attention.o_proj.weight @ attention.v_proj.weight.view(groups, 1, size, 96).expand(
        -1, 4 // groups, -1, -1
    ).reshape(-1, 96)
    assert torch.linalg.matrix_rank(product) == groups * size
    torch.testing.assert_close(torch.trace(product), torch.tensor(HANDED_ON * groups * size), rtol=1e-4, atol=0)


def test_it_is_a_function_of_the_seed_and_nothing_waits():
    one, other = built(init="matching"), built(init="matching")
    late, waiting = build_late(read_recipe(RECIPE, ["data.count=8", "model.init=matching"]))
    assert not waiting
    for (name, a), b, c in zip(one.named_parameters(), other.parameters(), late.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c), name
    another = build_model(read_recipe(RECIPE, ["data.count=8", "model.init=matching", "seed=1"]))
    here, there = (m.backbone.llm.model.layers[0].self_attn.v_proj.weight for m in (one, another))
    assert not torch.equal(here, there)


def test_layers_of_another_make_are_refused():
    with pytest.raises(ConfigError, match=r"model\.init=matching writes q_proj.*GPT2"):
        built(init="matching", backbone="tiny-gpt2", overrides="{}")
    with pytest.raises(ConfigError, match=r"model\.scratch=true"):
        read_recipe(RECIPE, ["model.init=matching", "model.scratch=false"])
    with pytest.raises(ConfigError, match=r"model\.init"):
        read_recipe("masked-lm", ["model.init=matching"])


def test_llama_alone_is_enough():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    llm = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    )
    before = llm.model.layers[0].mlp.down_proj.weight.detach().clone()
    match(llm, seed=0)
    after = llm.model.layers[0].mlp.down_proj.weight.detach()
    assert 0 < float(after.norm()) < float(before.norm())
