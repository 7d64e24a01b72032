"""The learner's loss is the plain loss on every family, and accumulation equals the large batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.models import gradients, random_batch, tiny
from vertebra.backbone.head_loss import LossRule
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.data.encode.masked_model import load_masked_lm
from vertebra.errors import ConfigError, SequenceError
from vertebra.sequence.loss import count_items, sequence_loss
from vertebra.training.learner import Learner
from vertebra.training.own_loss import loss_function
from vertebra.training.recipes import read_recipe
from vertebra.training.run import train
from vertebra.training.watching.metrics import METRICS, read
from vertebra.tune.stages import TuneConfig, choose

FAMILIES = ["tiny-llama2", "tiny-gpt2", "tiny-opt", "tiny-phi2", "tiny-gemma2", "tiny-qwen2.5"]


def plain_loss(model, batch, rule=None, shift=True) -> torch.Tensor:
    out = model(**batch, return_loss=False, logits_to_keep=0)
    options = vars(rule or LossRule())
    return sequence_loss(
        out.logits, batch["targets"], batch["weights"], document=batch["document"], shift=shift, **options
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_fused_loss_is_the_plain_one(name: str):
    model = tiny(name).eval()
    batch = random_batch([9, 5])
    rule = LossRule(label_smoothing=0.1, z_loss=1e-3)
    learner = Learner(model, rule=rule).eval()
    assert learner.head is not None
    plain_loss(model, batch, rule).backward()
    expected = gradients(model)
    model.zero_grad()
    loss = learner(**batch)["loss"]
    loss.backward()
    assert torch.allclose(loss, plain_loss(model, batch, rule), atol=1e-6)
    found = gradients(model)
    assert set(found) == set(expected)
    for parameter in found:
        assert torch.allclose(found[parameter], expected[parameter], atol=1e-5), parameter


def test_all_logits_are_never_made(monkeypatch: pytest.MonkeyPatch):
    model = tiny()
    learner = Learner(model)
    made = []
    model.backbone.llm.get_output_embeddings().register_forward_hook(lambda m, i, o: made.append(o.numel()))
    learner(**random_batch([9, 5]))["loss"].backward()
    assert made == [0]


def test_rows_that_an_adapter_trains_are_in_the_head():
    model = tiny()
    grow_vocabulary(model.backbone, ["<ACT>"])
    choose(model, TuneConfig(stage="lora"))
    model.eval()
    for name, parameter in model.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data += 0.3
    batch = random_batch([9, 5])
    batch["input_ids"][0, 3] = batch["targets"][0, 3] = model.backbone.tokenizer.convert_tokens_to_ids("<ACT>")
    batch["weights"][0, 3] = 1.0
    learner = Learner(model).eval()
    assert learner.head is not None
    expected = plain_loss(model, batch)
    expected.backward()
    theirs = gradients(model)
    model.zero_grad()
    found = learner(**batch)["loss"]
    found.backward()
    assert torch.allclose(found, expected, atol=1e-6)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, theirs[name], atol=1e-5), name


@pytest.mark.parametrize("fused", [True, False])
def test_masked_models_do_not_shift(fused: bool):
    model = load_masked_lm("tiny-bert").eval()
    batch = random_batch([9, 5], supervised=0.3)
    learner = Learner(model, shift=False, fused=fused).eval()
    assert (learner.head is not None) == fused
    assert torch.allclose(learner(**batch)["loss"], model(**batch)["loss"], atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("fused", [True, False])
def test_accumulation_equals_the_large_batch(dtype: torch.dtype, bound: float, fused: bool):
    model = tiny(dtype=dtype).eval()
    learner = Learner(model, fused=fused).eval()
    rows = [9, 3, 7, 5, 4, 8, 6, 2]
    whole = random_batch(rows)
    items = count_items(whole)
    loss = learner(**whole, num_items_in_batch=items)["loss"]
    loss.backward()
    large = loss.item()
    expected = gradients(model)
    for sizes in ([1] * 8, [2] * 4, [3, 5]):
        model.zero_grad()
        start, total = 0, 0.0
        for size in sizes:
            part = whole.select(list(range(start, start + size)))
            loss = learner(**part, num_items_in_batch=items)["loss"]
            loss.backward()
            total += loss.item()
            start += size
        assert abs(total - large) < bound
        for name, gradient in gradients(model).items():
            assert (gradient - expected[name]).abs().max() < bound, name


def test_a_batch_without_anything_gives_zero_where_others_have_something():
    model = tiny()
    batch = random_batch([5])
    batch["weights"] = torch.zeros_like(batch["weights"])
    with pytest.raises(SequenceError, match="no supervised position"):
        Learner(model)(**batch)
    loss = Learner(model)(**batch, num_items_in_batch=torch.tensor(7.0))["loss"]
    loss.backward()
    assert loss.item() == 0
    assert all(g.abs().max() == 0 for g in gradients(model).values())


def test_a_target_beyond_the_head():
    model = tiny()
    batch = random_batch([5])
    batch["targets"][0, -1] = 10**6
    with pytest.raises(SequenceError, match="no row of the head"):
        Learner(model)(**batch)


def twice(outputs, batch, num_items) -> torch.Tensor:
    """A loss of one's own."""
    return 2 * sequence_loss(outputs.logits, batch["targets"], batch["weights"], num_items=num_items)


def test_a_loss_of_ones_own():
    model = tiny().eval()
    batch = random_batch([5])
    own = Learner(model, function=loss_function(f"{__name__}:twice"))
    assert torch.allclose(own(**batch)["loss"], 2 * Learner(model)(**batch)["loss"], atol=1e-5)


def test_a_run_by_a_loss_of_ones_own_by_name_and_by_function(tmp_path: Path):
    recipe = Path(__file__).parents[2] / "recipes" / "chat-full.yaml"
    small = ["steps=2", "eval.every=0", "data.limit=8", "watch.samples=[]", "watch.every=1", "optim.lr=0"]

    def losses(folder: Path, *settings: str, **options: Any) -> list[float]:
        train(read_recipe(recipe, [*small, f"out={folder}", *settings]), **options)
        return [row["loss"] for row in read(folder / METRICS) if "loss" in row]

    plain = losses(tmp_path / "plain")
    for found in (
        losses(tmp_path / "function", loss=twice),
        losses(tmp_path / "name", f"loss.function={__name__}:twice"),
    ):
        assert found == pytest.approx([2 * loss for loss in plain], rel=1e-4)
    smooth = losses(tmp_path / "smooth", "loss.label_smoothing=0.1", "loss.z_loss=0.001")
    assert all(abs(a - b) > 1e-3 for a, b in zip(smooth, plain, strict=True))


@pytest.mark.parametrize("name", ["nothing", "no.such:thing", f"{__name__}:FAMILIES", f"{__name__}:none"])
def test_wrong_functions(name: str):
    with pytest.raises(ConfigError, match=r"loss.function"):
        loss_function(name)
