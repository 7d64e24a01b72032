"""What is computed once gives what computing it at every step gives: losses, weights, evaluations, on every family."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.models import config
from vertebra.backbone.tiny import TINY
from vertebra.data.encode.items import image_makers
from vertebra.errors import CheckpointError, ConfigError
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.vision import VisionTower
from vertebra.model.encoders.vision.tiny import tiny_vision_checkpoint
from vertebra.tasks.drawn_episodes import drawn_episodes
from vertebra.training.cached.layers import SEGMENT, UpperLayers
from vertebra.training.cached.store import VALUES, rows_of
from vertebra.training.run import PreparedRun, train
from vertebra.training.watching.metrics import read, without_clock

RECIPES = Path(__file__).parents[2] / "recipes"
CHAT = str(RECIPES / "data" / "chat.jsonl")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of this test alone; the tiny checkpoints stay where they are."""
    monkeypatch.setattr("vertebra.training.cached.store.cache_folder", lambda: tmp_path / "cache")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [without_clock(row) for row in read(folder / "metrics.jsonl")]


def same_rows(found: Path, expected: Path, bound: float = 1e-4) -> None:
    """The same metrics, but for rounding."""
    pairs = list(zip(rows(found), rows(expected), strict=True))
    assert len(pairs) > 3
    for got, plain in pairs:
        assert got.keys() == plain.keys()
        for name in {"loss", "grad_norm"} & got.keys():
            assert got[name] == pytest.approx(plain[name], rel=bound), (name, got)
        if "eval" in got:
            assert got["eval"] == pytest.approx(plain["eval"], rel=bound)


def towers(**changes: Any) -> Any:
    image = {"encoder": "vision", "name": str(tiny_vision_checkpoint("tiny-dinov2")), "pool": 2}
    return config(
        model__image=image, data__kind="squares", data__count=24, data__path=None, data__held_out=0.3,
        data__batching="shuffled", tune__stage="align", steps=6, eval__every=3, watch__every=1, **changes,
    )  # fmt: skip


def layers(name: str = "tiny-llama2", **changes: Any) -> Any:
    tree = {
        "model__backbone": name, "data__kind": "chat", "data__path": CHAT, "data__held_out": 0.1, "data__block": 160,
        "data__limit": 24, "tune__stage": "lora", "tune__lora": {"r": 4, "layers": [1]}, "steps": 6, "eval__every": 3,
        "watch__every": 1, "data__too_long": "drop", **changes,
    }  # fmt: skip
    return config(**tree)


class Calls:
    def __init__(self, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
        self.items = 0
        plain = kind.forward

        def counted(module: Any, values: torch.Tensor, *rest: Any, **named: Any) -> Any:
            self.items += len(values)
            return plain(module, values, *rest, **named)

        monkeypatch.setattr(kind, "forward", counted)


def test_a_frozen_tower_runs_once_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(towers(out=str(tmp_path / "plain")))
    calls = Calls(VisionTower, monkeypatch)
    train(towers(out=str(tmp_path / "cached"), cache__tower=True))
    same_rows(tmp_path / "cached", tmp_path / "plain")
    shown = calls.items
    calls.items = 0
    train(towers(out=str(tmp_path / "again"), cache__tower=True, optim__lr=1e-2))
    assert shown - calls.items == 24 + 8, "another run finds the features of the training and the held-out images"


def test_the_same_images_in_another_order_keep_their_features(tmp_path: Path):
    """A blind twin sees the images of its original, each beside another question."""
    train(towers(out=str(tmp_path / "first"), cache__tower=True))
    train(towers(out=str(tmp_path / "plain"), data__shuffled_images=True))
    train(towers(out=str(tmp_path / "cached"), data__shuffled_images=True, cache__tower=True))
    same_rows(tmp_path / "cached", tmp_path / "plain")


def test_workers_read_the_features_too(tmp_path: Path):
    train(towers(out=str(tmp_path / "plain")))
    train(towers(out=str(tmp_path / "cached"), cache__tower=True, data__workers=2))
    same_rows(tmp_path / "cached", tmp_path / "plain")


def seeing(kind: str, **changes: Any) -> Any:
    """Kinds whose samples bring images in other ways: two cameras over time, and pictures of pages."""
    image = {"encoder": "vision", "name": str(tiny_vision_checkpoint("tiny-dinov2")), "pool": 2}
    own: dict[str, Any] = {
        "episodes": {
            "data__path": str(drawn_episodes()), "data__head": "l1", "data__chunk": 4, "data__held_out": 0.3,
            "data__options": {"every": 8, "history": 1}, "tune__freeze": ("*.lm_head.weight",),
        },
        "pages": {
            "data__path": None, "data__count": 6, "data__held_out": 0.3, "data__block": 500,
            "data__options": {"drawn": "receipt", "head": False, "image": True, "turns": 1, "reserve": 64, "asked": 2},
        },
    }[kind]  # fmt: skip
    tree = {
        "model__image": image, "data__kind": kind, "data__batching": "shuffled", "tune__stage": "align", "steps": 4,
        "eval__every": 2, "watch__every": 1, "optim__batch": 4, **own, **changes,
    }  # fmt: skip
    return config(**tree)


@pytest.mark.parametrize("kind", ["episodes", "pages"])
def test_every_kind_that_shows_images_keeps_their_features(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(seeing(kind, out=str(tmp_path / "plain")))
    calls = Calls(VisionTower, monkeypatch)
    train(seeing(kind, out=str(tmp_path / "cached"), cache__tower=True))
    same_rows(tmp_path / "cached", tmp_path / "plain")
    shown, calls.items = calls.items, 0
    again = seeing(kind, out=str(tmp_path / "again"), cache__tower=True)
    train(again)
    spared = shown - calls.items
    kept = image_makers(PreparedRun.of(again).data.collator.features)[0].show
    assert spared == len(kept.numbers) > 4, "another run finds the features of every image"


def test_images_that_change_have_no_features_to_keep(tmp_path: Path):
    options = {"every": 8, "history": 1, "shift": 2}
    with pytest.raises(ConfigError, match="changed anew in every epoch"):
        PreparedRun.of(seeing("episodes", cache__tower=True, data__options=options))
    image = {"encoder": "vision", "name": str(tiny_vision_checkpoint("tiny-dinov2")), "each": True}
    with pytest.raises(ConfigError, match="one for each camera"):
        PreparedRun.of(seeing("episodes", cache__tower=True, model__image=image))


def test_towers_that_cannot_be_kept(tmp_path: Path):
    with pytest.raises(ConfigError, match="the image encoder trains"):
        PreparedRun.of(towers(cache__tower=True, tune__train=["*.image.encoder.*"]))
    with pytest.raises(ConfigError, match="has no image part"):
        PreparedRun.of(layers(cache__tower=True))
    with pytest.raises(ConfigError, match="fsdp and encoders"):
        layers(cache__tower=True, parallel__kind="fsdp")


def test_features_of_another_shape_are_named():
    made = PreparedRun.of(towers(cache__tower=True))
    batch = next(iter(made.feed))
    batch["features"]["image"]["values"] = batch["features"]["image"]["values"][:, :, :-1]
    with pytest.raises(Exception, match="features have the shape"):
        made.model(**batch)


# These do something in front of their layers with embeddings that are given: they add positions, or widen them.
_REFUSED = {"tiny-gpt2", "tiny-opt", "tiny-opt-narrow"}
_UNDROPPED = {
    "tiny-gpt2": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "tiny-phi2": {"attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "tiny-opt": {"dropout": 0.0, "attention_dropout": 0.0},
    "tiny-opt-narrow": {"dropout": 0.0, "attention_dropout": 0.0},
}


@pytest.mark.parametrize("name", TINY)
def test_frozen_lower_layers_run_once_a_sample(name: str, tmp_path: Path):
    overrides = _UNDROPPED.get(name, {})
    kept = layers(name, out=str(tmp_path / "cached"), cache__layers=True, model__overrides=overrides)
    if name in _REFUSED:
        with pytest.raises(ConfigError, match=r"alone give other logits than the whole model|widens"):
            train(kept)
        return
    train(layers(name, out=str(tmp_path / "plain"), model__overrides=overrides))
    train(kept)
    same_rows(tmp_path / "cached", tmp_path / "plain")


def test_only_the_layers_that_train_run(tmp_path: Path):
    five = {"model__overrides": {"num_hidden_layers": 5}, "model__scratch": True, "tune__lora": {"layers": [3, 4]}}
    made = PreparedRun.of(layers(cache__layers=True, **five))
    ran: list[int] = []
    for number, layer in enumerate(made.model.backbone.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    learner = made.trainer(tmp_path).learner
    batch = next(iter(made.feed))
    assert batch["segments"] == (SEGMENT,)
    ran.clear()  # the learner has shown the head on the whole model
    learner(**batch)["loss"].backward()
    assert ran == [3, 4]
    assert len(made.model.backbone.layers) == 5
    assert made.model.backbone.llm.config.num_hidden_layers == 5


def test_a_run_goes_on_with_its_layers_kept(tmp_path: Path):
    """Kept or not is how a run is computed, and no part of what it is."""
    train(layers(out=str(tmp_path / "plain")))
    train(layers(out=str(tmp_path / "run"), steps=3, save__every=3, optim__schedule="constant"))
    train(layers(out=str(tmp_path / "whole"), steps=6, optim__schedule="constant"))
    train(layers(out=str(tmp_path / "run"), steps=6, optim__schedule="constant", cache__layers=True), resume=True)
    assert [row["loss"] for row in rows(tmp_path / "run") if "loss" in row] == pytest.approx(
        [row["loss"] for row in rows(tmp_path / "whole") if "loss" in row], rel=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tune__lora": {"r": 4}}, "the first layer trains"),
        ({"tune__stage": "full-finetune"}, "trains and lies before the decoder layers"),
        ({"tune__stage": "none", "tune__train": ["*norm.weight"]}, "the first layer trains"),
        ({"model__backbone": "tiny-gpt2"}, "drop values at random"),
    ],
)
def test_layers_that_cannot_be_kept(changes: dict[str, Any], match: str):
    with pytest.raises(ConfigError, match=match):
        PreparedRun.of(layers(**{"cache__layers": True, **changes}))


def test_the_last_blocks_train(tmp_path: Path):
    """Whole layers train, and a head of its own beside them."""
    options = {"tune__stage": "last-blocks", "model__backbone": "tiny-mistral", "tune__blocks": 1}
    train(layers(out=str(tmp_path / "plain"), **options))
    train(layers(out=str(tmp_path / "cached"), cache__layers=True, **options))
    same_rows(tmp_path / "cached", tmp_path / "plain")


def test_a_layers_kinds_stay_with_it():
    """Windows alternate by place: what is left has the kinds of its own layers."""
    overrides = {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 8,
    }
    overrides |= {"use_sliding_window": True}
    options = {"cache__layers": True, "model__scratch": True, "tune__lora": {"layers": [3]}}
    made = PreparedRun.of(layers("tiny-qwen2.5", model__overrides=overrides, **options))  # shown to be equal on the way
    assert made.upper is not None
    assert made.upper.first == 3
    assert UpperLayers(made.model).first == 3


def test_damaged_and_half_made_features(tmp_path: Path):
    def compute() -> Any:
        yield [1, 0], [torch.ones(2, 3).numpy(), torch.zeros(1, 3).numpy()]

    def stops() -> Any:
        yield [0], [torch.zeros(1, 3).numpy()]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows_of("some", [1, 2], 3, stops, what="rows")
    assert list((tmp_path / "cache").rglob("*.npy")) == []
    made = rows_of("some", [1, 2], 3, compute, what="rows")
    assert [row.tolist() for row in made] == [[[0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
    assert pickle.loads(pickle.dumps(made))[1].shape == (2, 3)
    found = rows_of("some", [1, 2], 3, stops, what="rows")
    assert len(found) == 2
    (made.folder / VALUES).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"damaged.*delete that folder"):
        rows_of("some", [1, 2], 3, compute, what="rows")[0]


def test_a_disk_without_room(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="GB free; make room"):
        rows_of("large", [2**50], 2**10, lambda: iter(()), what="rows")


def test_made_from_scratch_is_no_tower():
    """A patch encoder trains wherever its projector does."""
    run = config(
        model__image={"encoder": "patches"}, data__kind="squares", data__path=None, data__count=8, cache__tower=True,
        tune__stage="align", data__batching="shuffled",
    )  # fmt: skip
    assert issubclass(PatchEncoder, nn.Module)
    with pytest.raises(ConfigError, match="the image encoder trains"):
        PreparedRun.of(run)
