"""OFT's diffusion: every step a pass over the whole row, as a plain loop makes it of the same tensors and noise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.interop.openvla import plain
from tests.interop.openvla.made import Draw, head_tensors, made_oft
from tests.interop.openvla.test_oft import STATE, ids_of
from tests.interop.openvla.test_read import WORDS, close, picture
from vertebra import load, policy
from vertebra.action.record import ActionRecord
from vertebra.decode.actions import noise_of
from vertebra.errors import ConfigError
from vertebra.interop import write_openvla
from vertebra.model.heads.ddim import DdimHead
from vertebra.model.model import Model
from vertebra.policies.settings import PolicySettings

WIDTH, TIMES = 64, 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = made_oft(tmp_path_factory.mktemp("folders") / "oft", head=False)
    draw = Draw(9)
    head = {
        n.replace("model.", "module.noise_predictor.mlp_resnet.", 1): t for n, t in head_tensors(WIDTH, 7, draw).items()
    }
    noisy = {
        "fc1.weight": draw(WIDTH, 1),
        "fc1.bias": draw(WIDTH),
        "fc2.weight": draw(WIDTH, WIDTH),
        "fc2.bias": draw(WIDTH),
    }
    torch.save({name: t.bfloat16() for name, t in head.items()}, where / "action_head--5_checkpoint.pt")
    noisy = {f"module.{name}": tensor.bfloat16() for name, tensor in noisy.items()}
    torch.save(noisy, where / "noisy_action_projector--5_checkpoint.pt")
    return where


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, dtype="float32")


def by_hand(folder: Path, ids: list[int], images: list[np.ndarray], noise: torch.Tensor, steps: int) -> torch.Tensor:
    """diffusers' DDIM with its defaults, written out: squared cosine, leading times, clean chunks cut to −1…1."""
    original = plain.Original(folder)
    head = {
        n.replace("noise_predictor.mlp_resnet.", "model."): t for n, t in plain.part_file(folder, "action_head").items()
    }
    noisy = plain.part_file(folder, "noisy_action_projector")
    token = plain.proprio_token(torch.from_numpy(STATE), plain.part_file(folder, "proprio_projector"))

    def bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    left, kept = [], 1.0
    for i in range(TIMES):
        kept *= 1 - min(1 - bar((i + 1) / TIMES) / bar(i / TIMES), 0.999)
        left.append(kept)
    text = original.embed(ids)
    seen = torch.cat([original.projected(image) for image in images])
    x = noise.clone()
    for t in [number * (TIMES // steps) for number in range(steps)][::-1]:
        rates = torch.exp(torch.arange(WIDTH // 2) * -math.log(10000) / (WIDTH // 2 - 1))
        time = torch.cat([(t * rates).sin(), (t * rates).cos()])
        slots = F.linear(
            F.gelu(F.linear(x.reshape(-1, 1), noisy["fc1.weight"], noisy["fc1.bias"])), noisy["fc2.weight"]
        )
        row = [text[:1], seen, token[None], time[None], text[1:], slots + noisy["fc2.bias"], original.embed([2])]
        joined = torch.cat(row)[None]
        everything = torch.zeros(1, 1, joined.shape[1], joined.shape[1])
        out = original.llm(inputs_embeds=joined, attention_mask=everything, output_hidden_states=True)
        first = joined.shape[1] - len(slots) - 2
        found = plain.l1_head(out.hidden_states[-1][0, first : first + len(slots)], head, 7)
        before = left[t - TIMES // steps] if t >= TIMES // steps else 1.0
        clean = ((x - math.sqrt(1 - left[t]) * found) / math.sqrt(left[t])).clamp(-1, 1)
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * found
    return x


@torch.inference_mode()
@pytest.mark.parametrize("steps", [7, 2, 1])  # with random weights, rounding grows tenfold every few steps
def test_a_chunk(steps: int, folder: Path, model: Model):
    acts = policy(model, settings=PolicySettings(steps=steps, seed=3))
    seen = {"images": {"image": picture(1), "wrist": picture(2)}, "proprio": proprio_of(model)}
    decision = acts.decide(seen, "pick up the red block")
    items = model.prepare({"image": [picture(1)], "image:wrist": [picture(2)]})
    images = [items["image"][0], items["image:wrist"][0]]
    noise = noise_of(3, 1, model.heads["action"])[0]  # type: ignore[arg-type]
    close(decision.values, by_hand(folder, ids_of(model, WORDS), images, noise, steps).double(), 1e-4)


@pytest.mark.parametrize("steps", [50, 20, 1])
def test_the_walk(steps: int, model: Model):
    """Times and what is left at them, as diffusers' defaults have them; one step from the noisiest to the next."""
    head = model.heads["action"]
    assert isinstance(head, DdimHead)

    def bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    left = np.cumprod([1 - min(1 - bar((i + 1) / TIMES) / bar(i / TIMES), 0.999) for i in range(TIMES)])
    found = list(head.walk(steps))
    assert [time for time, _, _ in found] == list(range(0, TIMES - TIMES % (TIMES // steps), TIMES // steps))[:steps][
        ::-1
    ]
    for time, now, then in found:
        before = left[time - TIMES // steps] if time >= TIMES // steps else 1.0
        assert now == pytest.approx(left[time], rel=1e-4)
        assert then == pytest.approx(before, rel=1e-4)
    noisy, noise = torch.randn(2, 1, 8, 7).unbind()
    clean = ((noisy - math.sqrt(0.75) * noise) / 0.5).clamp(-1, 1)
    assert torch.allclose(head.stepped(noisy, noise, 0.25, 0.64), 0.8 * clean + 0.6 * noise, atol=1e-6)


@pytest.mark.parametrize("steps", [50, 10, 7, 1])
def test_the_walk_of_diffusers(steps: int, model: Model):
    """The scheduler that OFT calls, where it is installed: the same times, and the same chunk from the same noise."""
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim", reason="diffusers is the original's")
    scheduler = scheduling.DDIMScheduler(num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(steps)
    head = model.heads["action"]
    assert isinstance(head, DdimHead)
    draw = torch.Generator().manual_seed(0)
    theirs = ours = torch.randn(1, 8, 7, generator=draw)
    for given, (time, now, then) in zip(scheduler.timesteps, head.walk(steps), strict=True):
        noise = torch.randn(1, 8, 7, generator=draw)
        theirs, ours = scheduler.step(noise, given, theirs).prev_sample, head.stepped(ours, noise, now, then)
        assert int(given) == time
    assert torch.allclose(theirs, ours, atol=2e-6)


def proprio_of(model: Model) -> np.ndarray:
    """The state that is STATE once it is normalised."""
    numbers = model.record["policy"]["statistics"]["libero_spatial_no_noops"]["proprio"]
    low, high = np.asarray(numbers["q01"]), np.asarray(numbers["q99"])
    return (STATE.astype(np.float64) + 1) / 2 * (high - low + 1e-8) + low


def test_what_it_is(model: Model, folder: Path):
    record = ActionRecord.of(model.record)
    assert (record.head, record.steps, record.chunk) == ("ddim", 50, 8)
    head = model.heads["action"]
    assert isinstance(head, DdimHead)
    assert (head.slots, head.early) == (57, 1)
    assert "noise of 50 steps" in " ".join(model.record["openvla"]["guesses"])
    with pytest.raises(ConfigError, match="expected 1 to 50"):
        list(head.walk(51))


def test_robots_in_a_batch(model: Model):
    acts = policy(model, settings=PolicySettings(steps=2))
    one = {"images": {"image": picture(1), "wrist": picture(2)}, "proprio": proprio_of(model)}
    other = {"images": {"image": picture(3), "wrist": picture(4)}, "proprio": -proprio_of(model)}
    both = acts.act_many([one, other], ["open it", "pick up the red block"])
    close(both[0], acts.act(one, "open it"))
    close(both[1], acts.act(other, "pick up the red block"))


def test_by_way_of_a_folder_of_ours_and_written_back(folder: Path, model: Model, tmp_path: Path):
    load(folder).save(tmp_path / "ours")
    seen = {"images": {"image": picture(1), "wrist": picture(2)}, "proprio": proprio_of(model)}
    again = policy(tmp_path / "ours", dtype="float32", settings=PolicySettings(steps=2))
    expected = policy(model, settings=PolicySettings(steps=2)).act(seen, "open it")
    assert np.array_equal(again.act(seen, "open it"), expected)
    out = write_openvla(load(tmp_path / "ours"), tmp_path / "out")
    for file in folder.glob("*.pt"):
        ours, theirs = (torch.load(place / file.name, weights_only=True) for place in (out, folder))
        assert {name.removeprefix("module."): t.tolist() for name, t in ours.items()} == {
            name.removeprefix("module."): t.tolist() for name, t in theirs.items()
        }
