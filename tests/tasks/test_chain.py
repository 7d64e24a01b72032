"""One road: the batch that `data show` draws is the first of a training, byte for byte, for every kind and way of reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.models import config
from vertebra import config as configs
from vertebra.cli.data import _asked, first_batch
from vertebra.data import Reading, batches
from vertebra.errors import ConfigError, DataError
from vertebra.model.encoders.vision.tiny import tiny_vision_checkpoint
from vertebra.sequence.batch import Batch
from vertebra.tasks.config import DataConfig
from vertebra.tasks.registry import task_of
from vertebra.training.building import build_model
from vertebra.training.config import RunConfig
from vertebra.training.data import build_data
from vertebra.training.run import train

WAYS = ("left", "right", "back", "up", "down", "away")


def rows_of(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(folder: Path, name: str = "text.jsonl", column: str = "text", count: int = 40) -> str:
    return rows_of(folder / name, [{column: f"{name} the robot goes {WAYS[i % 6]} and {i}"} for i in range(count)])


def chats(folder: Path) -> str:
    turns = [[{"role": "user", "content": f"Go {way}."}, {"role": "assistant", "content": way}] for way in WAYS]
    return rows_of(folder / "chat.jsonl", [{"messages": turn} for turn in turns * 3])


def pairs(folder: Path) -> str:
    return rows_of(
        folder / "pairs.jsonl",
        [
            {"sentence1": f"it goes {way}", "sentence2": f"{i} it does", "label": i % 2}
            for i, way in enumerate(WAYS * 3)
        ],
    )


def seen(folder: Path) -> str:
    rows = []
    for number, way in enumerate(WAYS):
        Image.new("RGB", (20, 12), (40 * number, 90, 10)).save(folder / f"{number}.png")
        turns = [{"from": "human", "value": f"<image> Where? {number}"}, {"from": "gpt", "value": way}]
        rows.append({"image": f"{number}.png", "conversations": turns})
    return rows_of(folder / "seen.jsonl", rows)


IMAGE = {"encoder": "patches", "width": 8, "image_size": 16, "patch_size": 8}
KINDS: dict[str, tuple[str, Callable[[Path], dict[str, Any]], dict[str, Any]]] = {
    "text": ("tiny-gpt2", lambda f: {"kind": "text", "path": texts(f), "block": 32, "keys": ["robot"]}, {}),
    "rows": ("tiny-gpt2", lambda f: {"kind": "text", "path": texts(f), "rows": True, "block": 64}, {}),
    "masked": ("tiny-bert", lambda f: {"kind": "masked", "path": texts(f), "block": 32}, {}),
    "chat": ("tiny-qwen2.5", lambda f: {"kind": "chat", "path": chats(f), "system": "Be brief.", "block": 128}, {}),
    "grouped": ("tiny-llama2", lambda f: {"kind": "chat", "path": chats(f), "batching": "grouped"}, {}),
    "images": ("tiny-llama2", lambda f: {"kind": "chat", "path": seen(f), "batching": "shuffled"}, {"image": IMAGE}),
    "tower": (
        "tiny-llama2",
        lambda f: {"kind": "chat", "path": seen(f), "batching": "shuffled"},
        {"image": {"encoder": "vision", "name": str(tiny_vision_checkpoint("tiny-siglip")), "image_size": 56}},
    ),
    "pairs": ("tiny-bert", lambda f: {"kind": "pairs", "path": pairs(f)}, {}),
    "pairs asked": (
        "tiny-llama2",
        lambda f: {"kind": "chat", "path": pairs(f), "labels": ["no", "yes"], "block": 64},
        {},
    ),
    "squares": ("tiny-llama2", lambda f: {"kind": "squares", "count": 12}, {"image": IMAGE}),
    "parallel": ("tiny-llama2", lambda f: {"kind": "squares", "count": 12, "parallel": True}, {"image": IMAGE}),
    "mixture": (
        "tiny-gpt2",
        lambda f: {
            "kind": "text",
            "mix": {
                "one": {"path": texts(f, "one.jsonl"), "weight": 3.0},
                "two": {"path": texts(f, "two.jsonl", "body"), "columns": {"text": "body"}},
            },
            "block": 32,
        },
        {},
    ),
    "stream": ("tiny-llama2", lambda f: {"kind": "chat", "path": chats(f), "stream": True, "block": 32}, {}),
    "mixed stream": (
        "tiny-bert",
        lambda f: {
            "kind": "masked",
            "mix": {"one": {"path": texts(f, "one.jsonl")}, "two": {"path": texts(f, "two.jsonl")}},
            "stream": True,
            "block": 32,
        },
        {},
    ),
}


def run_of(name: str, folder: Path) -> RunConfig:
    model, data, parts = KINDS[name]
    return config(model={"backbone": model, **parts}, data=data(folder), optim={"batch": 3}, seed=5, name="mine")


def trained_batch(run: RunConfig) -> Batch:
    return next(iter(build_data(run, build_model(run)).loader(run.optim.batch, rank=0, world=1)))


def same(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, dict):
        assert set(one) == set(other), where
        for name in one:
            same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        assert one.numpy().tobytes() == other.numpy().tobytes(), where
    else:
        assert one == other, where


@pytest.mark.parametrize("name", KINDS)
def test_what_is_shown_is_what_is_trained(name: str, tmp_path: Path):
    run = run_of(name, tmp_path)
    configs.write(run, tmp_path / "mine.yaml")
    shown = first_batch(_asked(str(tmp_path / "mine.yaml")))[1]
    trained = trained_batch(run)
    same(dict(trained), dict(shown))
    assert trained.rows == 3
    if "image" in KINDS[name][2]:
        assert trained["features"]["image"]["values"].shape[0] == 3


@pytest.mark.parametrize("name", ["text", "masked", "chat", "pairs", "pairs asked"])
def test_a_path_with_its_options_is_read_the_same_way(name: str, tmp_path: Path):
    run = replace(run_of(name, tmp_path), seed=0)
    settings = {key: value for key, value in KINDS[name][1](tmp_path).items() if key not in ("kind", "path")}
    given = [f"data.{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in settings.items()]
    kind = None if name != "pairs asked" else "chat"
    asked = _asked(str(run.data.path), model=run.model.backbone, kind=kind, set_=[*given, "held_out=0.05"])
    same(dict(trained_batch(run)), dict(first_batch(asked, 3)[1]))


@pytest.mark.parametrize("name", ["text", "chat", "masked", "pairs", "mixture", "stream"])
def test_batches_are_those_of_a_training(name: str, tmp_path: Path):
    run = run_of(name, tmp_path)
    loader = batches(build_model(run), run.data, batch=3, seed=5, rank=0, world=1)
    expected = build_data(run, build_model(run)).loader(3, rank=0, world=1)
    found = list(loader)
    assert len(found) > 1
    for one, other in zip(found, expected, strict=True):
        same(dict(one), dict(other))
    assert len(list(batches(run.model.backbone, run.data, batch=3, seed=5, rank=0, world=1))) == len(found)


def test_a_name_and_rows_are_enough():
    rows = [{"text": f"the robot goes {way}"} for way in WAYS]
    (batch,) = batches("tiny-gpt2", rows, batch=8, rows=True, batching="shuffled", cache=False)
    assert batch.rows == len(rows), "nothing is held out unless asked for"
    (mixed,) = batches(
        "tiny-gpt2",
        Reading(mix={"a": Reading(path=rows), "b": Reading(path=rows[:2])}, cache=False),  # type: ignore[arg-type]
        rows=True,
        batch=16,
    )
    assert int((mixed["document"].max(1).values + 1).sum()) == 8


@pytest.mark.parametrize("name", ["mixture", "stream", "mixed stream"])
def test_mixtures_and_streams_train_and_resume(name: str, tmp_path: Path):
    run = run_of(name, tmp_path)
    evaluated = {"eval_path": chats(tmp_path) if name == "stream" else texts(tmp_path)} if "stream" in name else {}
    run = replace(
        run,
        data=replace(run.data, **evaluated),
        steps=6,
        save=replace(run.save, every=3),
        watch=replace(run.watch, every=1, bar=False),
        eval=replace(run.eval, every=3),
        optim=replace(run.optim, schedule="constant"),
    )
    whole = train(replace(run, out=str(tmp_path / "whole")))
    assert whole.found["items"] > 0
    train(replace(run, steps=3, out=str(tmp_path / "half")))
    again = train(replace(run, out=str(tmp_path / "half")), resume=True)
    files = [sorted(outcome.model.glob("*.safetensors")) for outcome in (whole, again)]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


def test_each_reading_of_a_mixture_keeps_its_share_apart(tmp_path: Path):
    run = run_of("mixture", tmp_path)
    run = replace(run, data=replace(run.data, held_out=0.25, rows=True, limit=8))
    made = build_data(run, build_model(run))
    assert made.train is not None
    assert made.held_out is not None
    places = [[samples.where(i) for i in range(len(samples))] for samples in (made.train, made.held_out)]
    assert not set(places[0]) & set(places[1])
    assert [sum(f"{name}.jsonl" in place for place in places[0]) for name in ("one", "two")] == [8, 8]
    assert [sum(f"{name}.jsonl" in place for place in places[1]) for name in ("one", "two")] == [8, 8]
    order = made.train.order(0, run.seed)
    first = np.array([places[0][i].split(":")[0].endswith("one.jsonl") for i in order[:6]])
    assert first.sum() > 3, "weights rule while both last"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "text"}, "kind `text` needs a path, or a mix"),
        (
            {"kind": "text", "path": "x", "count": 3},
            "count: of kinds `squares`, .* alone; kind `text` has no use for it",
        ),
        (
            {"kind": "masked", "path": "x", "keys": ["a"], "system": "b"},
            "keys: of kind `text` alone.*system: of kind `chat`",
        ),
        (
            {"kind": "squares", "path": "x"},
            "path: of kinds `text`, `masked`, `chat`, `pairs`, `episodes`, `pages` alone",
        ),
        ({"kind": "text", "path": "x", "too_long": "drop"}, "never too long; with data.rows=true"),
        ({"kind": "text", "path": "x", "stream": True, "held_out": 0.2}, "held_out: a stream"),
        ({"kind": "chat", "path": "x", "options": {"a": 1}}, "data.options: kind `chat` declares none"),
        (
            {"kind": "nothing_here:Kind", "path": "x"},
            "data.kind `nothing_here:Kind`: there is no module `nothing_here`",
        ),
        ({"kind": "json:loads", "path": "x"}, "expected a subclass of `vertebra.tasks.task.Task`"),
        ({"kind": "text", "path": "x", "weight": 2.0}, "weight: of a reading inside of `mix`"),
        ({"kind": "tex", "path": "x"}, "unknown kind of data `tex`. Did you mean `text`"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        task_of(DataConfig(**settings))
    with pytest.raises(ConfigError, match=message):
        config(data=settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "x", "mix": {"a": {"path": "y"}}}, "`path` and `mix` are both given"),
        ({"mix": {"a": {}}}, "mix.a: a reading of a mixture needs a path"),
        ({"mix": {"a": {"path": "y", "stream": True}}}, "mix.a.stream: this is set for the whole mixture"),
        ({"mix": {"a": {"path": "y", "weight": 0}}}, "weight: .* expected above 0|weight is 0"),
        ({"mix": {"a": {"path": "y"}}, "columns": {"text": "body"}}, "columns: of single readings"),
        ({"mix": {"a": {"pth": "y"}}}, "Did you mean `path`"),
        (
            {"mix": {"a": {"path": "y"}, "b": {"path": "z", "format": "text"}}, "stream": True},
            "give all its readings the same",
        ),
        ({"path": "x", "stop": "all_exhausted"}, "stop: of a mixture"),
    ],
)
def test_readings_that_cannot_be(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        configs.build(Reading, settings)


def test_a_model_of_another_sort_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="`tiny-bert` is an encoder, which cannot do `chat`; it can do masked, pairs"):
        batches("tiny-bert", chats(tmp_path), kind="chat")
    with pytest.raises(DataError, match="wrong kind of sample: text takes text"):
        batches("tiny-gpt2", chats(tmp_path), kind="text", cache=False)
