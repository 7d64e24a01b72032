"""FiLM: what is asked changes what the towers see; OFT's wrapped towers, unwrapped, are those of a plain reading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.interop.openvla import plain
from tests.interop.openvla.made import BLOCKS, DINO, SIGLIP, WIDTHS, Draw, made_oft
from tests.interop.openvla.test_oft import asked, expected_of, ids_of, states_of
from tests.interop.openvla.test_read import WORDS, close
from vertebra import load
from vertebra.backbone.weights import mapped_tensors
from vertebra.errors import CheckpointError, ConfigError, InjectionError
from vertebra.interop import write_openvla
from vertebra.model.model import Model

HEARD, RANK = 64, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OFT's folder with the towers in a file of their own, wrapped: `.block.`, `.base_layer`, matrices of PEFT's."""
    where = made_oft(tmp_path_factory.mktemp("folders") / "film")
    draw, wrapped = Draw(50), {}
    for name, tensor in mapped_tensors(where).items():
        if not name.startswith("vision_backbone."):
            continue
        own = name
        if ".blocks." in name:
            stem, _, rest = name.partition(".blocks.")
            number, _, leaf = rest.partition(".")
            own = f"{stem}.blocks.{number}.block.{leaf}"
        linear = tensor.ndim == 2 and own.endswith("weight")
        if not linear:
            wrapped[own.replace(".bias", ".base_layer.bias") if _of_linear(own) else own] = tensor
            continue
        wrapped[own.replace(".weight", ".base_layer.weight")] = tensor
        wrapped[own.replace(".weight", ".lora_A.default.weight")] = draw(RANK, tensor.shape[1])
        wrapped[own.replace(".weight", ".lora_B.default.weight")] = draw(len(tensor), RANK, scale=0.1)
    for prefix, timm_id in (("featurizer", DINO), ("fused_featurizer", SIGLIP)):
        for i in range(BLOCKS):
            for what in ("scale", "shift"):
                stem = f"vision_backbone.{prefix}.blocks.{i}.{what}"
                wrapped[f"{stem}.weight"] = draw(WIDTHS[timm_id], HEARD)
                wrapped[f"{stem}.bias"] = draw(WIDTHS[timm_id], scale=0.1)
    torch.save(wrapped, where / "vision_backbone--150000_checkpoint.pt")
    return where


def _of_linear(name: str) -> bool:
    return name.endswith(
        ("qkv.bias", "attn.proj.bias", "fc1.bias", "fc2.bias", "pool.q.bias", "kv.bias", "pool.proj.bias")
    )


def unwrapped(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the folder, those of the towers as the file has them, PEFT's share added by hand."""
    given = torch.load(folder / "vision_backbone--150000_checkpoint.pt", weights_only=True)
    made = {n: t.float() for n, t in mapped_tensors(folder).items() if not n.startswith("vision_backbone.")}
    for name, tensor in given.items():
        if ".lora_" in name:
            continue
        value = tensor.float()
        if name.endswith(".base_layer.weight"):
            a, b = (given[name.replace("base_layer", f"lora_{half}.default")].float() for half in "AB")
            value = value + min(RANK, 16) / RANK * (b @ a)
        made[name.replace(".block.", ".").replace(".base_layer", "")] = value
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, dtype="float32")


def heard_of(original: plain.Original, model: Model, words: str) -> torch.Tensor:
    return torch.cat([original.embed(ids_of(model, words)), original.embed([2])]).mean(0)


@torch.inference_mode()
def test_a_chunk(folder: Path, model: Model):
    original = plain.Original(folder, unwrapped(folder))
    sequence, items = asked(model)
    token = plain.proprio_token(torch.linspace(-1, 1, 8), plain.part_file(folder, "proprio_projector"))
    images = [items["image"][0], items["image:wrist"][0]]
    states, _ = original.chunk(ids_of(model), images, token, 56, film=True)
    close(states_of(model, [sequence], [items])[0], states)


@torch.inference_mode()
def test_every_row_hears_its_own_text(folder: Path, model: Model):
    other = "In: What action should the robot take to open it?\nOut:"
    rows, items = zip(asked(model), asked(model, 0, other), strict=True)
    batch = model.collate(list(rows), list(items), side="left")
    injection = model.encode(batch)
    original = plain.Original(folder, unwrapped(folder))
    pixels = items[0]["image"][0]
    at = batch["segments"].index("image")
    for number, words in enumerate((WORDS, other)):
        found = injection.values[injection.where[number][batch["slot"][number, :, 0] == at]]
        close(found, original.projected(pixels, heard_of(original, model, words)))


def test_by_way_of_a_folder_of_ours(model: Model, folder: Path, tmp_path: Path):
    load(folder).save(tmp_path / "ours")
    again = load(tmp_path / "ours", dtype="float32")
    assert again.parts["image"].encoder.reads_text
    sequence, items = asked(model)
    narrow = load(folder).to(torch.float32)
    close(states_of(again, [sequence], [items]), states_of(narrow, [sequence], [items]), 1e-6)


def test_written_back_as_its_loader_expects_it(model: Model, folder: Path, tmp_path: Path):
    out = write_openvla(load(folder), tmp_path / "out")
    name = "vision_backbone--150000_checkpoint.pt"
    ours, theirs = (torch.load(place / name, weights_only=True) for place in (out, folder))
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}
    assert mapped_tensors(out).keys() == mapped_tensors(folder).keys()
    assert not any(tensor.any() for key, tensor in ours.items() if ".lora_" in key)
    sequence, items = asked(model)
    found, expected = (states_of(load(place, dtype="float32"), [sequence], [items]) for place in (out, folder))
    assert float((found - expected).abs().max()) < 0.2 * float(expected.abs().max())  # the towers were rounded to bf16
    again = write_openvla(load(out), tmp_path / "again")
    assert all(torch.equal(tensor, ours[key]) for key, tensor in torch.load(again / name, weights_only=True).items())


def test_what_cannot_be(model: Model, folder: Path, tmp_path: Path):
    with pytest.raises(InjectionError, match="reads the text of its row"):
        model.parts["image"](model.parts["image"].encoder.sample(1, torch.Generator()))
    from vertebra.training.cached.tower import cached_images

    with pytest.raises(ConfigError, match="reads the text"):
        cached_images(model, [], None, lambda: torch.no_grad(), precision="fp32")
    where = made_oft(tmp_path / "plain")
    towers = {n: t for n, t in mapped_tensors(where).items() if n.startswith("vision_backbone.")}
    torch.save(towers, where / "vision_backbone--5_checkpoint.pt")
    with pytest.raises(CheckpointError, match="no scale and shift"):
        load(where)
    assert expected_of is not None


def test_gradients_reach_scale_and_shift_recomputed_or_not(folder: Path):
    model = load(folder, inference_mode=False)
    sequence, items = asked(model)
    found = []
    for recompute in (False, True):
        model.zero_grad()
        for tower in model.parts["image"].encoder.towers:
            tower.recompute = recompute
        injection = model.encode(model.collate([sequence], [items]))
        injection.values.square().sum().backward()
        found.append(model.parts["image"].encoder.towers[0].film.scale[0].weight.grad.clone())
    assert float(found[0].abs().max()) > 0
    close(found[0], found[1])
