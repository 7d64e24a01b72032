"""Two and four gloo processes: the curve of one process, whatever is copied or sharded, and how a sharded run starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.distributed.launched import alone, assert_same_curve, curve, launch, step_3
from tests.distributed.start import STARTS, prepare
from tests.distributed.steps import gradients
from tests.training.models import Words, config, trainer
from vertebra.backbone.weights import mapped_tensors
from vertebra.errors import CheckpointError, ConfigError
from vertebra.training import checkpoint
from vertebra.training.config import ParallelConfig
from vertebra.training.scale.sharding import check_hybrid
from vertebra.training.scale.shards import consolidate

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    for name in ("ddp", "ddp-lora", "fsdp-tied"):
        alone(folder, name)
    return folder


@pytest.fixture(scope="module")
def two(single: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that two processes do, in one launch."""
    folder = tmp_path_factory.mktemp("two")
    prepare(folder)
    launch(
        2, folder, "ddp", "fsdp", "ddp-recompute", "fsdp-recompute", "ddp-lora", "fsdp-lora", "fsdp-tied",
        "fsdp<ddp", "ddp<fsdp", "steps:fsdp1", "steps:sent", "steps:on_two", "steps:unlike", "steps:heads", "start:equal",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def four(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that four processes do, with what two have saved beside it."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "fsdp").symlink_to(two / "fsdp")
    (folder / "fsdp-lora").symlink_to(two / "fsdp-lora")
    launch(
        4, folder, "fsdp<fsdp", "fsdp-lora<fsdp-lora", "hybrid", "hybrid<hybrid", "steps:sent", "start:memory",
    )  # fmt: skip
    return folder


CURVES = {
    "ddp": "ddp",
    "fsdp": "ddp",
    "ddp-recompute": "ddp",
    "fsdp-recompute": "ddp",
    "ddp-lora": "ddp-lora",
    "fsdp-lora": "ddp-lora",
    "fsdp-tied": "fsdp-tied",
}


@pytest.mark.parametrize("name", CURVES)
def test_two_processes_have_the_curve_of_one(name: str, two: Path, single: Path):
    found, expected = curve(two / name), curve(single / f"alone-{CURVES[name]}")
    count = min(len(found), len(expected))
    assert count >= 3
    assert_same_curve(found[:count], expected[:count])


def test_groups_with_copies_have_the_curve_of_one(four: Path, single: Path):
    assert_same_curve(curve(four / "hybrid"), curve(single / "alone-ddp"))
    assert_same_curve(curve(four / "hybrid-from-hybrid"), curve(single / "alone-ddp")[3:])


def test_fsdp1_by_the_policy_of_the_interface(two: Path, single: Path):
    printed = json.loads((two / "fsdp1.json").read_text())
    assert printed["only layers"]
    assert printed["units"] == printed["layers"] > 0
    expected = [row["loss"] for row in curve(single / "alone-ddp")]
    assert printed["losses"] == pytest.approx(expected[: len(printed["losses"])], abs=1e-4)


@pytest.mark.parametrize(
    ("source", "name"),
    [("fsdp", "fsdp"), ("ddp", "ddp"), ("hybrid", "hybrid"), ("fsdp-lora", "ddp-lora")],
)
def test_what_several_saved_goes_on_alone(source: str, name: str, two: Path, four: Path, single: Path, tmp_path: Path):
    where = four if source == "hybrid" else two
    made = alone(tmp_path, name, step_3(where / source))
    whole = curve(single / f"alone-{'ddp-lora' if 'lora' in name else 'ddp'}")[3:]
    found = curve(tmp_path / f"alone-{name}")
    assert_same_curve(found[: len(whole)], whole[: len(found)])
    if source == "ddp":
        ours = dict(made.learner.model.named_parameters())
        theirs = checkpoint.read_weights(where / "ddp" / "checkpoints" / checkpoint.name_of(6))
        assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in theirs)


@pytest.mark.parametrize("name", ["fsdp-from-ddp", "ddp-from-fsdp"])
def test_copies_go_on_in_shards_and_back(name: str, two: Path, single: Path):
    assert_same_curve(curve(two / name), curve(single / "alone-ddp")[3:])


def test_what_two_saved_goes_on_on_four(two: Path, four: Path, single: Path):
    assert_same_curve(curve(four / "fsdp-from-fsdp"), curve(single / "alone-ddp")[3:])
    assert_same_curve(curve(four / "fsdp-lora-from-fsdp-lora"), curve(two / "fsdp-lora")[3:])


@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-10), ("float32", 1e-5)])
def test_a_step_is_the_same_however_it_is_divided(dtype: str, close: float, two: Path, tmp_path: Path):
    whole = gradients(tmp_path / "whole", dtype, batch=8, accumulate=1)
    others = {"8 × 1": gradients(tmp_path / "one-by-one", dtype, batch=1, accumulate=8)}
    for kind in ("ddp", "fsdp"):
        others |= {f"{kind} {n}": torch.load(two / f"{dtype}-{kind}-{n}.pt", weights_only=True) for n in (1, 2)}
    largest = max(float(g.abs().max()) for n, g in whole.items() if n != "loss")
    for how, found in others.items():
        assert found.keys() == whole.keys()
        for name, expected in whole.items():
            scale = float(expected) if name == "loss" else largest
            assert float((found[name] - expected).abs().max()) <= close * scale, (how, name)


def test_gradients_are_sent_once_a_step(two: Path, four: Path):
    """Copies send nothing before the last micro-batch; shards reduce theirs each time, unless they are told not to."""
    found = json.loads((two / "sent-2.json").read_text())
    assert [sends[0] > 0 for sends in found["ddp"]] == [False, False, False, True]
    assert all(scattered > 0 for _, scattered in found["fsdp"])
    assert [sends[1] > 0 for sends in found["fsdp, whole gradients"]] == [False, False, False, True]
    groups = json.loads((four / "sent-4.json").read_text())["hybrid"]
    assert all(scattered > 0 for _, scattered in groups)
    assert [copies > 0 for copies, _ in groups] == [False, False, False, True]


def test_ranks_may_have_items_of_different_kinds(two: Path):
    printed = json.loads((two / "unlike.json").read_text())
    assert max(printed.values()) < 1e-5


def test_ranks_may_have_chunks_of_actions_and_words(two: Path):
    printed = json.loads((two / "heads.json").read_text())
    assert len(printed) == 4
    assert max(printed.values()) < 1e-5


@pytest.mark.parametrize("name", STARTS)
def test_a_sharded_start_is_the_whole_one(name: str, two: Path):
    assert json.loads((two / "different.json").read_text())[name] == []


def test_no_process_holds_a_whole_model(four: Path):
    """A quarter each, the layer that is being cut, and what is no layer before it is cut."""
    for reported in json.loads((four / "memory.json").read_text()):
        assert 0.25 <= reported["scratch"] < 0.45
        assert 0.25 <= reported["pretrained"] < 0.45


def test_shards_become_safetensors(two: Path, tmp_path: Path):
    place = step_3(two / "fsdp")
    assert (place / "shards").is_dir()
    several = consolidate(place, tmp_path / "several", limit=100_000)
    assert len(list(several.glob("*.safetensors"))) > 1
    tensors = mapped_tensors(several)
    copied = checkpoint.read_weights(step_3(two / "ddp"))
    assert tensors.keys() == copied.keys()
    assert all(torch.allclose(tensors[n], copied[n], atol=1e-5) for n in copied)
    adapters = mapped_tensors(consolidate(step_3(two / "fsdp-lora"), tmp_path / "lora"))
    assert all(".lora_" in name for name in adapters)
    with pytest.raises(CheckpointError, match="no sharded checkpoint"):
        consolidate(step_3(two / "ddp"), tmp_path / "none")


def test_a_torn_shard_is_refused(two: Path, tmp_path: Path):
    import shutil

    place = shutil.copytree(step_3(two / "fsdp"), tmp_path / checkpoint.name_of(3))
    shard = next((place / "shards").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert checkpoint.newest_good(tmp_path) is None
    with pytest.raises(CheckpointError, match="is damaged"):
        consolidate(place, tmp_path / "out")


def test_shards_of_another_model_are_refused(two: Path, tmp_path: Path):
    made = trainer(tmp_path, config(model__backbone="tiny-qwen2", optim__batch=8), samples=Words(40))
    with pytest.raises(CheckpointError, match="another model"):
        made.train(resume_from_checkpoint=str(step_3(two / "fsdp")))


def test_groups_that_cannot_be():
    with pytest.raises(ConfigError, match=r"6 ranks are no multiple of it\. Groups that divide them: 2, 3"):
        check_hybrid(4, 6)
    with pytest.raises(ConfigError, match="as well"):
        ParallelConfig(hybrid=2)
    with pytest.raises(ConfigError, match="expected 0 or more"):
        ParallelConfig(kind="fsdp", hybrid=-1)
