"""The Hugging Face `Trainer` trains, saves, resumes and reloads a model as it is: tied heads, frozen backbone, evaluation."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from tests.model.models import batch_of, build, page_row, text_row
from vertebra.model.folder import ModelFiles
from vertebra.model.model import Model
from vertebra.sequence.loss import count_items


class Rows(Dataset):
    """Pages and plain text in turn."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int):
        return page_row(index, images=1 + index % 2) if index % 3 else text_row(6, index)


def trainer_of(model, folder, **options) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, max_steps=4, save_steps=2, logging_steps=1,
        learning_rate=1e-3, report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
        seed=3, **options,
    )  # fmt: skip
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=Rows(),
        eval_dataset=Rows(),
        data_collator=lambda rows: batch_of(model, rows),
        processing_class=ModelFiles(model),
    )


def logits_of(model):
    batch = batch_of(model, [page_row(0), text_row()])
    with torch.no_grad():
        return model.eval()(**batch, return_loss=False).logits[batch.attention_mask.bool()]


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5"])
def test_trains_saves_and_reloads(name, tmp_path):
    model = build(name, seed=1)
    trainer = trainer_of(model, tmp_path)
    before = logits_of(model)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4
    after = logits_of(model)
    assert not torch.equal(after, before)
    checkpoint = tmp_path / "checkpoint-4"
    assert torch.equal(logits_of(Model.load(checkpoint)), after)
    trainer.save_model(str(tmp_path / "last"))
    assert torch.equal(logits_of(Model.load(tmp_path / "last", inference_mode=True)), after)
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    assert config.get("use_cache", True) is True  # training ran without a cache, and the folder does not say so


def test_resumes_to_the_same_weights(tmp_path):
    whole = build("tiny-qwen2.5", seed=1)
    trainer_of(whole, tmp_path / "a").train()
    again = build("tiny-qwen2.5", seed=2)
    trainer_of(again, tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert torch.equal(logits_of(again), logits_of(whole))


def test_with_checkpointing_beneath_a_frozen_backbone(tmp_path):
    model = build(towers=True, seed=1)
    model.backbone.llm.requires_grad_(False)
    frozen = {name: p.clone() for name, p in model.backbone.named_parameters()}
    parts = {name: p.clone() for name, p in model.parts.named_parameters()}
    names = {field.name for field in fields(TrainingArguments)}
    asked = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    trainer_of(model, tmp_path, weight_decay=0.0, **{asked: True}).train()
    assert all(torch.equal(p, frozen[name]) for name, p in model.backbone.named_parameters())
    moved = {name for name, p in model.parts.named_parameters() if not torch.equal(p, parts[name])}
    assert {
        "image.encoder.towers.0.embeddings.cls_token",
        "image.projector.fc1.weight",
        "boxes.encoder.x.weight",
    } <= moved


def test_evaluates(tmp_path):
    model = build(seed=1)
    trainer = trainer_of(model, tmp_path, per_device_eval_batch_size=8)
    found = trainer.evaluate()["eval_loss"]
    with torch.no_grad():
        batch = batch_of(model, [Rows()[index] for index in range(8)])
        assert found == pytest.approx(float(model(**batch).loss), rel=1e-5)


def test_a_count_of_items_makes_accumulation_exact():
    """Two micro-batches of unequal weight, divided by their common count, are the one large batch."""
    model = build(seed=1).eval()
    rows = [page_row(1), text_row(), page_row(3, images=2)]
    model(**batch_of(model, rows)).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total = count_items(batch_of(model, rows))
    for part in (rows[:1], rows[1:]):
        model(**batch_of(model, part), num_items_in_batch=total).loss.backward()
    for name, gradient in expected.items():
        assert torch.allclose(dict(model.named_parameters())[name].grad, gradient, atol=1e-5, rtol=1e-4)
