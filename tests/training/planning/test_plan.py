"""The plan: held against real peaks, sensible in every direction, and answering what people ask."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.planning import measured
from tests.training.test_run import RECIPES, call
from vertebra.errors import ConfigError
from vertebra.training.config import ImageConfig, RunConfig
from vertebra.training.planning import plan as plans
from vertebra.training.planning.outline import outline
from vertebra.training.planning.plan import GB, plan, rehearsal_of
from vertebra.training.recipes import read_recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def peaks() -> dict[str, int]:
    """The peaks of real steps, in bytes."""
    # freed memory goes back to the system at once, so that what is resident is what is alive
    environment = {
        **os.environ,
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_MMAP_THRESHOLD_": "32768",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.planning.measured"]
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-4000:]
    return json.loads(made.stdout)


@pytest.mark.parametrize("case", measured.CASES)
def test_a_planned_peak_is_the_real_one(case: str, peaks: dict[str, int]):
    run, ranks = measured.run_of(case), measured.ranks_of(case)
    made = plan(run, gpus=ranks, context=False)
    start = "fsdp" if ranks > 1 else "one GPU"
    (layout,) = [
        one for one in made.layouts if one.name.startswith(start) and one.checkpointing == run.optim.checkpointing
    ]
    assert layout.peak == pytest.approx(peaks[case], rel=0.15)


@pytest.mark.parametrize("pattern", ["*.layers.3.*", "*.layers.?.*", "*.layers.[0-3].*"])
@pytest.mark.parametrize("setting", ["tune__train", "tune__freeze"])
def test_a_model_whose_layers_are_treated_differently_is_rehearsed_whole(setting: str, pattern: str):
    run = measured.config(
        model__backbone="tiny-llama2", model__overrides={"num_hidden_layers": 10}, **{setting: [pattern]}
    )
    assert plans.depths(run) is None


LENGTH = 96
WINDOWS = ["sliding_attention", "full_attention"] * 5


@pytest.mark.parametrize(
    ("name", "stage", "changes"),
    [
        ("tiny-llama2", "lora", {}),
        ("tiny-gpt2", "full-finetune", {}),
        ("tiny-gpt2", "last-blocks", {}),
        ("tiny-gemma3", "full-finetune", {}),
        ("tiny-llama2", "full-finetune", {"tune__freeze": ["*.embed_tokens.weight"]}),
        ("tiny-llama2", "lora", {"tune__train": ["*.projector.*"], "model__image": measured.IMAGE}),
    ],
)
def test_what_a_deep_model_takes_follows_from_shallow_ones(
    name: str, stage: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    overrides: dict[str, Any] = {"num_hidden_layers": 10}
    if name == "tiny-gemma3":
        overrides["layer_types"] = WINDOWS
    run = measured.config(
        model__backbone=name, model__overrides=overrides, tune__stage=stage, data__block=LENGTH, **changes
    )
    assert plans.depths(run) is not None
    short = [rehearsal_of(run, LENGTH, checkpointing=again, sharded=again) for again in (False, True)]
    monkeypatch.setattr(plans, "depths", lambda config: None)
    for seen, again in zip(short, (False, True), strict=True):
        whole = rehearsal_of(run, LENGTH, checkpointing=again, sharded=again)
        found, expected = dataclasses.asdict(seen), dataclasses.asdict(whole)
        assert found.pop("phases") == pytest.approx(expected.pop("phases"), rel=0.03)
        assert found == pytest.approx(expected)


def recipe(name: str, **changes: Any) -> RunConfig:
    path = next(path for path in RECIPES if path.stem == name)
    return read_recipe(path, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


SEVEN = {
    "model__backbone": "llama2-7b-pure",
    "optim__precision": "bf16",
    "optim__batch": 1,
    "data__block": 512,
    "model__overrides": "{}",
}


def test_will_7b_lora_fit_in_24_gb():
    made = plan(recipe("chat-lora", **SEVEN, model__dtype="bfloat16"), memory=24)
    assert made.parameters == pytest.approx(6.8e9, rel=0.02)
    assert made.trained == pytest.approx(80e6, rel=0.02)
    assert made.chosen == "one GPU"
    whole = plan(recipe("chat-full", **SEVEN), memory=24)
    assert whole.chosen is None


SIGLIP = "google/siglip-so400m-patch14-224"


def test_64_nodes_of_8():
    """70 B in full: copies do not fit, shards over everything do, and days and cost follow."""
    run = recipe("chat-full", **SEVEN | {"model__backbone": "meta-llama/Llama-2-70b-hf", "data__block": 4096})
    made = plan(run, gpus=512, tokens=1e12, price=2.0)
    assert made.parameters == pytest.approx(69e9, rel=0.01)
    assert [one.fits(made.memory) for one in made.layouts] == [False, False, False, False, False, True]
    assert made.chosen == "fsdp, checkpointing"
    # 6 operations a parameter and token, 8 where activations are made twice, and attention
    assert made.tokens_per_second == pytest.approx(512 * 989e12 * 0.4 / (8 * 69e9), rel=0.1)
    assert made.days == pytest.approx(1e12 / made.tokens_per_second / 86400)
    assert made.cost == pytest.approx(made.days * 24 * 512 * 2)


def test_encoders_and_projectors_are_in_it():
    run = measured.run_of("images")
    known = outline(replace(run, model=replace(run.model, image=ImageConfig(encoder="vision", name=SIGLIP))))
    assert sum(p.numel() for p in known.parts["image"].encoder.parameters()) == pytest.approx(0.4e9, rel=0.05)

    def of(stage: str, images: int = 1) -> Any:
        tuned = replace(run, tune=replace(run.tune, stage=stage), optim=replace(run.optim, checkpointing=True))
        return plan(tuned, images=images, tokens=1e9)

    align, tuned, whole = of("align"), of("finetune"), of("full-finetune")
    assert 0 < align.trained < align.outside
    assert whole.trained - tuned.trained == align.outside - align.trained
    text = plan(replace(run, model=replace(run.model, image=None)))
    assert text.outside == 0
    assert tuned.layouts[0].weights - text.layouts[0].weights == 4 * align.outside
    assert whole.layouts[0].activations > tuned.layouts[0].activations
    assert whole.days > tuned.days > align.days
    assert of("full-finetune", images=2).layouts[0].activations > whole.layouts[0].activations
    with pytest.raises(ConfigError, match="5 images take 320 positions of a row of 256"):
        of("align", images=5)
    with pytest.raises(ConfigError, match="trains the projector, and this model has no"):
        plan(recipe("chat-full", tune__stage="align"))


def test_more_gpus_take_less_of_each_and_less_time():
    run = recipe("chat-full", model__backbone="tiny-llama2", data__block=64)
    alone, many = plan(run, gpus=1, tokens=1e9, price=2.0), plan(run, gpus=512, tokens=1e9, price=2.0)
    assert many.layouts[-1].weights < alone.layouts[-1].weights / 500
    assert many.days is not None
    assert alone.days is not None
    assert many.days < alone.days / 500
    assert many.cost == pytest.approx(alone.cost)
    assert [layout.name for layout in many.layouts] == [
        "ddp",
        "ddp, checkpointing",
        "fsdp in a node",
        "fsdp in a node, checkpointing",
        "fsdp",
        "fsdp, checkpointing",
    ]
    assert all(b.activations < a.activations for a, b in zip(many.layouts[::2], many.layouts[1::2], strict=True))


def test_bad_plans():
    run = recipe("chat-full", model__backbone="tiny-llama2", data__block=64)
    with pytest.raises(ConfigError, match="gpus is 0; expected at least 1"):
        plan(run, gpus=0)
    with pytest.raises(ConfigError, match="has no `layers`"):
        plan(replace(run, model=replace(run.model, overrides={"layers": 3})))


def test_the_pages_commands_answer(capsys: pytest.CaptureFixture[str]):
    """Every `vertebra plan` of the page on training."""
    page = (ROOT / "docs" / "train.md").read_text()
    commands = [line for line in page.replace("\\\n", " ").splitlines() if line.strip().startswith("vertebra plan ")]
    assert len(commands) >= 3
    for line in commands:
        words = shlex.split(line.split("   #")[0])
        if "--picture" in words:
            del words[words.index("--picture") : words.index("--picture") + 2]
        call("plan", next(path for path in RECIPES if path.stem == words[2]), *words[3:])
    assert "It fits in 24 GB with: one GPU" in capsys.readouterr().out


def test_the_command_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = next(path for path in RECIPES if path.stem == "chat-full")
    call(
        "plan", path, "--set", "model.backbone=tiny-llama2", "--gpus", "8", "--tokens", "1e9", "--price", "2",
        "--picture", tmp_path / "plan.png",
    )  # fmt: skip
    output = capsys.readouterr().out
    assert "It fits in 80 GB with: ddp" in output
    assert (tmp_path / "plan.png").stat().st_size > 5000
    call("plan", path, "--set", "model.backbone=tiny-llama2", "--gpu-memory", "0.9")
    assert plan(recipe("chat-full", model__backbone="tiny-llama2"), memory=0.5).chosen is None
    assert GB == 1e9
