"""The fused step beside the stock modules: the same numbers on every LLaMA-like family, and none of it anywhere else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from vertebra import TokenSequence, generate, load_backbone
from vertebra.backbone import TINY
from vertebra.decode import prefill
from vertebra.decode.state import fused, products
from vertebra.decode.state.language import Language, language_of
from vertebra.tune import LoraConfig, TuneConfig, choose

LLAMA_LIKE = [
    "tiny-llama2", "tiny-llama3", "tiny-mistral", "tiny-qwen2", "tiny-qwen2.5", "tiny-qwen3", "tiny-smollm2",
    "tiny-smollm3",
]  # fmt: skip
LENGTHS = (9, 3, 14)
WAYS = ["torch", "onednn", "packed"]


def load(name: str, **options):
    return load_backbone(name, inference_mode=True, weights=True, **options)


def prompts() -> list[TokenSequence]:
    draw = torch.Generator().manual_seed(5)
    return [TokenSequence.of(torch.randint(5, 250, (length,), generator=draw).tolist()) for length in LENGTHS]


def fused_of(backbone) -> fused.FusedStep:
    """The step that is taken, and not merely there."""
    step = language_of(backbone).fused
    assert step is not None
    assert step.free()
    return step


@pytest.fixture
def way(request, monkeypatch):
    """Multiply so, whatever would be fastest here; tiny models are otherwise multiplied by torch."""
    weight = torch.ones(8, 8, dtype=torch.float32)
    if request.param != "torch" and request.param not in products._possible([weight], 0):
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(products, "fastest", lambda weights, total: request.param)
    return request.param


@pytest.fixture
def stock(monkeypatch):
    """Let every step run by the model's own modules, from here on."""

    def off() -> None:
        monkeypatch.setattr(Language, "fused", property(lambda self: None))

    return off


def steps(backbone, count: int, prompt=None) -> list[torch.Tensor]:
    """Logits of `count` steps, fed with tokens that do not depend on them."""
    state = prefill(backbone, prompts() if prompt is None else prompt)
    tokens = torch.randint(5, 250, (count, state.rows), generator=torch.Generator().manual_seed(9))
    return [state.step(row).clone() for row in tokens]


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_every_step_has_the_logits_of_the_stock_modules(name, way, attn, stock):
    backbone = load(name, attn=attn)
    found = steps(backbone, 70)  # beyond the windows of the tiny checkpoints, and beyond the first buffer of the cache
    assert fused_of(backbone).way == way
    stock()
    for number, (ours, theirs) in enumerate(zip(found, steps(backbone, 70), strict=True)):
        bound = 1e-5 * float(theirs.abs().max())
        assert float((ours - theirs).abs().max()) <= bound, number


@pytest.mark.parametrize("name", sorted(set(TINY) - set(LLAMA_LIKE)))
def test_other_models_keep_their_modules(name):
    assert language_of(load(name)).fused is None


@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_answers_are_the_same_tokens(name, stock):
    backbone = load(name)
    ours = generate(backbone, prompts(), max_new_tokens=40)
    stock()
    theirs = generate(backbone, prompts(), max_new_tokens=40)
    assert ours.tokens == theirs.tokens


def test_allowed_rows_and_states_are_those_of_the_stock_step(stock):
    from vertebra.decode import AllowedIds

    backbone = load("tiny-qwen2.5")
    ours = generate(backbone, prompts(), max_new_tokens=20, constraint=AllowedIds(range(40, 90)))
    stock()
    theirs = generate(backbone, prompts(), max_new_tokens=20, constraint=AllowedIds(range(40, 90)))
    assert ours.tokens == theirs.tokens


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_in_16_bits_it_is_within_their_rounding(way, stock):
    if way != "torch" and way not in products._possible([torch.ones(8, 8, dtype=torch.bfloat16)], 0):
        pytest.skip("oneDNN has no 16 bits on this processor")
    backbone = load("tiny-llama2", dtype="bfloat16")
    found = steps(backbone, 20)
    assert fused_of(backbone).way == way
    stock()
    for ours, theirs in zip(found, steps(backbone, 20), strict=True):
        assert float((ours - theirs).abs().max()) <= 4e-2 * float(theirs.abs().max())


def test_whoever_hangs_on_a_module_is_not_passed_by():
    backbone = load("tiny-llama2")
    plain = steps(backbone, 3)
    seen = []
    layer = backbone.llm.model.layers[1].mlp
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(1))
    hooked = steps(backbone, 3)
    handle.remove()
    assert len(seen) == 4  # the prompt, and each step
    for ours, theirs in zip(plain, hooked, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    steps(backbone, 1)
    assert len(seen) == 4


def test_hidden_states_that_were_once_asked_for_do_not_hang_on():
    """transformers leaves its hooks on every layer, where they do nothing until it is asked again."""
    backbone = load("tiny-llama2")
    generate(backbone, prompts(), max_new_tokens=3, output_hidden_states=True)
    assert any(layer._forward_hooks for layer in backbone.layers)
    assert fused_of(backbone).free()


@pytest.mark.parametrize("way", ["onednn"], indirect=True)
def test_the_prompts_pass_is_multiplied_so_too(way, monkeypatch):
    backbone, plain = load("tiny-llama2"), load("tiny-llama2")
    found = prefill(backbone, prompts()).logits
    monkeypatch.setattr(products, "fastest", lambda weights, total: "torch")
    torch.testing.assert_close(found, prefill(plain, prompts()).logits, rtol=1e-5, atol=1e-5)
    assert (language_of(backbone).way, language_of(plain).way) == ("onednn", "torch")


def test_the_first_token_in_sixteen_bits_waits_for_no_trial(monkeypatch):
    """Nothing of the prompt's pass depends on it there; the first step after it is the first to ask."""
    tried = []
    monkeypatch.setattr(products, "fastest", lambda weights, total: tried.append(total) or "torch")
    backbone = load("tiny-llama2", dtype="bfloat16")
    generate(backbone, prompts(), max_new_tokens=1, eos_token_id=())
    assert not tried
    generate(backbone, prompts(), max_new_tokens=2, eos_token_id=())
    assert len(tried) == 1


@pytest.mark.parametrize("change", [lambda weight: weight.mul_(1.5), lambda weight: weight.data.mul_(1.5)])
@pytest.mark.parametrize("module", ["model.layers.1.self_attn.k_proj", "model.layers.0.mlp.down_proj", "lm_head"])
@pytest.mark.parametrize("way", ["packed"], indirect=True)
def test_packed_weights_that_change_are_packed_again(way, module, change, stock):
    backbone = load("tiny-llama2")
    before = steps(backbone, 2)[-1]
    with torch.no_grad():
        change(backbone.llm.get_submodule(module).weight)
    changed = steps(backbone, 2)[-1]
    assert not torch.allclose(before, changed)
    fused_of(backbone)
    stock()
    torch.testing.assert_close(changed, steps(backbone, 2)[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_changed_weights_count_at_once(way):
    """In place, as an optimizer writes them, and replaced, as a loader does."""
    backbone = load("tiny-llama2")
    before = steps(backbone, 2)[-1]
    with torch.no_grad():
        backbone.llm.model.layers[0].self_attn.k_proj.weight.mul_(1.5)
    changed = steps(backbone, 2)[-1]
    assert not torch.allclose(before, changed)
    weight = backbone.llm.model.layers[0].self_attn.k_proj.weight
    weight.data = weight.data / 1.5
    torch.testing.assert_close(steps(backbone, 2)[-1], before, rtol=1e-5, atol=1e-5)


def test_what_is_saved_is_what_was_loaded(tmp_path):
    backbone = load("tiny-qwen3")
    kept = {name: tensor.clone() for name, tensor in backbone.llm.state_dict().items()}
    steps(backbone, 2)
    fused_of(backbone)
    again = AutoModelForCausalLM.from_pretrained(backbone.save(tmp_path / "saved"))
    for name, tensor in kept.items():
        assert torch.equal(again.state_dict()[name], tensor), name
    twin = copy.deepcopy(backbone.llm)
    assert all(torch.equal(twin.state_dict()[name], tensor) for name, tensor in kept.items())


def test_the_model_can_be_trained_afterwards():
    backbone = load("tiny-smollm2")
    steps(backbone, 2)
    ids = torch.arange(5, 25)[None]
    backbone.llm(input_ids=ids, labels=ids).loss.backward()
    projections = [layer.self_attn.q_proj.weight for layer in backbone.llm.model.layers]
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in projections)


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_a_model_may_be_loaded_under_inference_mode(way):
    expected = generate(load("tiny-llama2"), prompts(), max_new_tokens=5).tokens
    with torch.inference_mode():
        backbone = load("tiny-llama2")
        assert backbone.llm.lm_head.weight.is_inference()
        assert generate(backbone, prompts(), max_new_tokens=5).tokens == expected
    fused_of(backbone)
    assert generate(backbone, prompts(), max_new_tokens=5).tokens == expected


def test_a_model_with_an_adapter_keeps_its_modules():
    backbone = load("tiny-llama2")
    choose(backbone, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    backbone.eval()
    assert language_of(backbone).fused is None


class Quantized(torch.Tensor):
    """What torchao puts into ordinary linears is a tensor of its own kind."""


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj", "lm_head"])
def test_a_model_with_other_tensors_in_its_linears_keeps_them(name):
    backbone = load("tiny-llama2")
    module = backbone.llm.get_submodule(name)
    weight = module.weight.data.as_subclass(Quantized)
    module.weight = nn.Parameter(weight, requires_grad=False)
    assert type(module.weight) is Quantized
    step = language_of(backbone).fused
    assert step is None if "layers" in name else step.logits(torch.ones(1, 64)) is None
    assert products.way_of(backbone.llm) == "torch"


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral"])
def test_a_prompt_of_one_token_is_a_step(name, stock):
    backbone = load(name)
    ran = []
    step = fused_of(backbone).run
    fused_of(backbone).run = lambda *args: ran.append(1) or step(*args)
    first = TokenSequence.of([9])
    found = [generate(backbone, first, max_new_tokens=n, output_logits=True).logits for n in (1, 3)]
    assert len(ran) == 1 + 3
    stock()
    for ours in found:
        theirs = generate(backbone, first, max_new_tokens=len(ours), output_logits=True).logits
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_one_row_and_many_forks(stock):
    backbone = load("tiny-llama3")
    ours = prefill(backbone, prompts()[:1]).fork([0, 0, 0])
    tokens = torch.tensor([7, 11, 13])
    found = [ours.step(tokens + number).clone() for number in range(10)]
    stock()
    theirs = prefill(backbone, prompts()[:1]).fork([0, 0, 0])
    for number, logits in enumerate(found):
        torch.testing.assert_close(logits, theirs.step(tokens + number), rtol=1e-5, atol=1e-5)
