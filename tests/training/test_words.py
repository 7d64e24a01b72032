"""Stage `words`: slots learn to be words, and no language model runs."""

import pytest
import torch

from tests.training.models import config
from vertebra.errors import ConfigError, SequenceError
from vertebra.training.building import build_model
from vertebra.training.data import build_data
from vertebra.training.run import train
from vertebra.training.words import WordLearner
from vertebra.tune.stages import TuneConfig, choose


def look(**changes):
    image = {"encoder": "patches", "image_size": 32}
    return config(
        model__image=image, model__backbone="tiny-smollm2", data__kind="look", data__count=16, data__path=None,
        data__held_out=0.2, data__block=160, tune__stage="words", **{
            "data__options": {"questions": 0, "slots": 1.0, "asked": 2}, "steps": 3, **changes,
        },
    )  # fmt: skip


def prepared(run):
    model = build_model(run)
    choose(model, run.tune)
    batch = next(iter(build_data(run, model).loader(2, rank=0, world=1)))
    return model, batch


def test_the_loss_is_the_distance_to_the_words_of_the_slots():
    model, batch = prepared(look())
    found = WordLearner(model)(**batch)["loss"]
    table, embeds = model.backbone.llm.get_input_embeddings().weight, model.embed(batch)
    summed = weight = 0.0
    for row in range(batch.rows):
        for column in range(batch.length - 1):
            counts = float(batch["weights"][row, column + 1])
            same = batch["document"][row, column] == batch["document"][row, column + 1]
            if batch["slot"][row, column, 0] >= 0 and counts and same:
                word = table[batch["targets"][row, column + 1]]
                summed = summed + counts * (embeds[row, column] - word).square().mean()
                weight += counts
    assert weight > 10
    size = WordLearner(model).size
    torch.testing.assert_close(found, summed / weight / size)
    items = torch.tensor(7.0)
    torch.testing.assert_close(WordLearner(model)(**batch, num_items_in_batch=items)["loss"], summed / 7 / size)


def test_no_language_model_runs_and_the_projector_alone_learns(monkeypatch):
    run = look()
    model, batch = prepared(run)
    monkeypatch.setattr(type(model.backbone.llm), "forward", lambda *a, **k: pytest.fail("the language model ran"))
    learner = WordLearner(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(30):
        loss = learner(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    trains = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trains == {"projector", "encoder"}  # patches come without knowledge, and learn with the projector


def test_a_run_resumes_to_the_same_bit(tmp_path):
    whole = train(look(out=str(tmp_path / "whole"), steps=4, save__every=2))
    half = look(out=str(tmp_path / "half"), steps=4, save__every=2)
    train(half)
    for late in (tmp_path / "half").glob("checkpoints/*4"):
        for file in sorted(late.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        late.rmdir()
    again = train(half, resume=True)
    files = [next((outcome.model).glob("model*.safetensors")).read_bytes() for outcome in (whole, again)]
    assert files[0] == files[1]


def test_slots_without_targets_are_refused():
    model, batch = prepared(look(data__options={"asked": 2}))
    learner = WordLearner(model)
    with pytest.raises(SequenceError, match="no slot of this batch has one"):
        learner(**batch)


def test_what_has_no_effect_is_refused():
    for changes in ({"cache__layers": True}, {"parallel__kind": "fsdp"}, {"loss__label_smoothing": 0.1}):
        with pytest.raises(ConfigError, match="runs no language model"):
            look(**changes)
    with pytest.raises(ConfigError, match="this model has no projector"):
        choose(build_model(config()), TuneConfig(stage="words"))
