"""The four ways to answer with actions: what they put into a sequence and a batch, and what they read out of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vertebra.action.record import ActionRecord
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.data.model_facts import ModelFacts
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.fresh import new_part, new_queries
from vertebra.model.model import Model
from vertebra.sequence.roles import VALUE_TARGET
from vertebra.tasks.acting import WAYS, acting, slots_of
from vertebra.tasks.chain import read_data
from vertebra.tasks.config import DataConfig
from vertebra.tasks.squares import SIZE, TOKENS, Reach, Squares, actions_of, shown, success, way_of
from vertebra.tasks.task import Job
from vertebra.training.learner import Learner

CHUNK = 3


def policy(way: str, name: str = "tiny-llama2", **settings: Any) -> tuple[Model, DataConfig]:
    """A model with whatever the task gives it, and the data."""
    data = DataConfig(kind="squares", count=12, head=way, chunk=CHUNK, **settings)  # type: ignore[arg-type]
    backbone, task = load_backbone(name, dtype="float32"), Reach()
    grow_vocabulary(backbone, list(TOKENS))
    torch.manual_seed(0)
    parts: dict[str, Any] = {"image": new_part(backbone, PatchEncoder(8, image_size=SIZE, patch_size=16))}
    parts |= {segment: new_queries(backbone, count) for segment, count in task.queries(data).items()}
    heads: Any = task.heads(data, backbone)
    return Model(backbone, parts, heads=heads, record=task.record(data, backbone)), data


def squares_of(model: Model, data: DataConfig, count: int = 6) -> Squares:
    return Squares(model, count, seed=3, way=way_of(data))


def supervised(squares: Squares, number: int) -> Any:
    """The targets of an answer's actions, and what the batch brings of them."""
    sequence = squares.sequence(number)
    at = slots_of(sequence, "action")
    if squares.way.name == "tokens":
        at = np.flatnonzero(np.isin(sequence.ids, squares.bins.allowed))
    assert (sequence.weight[at] == 1).all()
    return sequence.target[at], squares.extra(number).get("action")


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_says_the_actions(way: str):
    model, data = policy(way)
    squares = squares_of(model, data)
    for number, episode in enumerate(squares.episodes):
        actions = episode.actions(CHUNK)
        targets, items = supervised(squares, number)
        if way in ("tokens", "parallel"):
            assert items is None
            assert targets.tolist() == squares.bins.encode(actions).ravel().tolist()
        else:
            assert (targets == VALUE_TARGET).all()
            assert len(targets) == (1 if way == "flow" else 2 * CHUNK)
            assert items.dtype == np.float32
            assert np.allclose(items[0], actions)
        opened, whole = squares.prompt(number), squares.sequence(number)
        assert np.array_equal(opened.ids, whole.ids[: len(opened)])
        assert len(slots_of(opened, "action")) == squares.way.slots
        assert not set(opened.ids.tolist()) & set(squares.bins.allowed), "the answer is not in the prompt"


@torch.no_grad()
def plain_actions(model: Model, squares: Squares, number: int) -> np.ndarray:
    """One episode alone, by whole forwards."""
    batch = next(iter(loader(model, squares, [number], opened=True)))
    bins, count = torch.tensor(squares.bins.ids.tolist()), 2 * CHUNK
    if squares.way.name == "tokens":
        generated: list[int] = []
        for _ in range(count):
            best = bins[model(**batch, return_loss=False).logits[0, -1, bins].argmax()]
            generated.append(int(best))
            batch = batch.append(best[None, None])
        return squares.bins.decode(np.array(generated).reshape(CHUNK, 2))
    at = slots_of(squares.prompt(number), "action")
    out = model(**batch, return_loss=False, output_hidden_states=True)
    if squares.way.name == "parallel":
        generated = [int(bins[out.logits[0, column - 1, bins].argmax()]) for column in at]
        return squares.bins.decode(np.array(generated).reshape(CHUNK, 2))
    head: Any = model.heads["action"]
    assert squares.way.name == "l1"
    return head(out.hidden_states[-1][:, at - 1])[0].numpy()


def loader(model: Model, squares: Squares, numbers: list[int], *, opened: bool = False) -> Any:
    from vertebra.data.encode.chat import ImageFeatures

    images = ImageFeatures(model.parts["image"].encoder.preparation)  # type: ignore[union-attr, arg-type]
    for number in numbers:
        sequence = squares.prompt(number) if opened else squares.sequence(number)
        yield model.collate([sequence], [images(squares.extra(number))])


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2"])
@pytest.mark.parametrize("way", ["tokens", "parallel", "l1"])
def test_actions_are_those_of_one_alone_by_whole_forwards(way: str, name: str):
    model, data = policy(way, name)
    model.eval()
    squares = squares_of(model, data)
    made = actions_of(model, squares, range(6))
    assert made.shape == (6, CHUNK, 2)
    for number in range(6):
        assert np.allclose(made[number], plain_actions(model, squares, number), atol=1e-5)
    reached = sum(e.reached(actions) for e, actions in zip(squares.episodes, made, strict=True)) / 6
    assert success(model, squares, batch=4) == reached


@pytest.mark.parametrize("way", WAYS)
def test_what_is_measured_is_the_same_in_the_middle_of_a_training(way: str):
    model, data = policy(way)
    squares = squares_of(model, data)
    state = torch.get_rng_state()
    made = actions_of(model.train(), squares, range(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert np.array_equal(actions_of(model.eval(), squares, range(4)), made)
    answer = shown(model, squares, 2)[0]["answer"]
    assert answer.count("<ACT:") == (2 if squares.way.by_tokens else 0)
    assert answer.endswith(("– reached", "– missed"))


def test_nothing_but_actions_can_be_answered():
    """A model that wants to end at once, and one whose logits are no numbers of ours."""
    model, data = policy("tokens")
    squares = squares_of(model, data)
    head: Any = model.backbone.llm.get_output_embeddings()
    with torch.no_grad():
        head.weight[squares.tokenizer.eos_token_id] = 100 * head.weight[squares.bins.ids.tolist()].sum(0)
        head.weight[5:50] *= 1000
    made = actions_of(model, squares, range(6))
    assert np.isin(made, squares.bins.values).all()


@pytest.mark.parametrize("way", WAYS)
def test_the_usual_chain_makes_batches_that_are_learned(way: str):
    model, data = policy(way, held_out=0.5)
    read = read_data(Job(data=data, model=ModelFacts.of(model)))
    batch = next(iter(read.loader(4)))
    assert ("action" in batch["features"]) == (way in ("l1", "flow"))
    learner = Learner(model)
    learner(**batch)["loss"].backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None]
    assert lacking == []


@pytest.mark.parametrize("way", WAYS)
def test_the_record_says_how_a_policy_acts(way: str):
    model, _ = policy(way)
    record = ActionRecord.of(model.record)
    assert (record.head, record.chunk, record.dims) == (way, CHUNK, 2)
    assert (record.bins is None) == (way in ("l1", "flow"))
    assert record.steps == (10 if way == "flow" else None)
    assert record.statistics["squares"]["action"]["q01"] == [4.0, 4.0]


def test_settings_without_effect_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean `flow`"):
        acting("flov", dims=2)
    with pytest.raises(ConfigError, match="steps: of `flow` alone; the head `l1` has no use for it"):
        acting("l1", dims=2, options={"steps": 3})
    with pytest.raises(ConfigError, match="Did you mean `width`"):
        acting("flow", dims=2, options={"widht": 3})
    with pytest.raises(ConfigError, match="contradict"):
        DataConfig(kind="squares", parallel=True, head="l1")
    assert way_of(DataConfig(kind="squares", parallel=True)).name == "parallel"
