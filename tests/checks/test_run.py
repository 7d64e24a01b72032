"""Every tiny family passes; the backbone is left as it was; selection, skips, guesses and JSON."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from vertebra.backbone.families.models import MODELS, ModelRow
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY, tiny_checkpoint, write_tiny
from vertebra.checks import subject
from vertebra.checks.catalog import CHECKS
from vertebra.checks.policies import OF_POLICIES
from vertebra.checks.precision import computing_in
from vertebra.checks.run import check_backbone, chosen_checks
from vertebra.errors import BackboneError, UnknownNameError
from vertebra.sequence.batch import Batch, collate

LOGITS = ("embeddings", "cached", "left-padded", "batch", "packed")
WINDOWED = {"tiny-mistral", "tiny-phi3", "tiny-gemma2", "tiny-gemma3"}
CHAT = {name for name in TINY if TINY[name].template} - {"tiny-llama2", "tiny-mistral"}  # theirs are OpenVLA's


@pytest.mark.parametrize("name", TINY)
def test_every_tiny_family_passes(name):
    report = check_backbone(load_backbone(name))
    assert report.failed == ()
    assert [result.name for result in report.results] == list(CHECKS)
    skipped = {result.name for result in report.results if result.status == "skip"}
    beyond = {check for check in CHECKS if check.endswith("beyond-window")}
    no_template = set() if name in CHAT else {"chat-template"}
    assert skipped == no_template | (set() if name in WINDOWED else beyond)
    assert report.guesses == {}


def state_of(backbone) -> dict:
    """Everything that somebody might miss afterwards."""
    llm = backbone.llm
    return {
        "weights": {name: (id(t), t.data_ptr(), t.clone()) for name, t in llm.state_dict(keep_vars=True).items()},
        "train": [(name, module.training) for name, module in backbone.named_modules()],
        "grads": [(name, p.requires_grad, p.grad is None) for name, p in backbone.named_parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.modules()],
        "post": [len(p._post_accumulate_grad_hooks or ()) for p in backbone.parameters()],
        "checkpointing": [module.__dict__.get("gradient_checkpointing") for module in backbone.modules()],
        "config": llm.config.to_json_string(use_diff=False),
        "attributes": sorted(llm.config.__dict__),
        "generation": (id(llm.generation_config), llm.generation_config.to_dict()),
        "tokenizer": (id(backbone.tokenizer), backbone.tokenizer.backend_tokenizer.to_str()),
        "pad": (backbone.tokenizer.pad_token_id, backbone.num_rows, len(backbone.growths)),
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
    }


def assert_same_state(before: dict, after: dict) -> None:
    for name, (identity, place, value) in before.pop("weights").items():
        now = after["weights"][name]
        assert (identity, place) == now[:2], name
        assert torch.equal(value, now[2]), name
    after.pop("weights")
    assert after == before


@pytest.mark.parametrize("name", ["tiny-qwen2.5", "tiny-opt", "tiny-phi2"])
def test_the_backbone_is_left_as_it_was(name):
    """Tied, dropout, and a head with a bias; frozen in part, with a gradient that somebody accumulates."""
    backbone = load_backbone(name)
    backbone.layers[0].requires_grad_(False)
    backbone.layers[1].eval()
    kept = torch.ones_like(backbone.llm.get_input_embeddings().weight)
    backbone.llm.get_input_embeddings().weight.grad = kept
    before = state_of(backbone)
    assert check_backbone(backbone).passed
    assert_same_state(before, state_of(backbone))
    assert backbone.llm.get_input_embeddings().weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))


def test_it_is_left_so_when_checks_fail_too(monkeypatch):
    backbone = load_backbone("tiny-qwen2.5")

    def broken(*args, **kwargs):
        raise RuntimeError("a kernel is missing")

    before = state_of(backbone)
    with monkeypatch.context() as broken_meanwhile:
        broken_meanwhile.setattr("vertebra.checks.vocabulary.undo_growth", broken)
        broken_meanwhile.setattr(torch.Tensor, "backward", broken)
        report = check_backbone(backbone)
    assert report.failed == ("growth", "gradients-frozen", "gradients-lora", "gradients-full")
    assert all("a kernel is missing" in r.message for r in report.results if r.status == "fail")
    assert_same_state(before, state_of(backbone))


def test_checkpointing_that_was_on_stays_on():
    backbone = load_backbone("tiny-llama2")
    backbone.enable_gradient_checkpointing()
    before = [m.__dict__.get("_gradient_checkpointing_func") for m in backbone.modules()]
    check_backbone(backbone, only=["gradients-full"])
    assert [m.__dict__.get("_gradient_checkpointing_func") for m in backbone.modules()] == before


def test_a_wide_window_is_narrowed_and_reported(tmp_path, monkeypatch):
    folder = write_tiny("tiny-gemma3", tmp_path / "wide", sliding_window=300, max_position_embeddings=2048)
    backbone = load_backbone(folder)
    lengths = []
    forward = backbone.llm.forward
    monkeypatch.setattr(
        backbone.llm, "forward", lambda **inputs: lengths.append(inputs["input_ids"].shape[1]) or forward(**inputs)
    )
    report = check_backbone(backbone, only=[name for name in CHECKS if name.endswith("beyond-window")])
    assert report.passed
    assert all("beyond a window of 32 (narrowed from 300)" in result.message for result in report.results)
    assert 32 < max(lengths) < 128
    windows = {m.sliding_window for m in backbone.llm.modules() if getattr(m, "sliding_window", None)}
    assert windows == {300}
    assert backbone.llm.config.sliding_window == 300


def test_a_narrowed_window_is_really_looked_at(tmp_path, monkeypatch):
    """The same fault as with a window of 8 is seen."""
    from tests.checks.perturbations import PERTURBATIONS

    folder = write_tiny("tiny-mistral", tmp_path / "wide", sliding_window=300)
    backbone = load_backbone(folder, builder="mistral-instruct")
    PERTURBATIONS["packed-beyond-window"].apply(backbone, monkeypatch)
    assert check_backbone(backbone).failed == ("packed-beyond-window",)


def test_a_window_that_is_never_left(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "LONGEST_WINDOW", 300)
    folder = write_tiny("tiny-mistral", tmp_path / "wide", sliding_window=200)
    report = check_backbone(load_backbone(folder), only=["cached-beyond-window"])
    (result,) = report.results
    assert result.status == "skip"
    assert "512 positions" in result.message


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 6e-2), ("float16", 1e-2), ("float64", 1e-6)])
def test_other_number_types_have_a_bound_of_their_own(dtype, bound):
    report = check_backbone(load_backbone("tiny-llama3", dtype=dtype))
    assert report.passed
    assert report.facts["dtype"] == dtype
    assert subject.TOLERANCE[getattr(torch, dtype)] == bound


def test_what_overflows_in_16_bits_is_seen_in_32():
    """OPT is run in float16. Values a million times as large, and an output that makes them small again."""
    backbone = load_backbone("tiny-opt")
    attention = backbone.layers[0].self_attn
    with torch.no_grad():
        attention.v_proj.weight[0] *= 2.0**20
        attention.v_proj.bias[0] *= 2.0**20
        attention.out_proj.weight[:, 0] /= 2.0**20
    report = check_backbone(backbone, skip=["save-load"])
    assert report.failed == ("half-precision",)
    (row,) = [result for result in report.results if result.name == "half-precision"]
    assert row.number == float("inf")
    assert "`model.decoder.layers.0.self_attn.v_proj`" in row.message
    assert "of float16's largest number" in row.message


@pytest.mark.parametrize("name", ["tiny-llama3", "tiny-gemma3", "tiny-opt-narrow", "tiny-pythia"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_model_run_in_another_type_is_one_loaded_in_it(name, dtype):
    backbone, other = load_backbone(name), load_backbone(name, dtype=dtype)
    ids = torch.arange(5, 25)[None]
    kept = dict(backbone.named_parameters())
    with torch.no_grad():
        with computing_in(backbone.eval().llm, other.dtype):
            found = backbone(input_ids=ids).logits
        expected = other.eval()(input_ids=ids).logits
    assert found.dtype == other.dtype
    assert subject.difference(found, expected) < 5e-2
    if dtype == "float64":
        assert subject.difference(found, expected) < 1e-12
    assert all(parameter is kept[name] for name, parameter in backbone.named_parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_largest_activation_is_the_same_whatever_type_was_loaded(dtype):
    report = check_backbone(load_backbone("tiny-smollm2", dtype=dtype), only=["half-precision"])
    assert report.passed
    assert report.results[0].message == "bfloat16 beside float32; the largest activation is 16, of `model.norm`"


def test_a_template_with_a_default_system_prompt_is_named():
    (row,) = check_backbone(load_backbone("tiny-smollm2"), only=["chat-template"]).results
    assert row.status == "pass"
    assert (
        "without a system prompt the template adds '<|im_start|>system\\nYou are a helpful AI assistant" in row.message
    )
    (row,) = check_backbone(load_backbone("tiny-llama3"), only=["chat-template"]).results
    assert "adds" not in row.message


def test_a_prompt_that_hides_the_end_is_red(monkeypatch):
    """As labels do that are masked by the pad id where pad = eos."""

    def by_pad_id(sequences, *, pad_id, **options):
        batch = collate(sequences, pad_id=pad_id, **options)
        end = batch["input_ids"] == backbone.tokenizer.eos_token_id
        return Batch({**batch, "weights": batch["weights"].masked_fill(end, 0)})

    backbone = load_backbone("tiny-smollm2")
    monkeypatch.setattr("vertebra.checks.prompts.collate", by_pad_id)
    assert check_backbone(backbone).failed == ("answer-ends",)


def test_an_inference_backbone_skips_gradients():
    backbone = load_backbone("tiny-llama2", inference_mode=True, weights=True)
    report = check_backbone(backbone)
    assert report.passed
    skipped = {r.name for r in report.results if r.status == "skip" and "inference" in r.message}
    assert skipped == {"gradients-frozen", "gradients-lora", "gradients-full"}


def test_no_weights_is_an_error():
    with pytest.raises(BackboneError, match="load_weights"):
        check_backbone(load_backbone("tiny-llama2", inference_mode=True))


def test_a_model_of_no_family_shows_its_guesses(tmp_path):
    folder = write_tiny("tiny-llama3", tmp_path / "mine")
    report = check_backbone(load_backbone(folder))
    assert report.failed == ()
    assert report.guesses == {
        "anchor": "bos",
        "pad rule": "the general one: `<|reserved_special_token_0|>`",
        "prompt builder": "template",
        "layer class": "LlamaDecoderLayer at `model.layers`",
        "half-precision type": "bfloat16",
    }


def test_a_model_without_a_prompt_format_is_not_red(monkeypatch):
    folder = str(tiny_checkpoint("tiny-mistral"))
    monkeypatch.setitem(MODELS, "mistral-unheard-of", ModelRow("mistral-unheard-of", "mistral", folder))
    report = check_backbone(load_backbone("mistral-unheard-of"), only=["bos", "prompt-ids"])
    assert [result.status for result in report.results] == ["pass", "skip"]


def test_selection():
    assert [check.name for check in chosen_checks(only=["packed", "bos"])] == ["bos", "packed"]
    left = [check.name for check in chosen_checks(skip=["gradients-full"])]
    assert left == [name for name in (*CHECKS, *OF_POLICIES) if name != "gradients-full"]
    started = []
    check_backbone(load_backbone("tiny-gpt2"), only=["pad", "bos"], on_start=lambda *reported: started.append(reported))
    assert started == [("bos", 1, 2), ("pad", 2, 2)]


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_typo_offers_the_nearest(option):
    with pytest.raises(UnknownNameError, match="`left-padded`"):
        chosen_checks(**{option: ["left-paded"]})


def test_nan_weights_are_red():
    backbone = load_backbone("tiny-llama2")
    with torch.no_grad():
        backbone.llm.model.norm.weight[0] = float("nan")
    report = check_backbone(backbone, only=[*LOGITS, "save-load", "gradients-full"])
    assert set(report.failed) == {*LOGITS, "save-load", "gradients-full"}
    assert json.loads(json.dumps(report.to_json()))["checks"][0]["number"] == "inf"


def test_json():
    report = check_backbone(load_backbone("tiny-gemma2"), only=["bos", "cached-beyond-window"])
    data = json.loads(json.dumps(report.to_json()))
    assert data["model"] == "tiny-gemma2"
    assert data["passed"] is True
    assert data["facts"]["window"] == 8
    assert data["facts"]["attention"] == "eager"
    bos, beyond = data["checks"]
    assert (bos["name"], bos["status"], bos["number"], bos["bound"]) == ("bos", "pass", 1, "= 1")
    assert 0 <= beyond["number"] < 1e-5
    assert beyond["bound"] == "≤ 1.0e-04"
