"""Folders of OpenVLA's: features, logits and action ids are those of a plain reading of the same tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.interop.openvla.made import BLOCKS, CLIP, DINO, SIGLIP, SIZE, made_folder
from tests.interop.openvla.plain import Original
from tests.interop.openvla.rows import row
from vertebra import load
from vertebra.action.record import ActionRecord
from vertebra.backbone.weights import mapped_tensors
from vertebra.model.model import Model

PATCHES = 4
WORDS = "In: What action should the robot take to pick up the red block?\nOut:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_folder(tmp_path_factory.mktemp("folders") / "openvla")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, dtype="float32")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Original:
    return Original(folder)


def picture(seed: int = 0, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ids_of(model: Model, words: str = WORDS) -> list[int]:
    return [*model.tokenizer(words).input_ids, *model.record["policy"]["lead"]]


def close(found: Any, expected: Any, relative: float = 1e-5) -> None:
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    assert float((found - expected).abs().max()) <= relative * max(1.0, float(expected.abs().max()))


@torch.inference_mode()
def test_features_and_logits(model: Model, plain: Original):
    items = model.prepare({"image": [picture()]})
    pixels = items["image"][0]
    close(model.parts["image"].encoder(torch.from_numpy(items["image"]))[0], plain.patches(pixels))
    close(model.parts["image"](torch.from_numpy(items["image"]))[0], plain.projected(pixels))
    batch = model.collate([row(ids_of(model), [("image", PATCHES)])], [items])
    close(model(**batch, logits_to_keep=0).logits[0], plain.logits(ids_of(model), pixels))


@torch.inference_mode()
@pytest.mark.parametrize("timm_ids", [(SIGLIP,), (DINO,), (CLIP,), (DINO, CLIP), (DINO, SIGLIP)], ids=len)
def test_every_tower_alone_and_beside_another(timm_ids: tuple[str, ...], tmp_path: Path):
    where = made_folder(tmp_path / "folder", timm_ids, seed=3)
    found, expected = load(where, dtype="float32"), Original(where)
    items = found.prepare({"image": [picture(1)]})
    close(found.parts["image"](torch.from_numpy(items["image"]))[0], expected.projected(items["image"][0]))


@torch.inference_mode()
def test_a_batch_is_its_rows_whatever_kernel_computes_it(model: Model, plain: Original):
    texts = [WORDS, "In: What action should the robot take to open it?\nOut:"]
    items = [model.prepare({"image": [picture(seed)]}) for seed in (4, 5)]
    rows = [row(ids_of(model, text), [("image", PATCHES)]) for text in texts]
    expected = [plain.logits(ids_of(model, t), i["image"][0])[-1] for t, i in zip(texts, items, strict=True)]
    for kernel in ("eager", "sdpa"):
        with model.backbone.kernel(kernel):
            made = model(**model.collate(rows, items, side="left"), logits_to_keep=1).logits[:, 0]
        for one, other in zip(made, expected, strict=True):
            close(one, other)


def test_language_models_of_another_family(tmp_path: Path):
    """As VLA-Adapter writes them: no padding of the vocabulary, a pad id left over from LLaMA, a tied head."""
    where = made_folder(tmp_path / "qwen", llm="tiny-qwen2.5", config={"llm_backbone_id": "qwen25-0_5b-extra"})
    found, expected = load(where, dtype="float32"), Original(where)
    record = ActionRecord.of(found.record)
    assert found.backbone.pad_token_id != 32000
    assert record.bins == {"scheme": "openvla", "vocabulary": expected.rows - 64, "count": 256}
    assert any("action_vocabulary" in guess for guess in found.record["openvla"]["guesses"])
    assert record.lead == ()
    items = found.prepare({"image": [picture(2)]})
    ids = found.tokenizer(WORDS).input_ids
    with torch.inference_mode():
        made = found(**found.collate([row(ids, [("image", PATCHES)])], [items]), logits_to_keep=0).logits[0]
        close(made, expected.logits(ids, items["image"][0]))
    assert ActionRecord.of(load(where, action_vocabulary=900).record).bins["vocabulary"] == 900  # type: ignore[index]


def test_what_its_actions_mean(model: Model, folder: Path):
    record = ActionRecord.of(model.record)
    assert (record.head, record.dims, record.chunk, record.cameras) == ("tokens", 7, 1, ("image",))
    assert record.asked("Pick UP the red block") == WORDS
    rows = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    assert record.bins == {"scheme": "openvla", "vocabulary": rows - 64, "count": 256}
    assert record.statistics == json.loads((folder / "config.json").read_text())["norm_stats"]
    assert record.lead == (model.backbone.habits.lone_space_id,)
    assert model.record["openvla"]["guesses"] == []


def test_the_prompt_of_the_first_version(folder: Path, tmp_path: Path):
    where = tmp_path / "openvla-v01-7b"
    where.symlink_to(folder)
    for found in (load(where), load(folder, prompt="v01")):
        asked = ActionRecord.of(found.record).asked("Open it")
        assert asked.endswith("USER: What action should the robot take to open it? ASSISTANT:")
    assert "v01" in load(where).record["openvla"]["guesses"][0]


def test_what_is_never_run_is_kept_aside_and_nothing_else(model: Model, folder: Path):
    names = set(model.aside.tensors)
    last = f"blocks.{BLOCKS - 1}."
    assert names
    assert all(last in name or ".norm." in name or "attn_pool" in name for name in names)
    assert {"config.json", "tokenizer_config.json"} <= set(model.aside.files)
    assert not [name for name in model.aside.files if name.endswith(".py")]


def test_nothing_is_read_before_it_is_used_and_the_input_stays_as_it_is(folder: Path):
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    model = load(folder)
    assert model.backbone.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()} == before


def test_no_more_memory_than_the_mapped_shards_and_one_tensor(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """In the type that is stored: whatever has storage of its own is smaller, all together, than the largest tensor."""
    from vertebra.interop.openvla import read

    mapped: dict[str, torch.Tensor] = {}
    found = read.mapped_tensors

    def watched(place: Path) -> dict[str, torch.Tensor]:
        mapped.update(found(place))
        return dict(mapped)

    monkeypatch.setattr(read, "mapped_tensors", watched)
    model = load(folder)
    theirs = {tensor.untyped_storage().data_ptr() for tensor in mapped.values()}
    assert theirs
    own = [p for p in (*model.parameters(), *model.buffers()) if p.untyped_storage().data_ptr() not in theirs]
    names = [n for n, p in model.named_parameters() if p.untyped_storage().data_ptr() not in theirs]
    assert names == ["parts.image.encoder.towers.0.embeddings.position_embeddings"]  # a row of zeros before it
    assert sum(p.nbytes for p in own) < max(tensor.nbytes for tensor in mapped.values())


def test_to_train(folder: Path, plain: Original):
    model = load(folder, inference_mode=False)
    assert model.training
    assert model.backbone.dtype == torch.float32
    items = model.prepare({"image": [picture(6)]})
    sequence = row(ids_of(model), [("image", PATCHES)])
    weight = np.where(sequence.slot[:, 0] < 0, 1.0, 0.0).astype(np.float32)
    loss = model(**model.collate([sequence.with_vectors(weight=weight)], [items])).loss
    loss.backward()
    ids = ids_of(model)
    for parameter in plain.llm.parameters():
        parameter.grad = None
    logits = plain.logits(ids, items["image"][0])
    places = [0, *range(PATCHES + 1, PATCHES + len(ids))]  # BOS, then the text behind the patches
    read = [place - 1 for place in places[1:]]
    expected = torch.nn.functional.cross_entropy(logits[read], torch.tensor(ids[1:]))
    expected.backward()
    close(loss.detach(), expected.detach())
    ours = dict(model.backbone.llm.named_parameters())
    for name, parameter in plain.llm.named_parameters():
        assert parameter.grad is not None
        close(ours[name].grad, parameter.grad, 1e-4)


def test_weights_that_torch_wrote(folder: Path, model: Model, tmp_path: Path):
    where = tmp_path / "bin"
    shutil.copytree(folder, where, ignore=shutil.ignore_patterns("*.safetensors*"))
    torch.save(mapped_tensors(folder), where / "pytorch_model.bin")
    found = load(where, dtype="float32")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.state_dict().items())


def test_the_language_model_alone(folder: Path, model: Model):
    from vertebra import load_backbone

    alone = load_backbone(folder, inference_mode=True, weights=True, dtype="float32")
    ids = torch.tensor([model.tokenizer(WORDS).input_ids])
    with torch.inference_mode():
        assert torch.equal(alone(input_ids=ids).logits, model.backbone(input_ids=ids).logits)
