"""Every way to logits and losses gives the stock model's own: a cap, a scale, a bias, new rows, and a head unknown to us.

All logits by decoding, allowed rows, chosen positions, the compiled step, the loss with its gradients.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

from tests.training.models import gradients, random_batch
from vertebra.backbone.head import head_behind_body, head_of
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.shallow import with_first_layer
from vertebra.backbone.tiny import TINY, write_tiny
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedIds
from vertebra.model.model import Model
from vertebra.sequence.loss import sequence_loss
from vertebra.sequence.tokens import TokenSequence
from vertebra.training.learner import Learner
from vertebra.tune.lora import peft_quiet
from vertebra.tune.stages import TuneConfig, choose

IDS = [*range(5, 20)]
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 256, "initializer_range": 0.4,
}  # fmt: skip


def scaled(folder: Path, cls: Any, config: Any, **options: Any) -> Model:
    """A model of a family that is in no table, beside the words of LLaMA-2."""
    write_tiny("tiny-llama2", folder)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    for weights in (*folder.glob("*.safetensors*"), folder / "vertebra.json"):
        weights.unlink(missing_ok=True)
    torch.manual_seed(0)
    cls(config(**{**SIZES, "vocab_size": vocabulary, **options})).save_pretrained(folder)
    model = Model(load_backbone(folder, dtype="float32"))
    model.backbone.llm.__class__ = cls
    return model


def from_table(name: str) -> Model:
    return Model(load_backbone(name, dtype="float32"))


def bias(folder: Path) -> Model:
    model = from_table("tiny-phi2")
    with torch.no_grad():
        torch.nn.init.normal_(model.backbone.llm.lm_head.bias, generator=torch.Generator().manual_seed(1))
    return model


def new_rows(folder: Path) -> Model:
    """LoRA, and rows of new tokens that have learned something, on a head with a bias."""
    model = bias(folder)
    grow_vocabulary(model.backbone, ["<ACT>"])
    choose(model, TuneConfig(stage="lora"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name or "lora_B" in name:
                parameter += 0.1
    return model


def hooked(folder: Path) -> Model:
    """The head's own module does more than its matrix."""
    model = from_table("tiny-llama2")
    model.backbone.llm.lm_head.register_forward_hook(lambda module, inputs, out: out.abs().sqrt() * out.sign())
    return model


class Louder(GraniteForCausalLM):
    """Does what no config says."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = 3 * out.logits + 1
        return out


HEADS: dict[str, Callable[[Path], Model]] = {
    "cap": lambda folder: from_table("tiny-gemma2"),
    "cohere": lambda folder: scaled(folder, CohereForCausalLM, CohereConfig, logit_scale=0.0625),
    "granite": lambda folder: scaled(folder, GraniteForCausalLM, GraniteConfig, logits_scaling=6.0),
    "bias": bias,
    "new rows": new_rows,
    "hooked": hooked,
    "unknown": lambda folder: scaled(folder, Louder, GraniteConfig),
}


@pytest.fixture(scope="module", params=HEADS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    made = HEADS[request.param](tmp_path_factory.mktemp("head") / "model").eval()
    made.head_name = request.param
    return made


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()


def stock(model: Model, ids: list[int]) -> torch.Tensor:
    """[L, V]: logits by the model's own forward, detached."""
    with torch.no_grad():
        return model.backbone.llm(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(
        found.float(), expected, atol=1e-5 * float(expected.abs().max()), rtol=0
    )


def test_one_probe_decides(model):
    known, plain = model.head_name != "unknown", model.head_name not in ("unknown", "hooked")
    for found in (head_of(model.backbone.llm), head_behind_body(model.backbone.llm)):
        assert (found is not None) == known
        assert found is None or found.plain == plain
    assert (Learner(model).head is not None) == plain


@pytest.mark.parametrize("compiled", [None, "eager"], ids=["steps", "compiled"])
def test_decoding_all_logits(model, compiled):
    result = generate(
        model.backbone, TokenSequence.of(IDS), max_new_tokens=4, eos_token_id=(), output_logits=True, compile=compiled
    )
    answer = result.tokens[0]
    expected = stock(model, [*IDS, *answer])
    for step, logits in enumerate(result.logits):
        assert same(logits[0], expected[len(IDS) - 1 + step])
    assert answer == expected[len(IDS) - 1 : -1].argmax(-1).tolist()


@pytest.mark.parametrize("compiled", [None, "eager"], ids=["steps", "compiled"])
def test_allowed_rows(model, compiled):
    allowed = list(range(40, 90))
    result = generate(
        model.backbone,
        TokenSequence.of(IDS),
        max_new_tokens=4,
        eos_token_id=(),
        constraint=AllowedIds(allowed),
        compile=compiled,
    )
    answer = result.tokens[0]
    expected = stock(model, [*IDS, *answer])[len(IDS) - 1 : -1, allowed]
    assert answer == [allowed[best] for best in expected.argmax(-1).tolist()]


def test_rows_and_all_rows_of_the_head(model):
    llm, ids = model.backbone.llm, torch.tensor([90, 7, 41])
    head = head_behind_body(llm)
    if head is None:
        assert model.head_name == "unknown"
        return
    with torch.no_grad():
        hidden = llm.base_model(input_ids=torch.tensor([IDS])).last_hidden_state[0]
        assert same(head(hidden), stock(model, IDS))
        assert same(head(hidden, head.rows(ids)), stock(model, IDS)[:, ids])


def test_chosen_positions(model):
    batch = random_batch([9, 5])
    rows, columns = torch.tensor([0, 1, 0]), torch.tensor([8, 2, 3])
    with torch.no_grad():
        whole = model(**batch, return_loss=False, logits_to_keep=0).logits
        found = model(**batch, return_loss=False, positions=(rows, columns)).logits
    assert same(found, whole[rows, columns])
    assert same(whole[0], stock(model, batch["input_ids"][0].tolist()))


def test_loss_and_gradients(model):
    batch = random_batch([9, 5])
    model.zero_grad()
    out = model.backbone.llm(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    expected = sequence_loss(out.logits, batch["targets"], batch["weights"], document=batch["document"])
    expected.backward()
    theirs = gradients(model)
    model.zero_grad()
    found = Learner(model).eval()(**batch)["loss"]
    found.backward()
    assert torch.allclose(found, expected, atol=1e-5)
    ours = gradients(model)
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * max(1.0, float(gradient.abs().max()))), name


def test_the_probe_through_one_layer_leaves_the_model_as_it_was(model):
    llm = model.backbone.llm
    layers, hooks, before = llm.base_model.layers if hasattr(llm.base_model, "layers") else None, {}, stock(model, IDS)
    hooks = {name: len(module._forward_hooks) for name, module in llm.named_modules()}
    shallow = with_first_layer(llm)
    head_behind_body(llm)
    assert torch.equal(stock(model, IDS), before)
    assert {name: len(module._forward_hooks) for name, module in llm.named_modules()} == hooks
    if shallow is not None:
        assert llm.base_model.layers is layers
        assert len(shallow.base_model.layers) == 1 < len(layers)
        assert shallow.get_output_embeddings() is llm.get_output_embeddings()


@pytest.mark.parametrize("name", sorted(TINY))
def test_one_layer_shows_the_same_head_as_all(name, monkeypatch):
    """The slow twin runs every layer."""
    llm = from_table(name).eval().backbone.llm
    found = head_behind_body(llm)
    monkeypatch.setattr("vertebra.backbone.head.with_first_layer", lambda llm: None)
    expected = head_behind_body(llm)
    assert (found is None) == (expected is None)
    if found is not None:
        assert (found.form, found.plain, found.module) == (expected.form, expected.plain, expected.module)


def test_most_families_are_shown_by_one_layer():
    shown = [name for name in TINY if with_first_layer(from_table(name).backbone.llm) is not None]
    assert len(shown) >= len(TINY) - 4, shown


def test_an_adapter_that_comes_after_the_first_answer():
    """What was made ready for decoding is of the model as it was."""
    backbone = load_backbone("tiny-phi2", inference_mode=True, weights=True, dtype="float32")
    grow_vocabulary(backbone, ["<ACT>"])
    options: dict[str, Any] = {"max_new_tokens": 1, "eos_token_id": (), "output_logits": True}
    before = generate(backbone, TokenSequence.of(IDS), **options).logits[0]
    choose(backbone, TuneConfig(stage="lora"))
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter += 0.5
    backbone.eval()
    after = generate(backbone, TokenSequence.of(IDS), **options).logits[0]
    assert not torch.equal(before, after)
    assert same(after[0], stock(Model(backbone), IDS)[-1])


def test_a_probe_leaves_every_module_in_its_mode():
    model = from_table("tiny-llama2").train()
    model.backbone.llm.model.layers[0].eval()
    head_of(model.backbone.llm)
    assert model.backbone.llm.training
    assert not model.backbone.llm.model.layers[0].training


def test_a_lora_on_the_head_is_more_than_its_matrix():
    """Its start is the matrix alone, so that no probe could tell the two apart."""
    import peft

    model = from_table("tiny-llama2")
    config = peft.LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM")
    with peft_quiet():
        peft.get_peft_model(model.backbone.llm, config)
    head = head_of(model.backbone.llm)
    assert head is not None
    assert not head.plain
    assert head.rows(torch.tensor([3])).weight is None
    assert Learner(model).head is None
