"""Folders of OpenVLA-OFT: a chunk in one pass, as a plain reading of the same tensors makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.interop.openvla import plain
from tests.interop.openvla.made import SIZE, Draw, made_folder, made_oft, statistics
from tests.interop.openvla.rows import row
from tests.interop.openvla.test_read import PATCHES, WORDS, close, ids_of, picture
from tests.interop.openvla.test_write import same
from vertebra import fill, load
from vertebra.action.record import ActionRecord, segment_of
from vertebra.interop import write_openvla
from vertebra.model.encoders.tensorflow_steps import lanczos, middle_of
from vertebra.model.model import Model

STATE = np.linspace(-1, 1, 8, dtype=np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_oft(tmp_path_factory.mktemp("folders") / "oft")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, dtype="float32")


def asked(model: Model, seed: int = 0, words: str = WORDS, proprio: Any = STATE) -> tuple[Any, dict[str, Any]]:
    """A row and its items, for every camera that the model has."""
    record = ActionRecord.of(model.record)
    segments = [segment_of(camera) for camera in record.cameras]
    items = model.prepare({name: [picture(seed + 10 * number)] for number, name in enumerate(segments)})
    slots = [(name, PATCHES) for name in segments]
    if record.proprio:
        items["proprio"] = np.asarray(proprio, np.float32)[None]
        slots.append(("proprio", 1))
    return row(ids_of(model, words), slots, record.chunk * record.dims, record.tail), items


@torch.inference_mode()
def states_of(model: Model, rows: list[Any], items: list[Any]) -> torch.Tensor:
    """[rows, slots, D]: what enters the head, one before each slot."""
    batch = model.collate(rows, items, side="left")
    out = model(**batch, return_loss=False, logits_to_keep=0, output_hidden_states=True)
    at = (batch["slot"][..., 0] == batch["segments"].index("action")).nonzero()
    count = len(at) // len(rows)
    return out.hidden_states[-1][at[:, 0], at[:, 1] - 1].view(len(rows), count, -1)


def expected_of(folder: Path, model: Model, items: Any, words: str = WORDS, proprio: Any = STATE) -> tuple[Any, Any]:
    """States and actions by hand."""
    record, original = ActionRecord.of(model.record), plain.Original(folder)
    token = None
    if record.proprio:
        token = plain.proprio_token(torch.as_tensor(proprio), plain.part_file(folder, "proprio_projector"))
    images = [items[segment_of(camera)][0] for camera in record.cameras]
    with torch.inference_mode():
        states, logits = original.chunk(ids_of(model, words), images, token, record.chunk * record.dims)
        if record.head == "l1":
            return states, plain.l1_head(states, plain.part_file(folder, "action_head"), record.dims)
        return states, logits


@torch.inference_mode()
def test_a_chunk(folder: Path, model: Model):
    sequence, items = asked(model)
    states, actions = expected_of(folder, model, items)
    found = states_of(model, [sequence], [items])
    close(found[0], states)
    close(model.heads["action"](found)[0].detach(), actions)


@torch.inference_mode()
def test_batches_and_kernels(folder: Path, model: Model):
    """Of two prompts of different lengths, padded; sdpa loses what eager sees in the original."""
    other = "In: What action should the robot take to open it?\nOut:"
    rows, items = zip(asked(model), asked(model, 3, other, STATE[::-1].copy()), strict=True)
    expected = [
        expected_of(folder, model, items[0])[0],
        expected_of(folder, model, items[1], other, STATE[::-1].copy())[0],
    ]
    for kernel in ("eager", "sdpa"):
        with model.backbone.kernel(kernel):
            found = states_of(model, list(rows), list(items))
        for one, requested in zip(found, expected, strict=True):
            close(one, requested)


def test_what_its_record_says(model: Model, folder: Path):
    record = ActionRecord.of(model.record)
    assert (record.head, record.chunk, record.dims, record.proprio) == ("l1", 8, 7, 8)
    assert (record.cameras, record.attention, record.tail) == (("image", "wrist"), "row", (2,))
    assert record.normalization == "quantile"
    assert list(record.statistics) == ["libero_spatial_no_noops"]
    guesses = " ".join(model.record["openvla"]["guesses"])
    assert "robot `libero`" in guesses
    assert "chunk=…" in guesses
    assert "not cut" in guesses


def test_other_robots(tmp_path: Path):
    aloha = made_oft(tmp_path / "aloha", dims=14, proprio=14, data_set="aloha_scoop", norm_stats={})
    record = ActionRecord.of(load(aloha).record)
    assert (record.chunk, record.dims, record.normalization) == (25, 14, "min-max")
    assert record.cameras == ("image", "left_wrist", "right_wrist")
    bridge = made_oft(tmp_path / "x", proprio=7, data_set="bridge_orig", norm_stats={})
    record = ActionRecord.of(load(bridge).record)
    assert (record.chunk, record.cameras) == (5, ("image",))
    reported = load(bridge, chunk=3, cameras=("image", "wrist"), center_crop=True)
    record = ActionRecord.of(reported.record)
    assert (record.chunk, record.cameras, record.normalization) == (3, ("image", "wrist"), "quantile")
    assert reported.record["openvla"]["guesses"] == []


@torch.inference_mode()
def test_three_cameras(tmp_path: Path):
    aloha = made_oft(tmp_path / "aloha", dims=14, proprio=14, data_set="aloha_scoop", norm_stats={})
    model, state = load(aloha, dtype="float32", chunk=2), np.linspace(-1, 1, 14, dtype=np.float32)
    sequence, items = asked(model, proprio=state)
    states, actions = expected_of(aloha, model, items, proprio=state)
    found = states_of(model, [sequence], [items])
    close(found[0], states)
    close(model.heads["action"](found)[0].detach(), actions)


@torch.inference_mode()
def test_tokens_in_slots(tmp_path: Path):
    """OFT without a head: the best token of every slot, of all rows and of those of actions."""
    where = made_oft(tmp_path / "discrete", head=False)
    model = load(where, dtype="float32")
    record = ActionRecord.of(model.record)
    assert (record.head, record.chunk, record.cameras) == ("parallel", 8, ("image", "wrist"))
    sequence, items = asked(model)
    _, logits = expected_of(where, model, items)
    batch = model.collate([sequence], [items])
    assert fill(model, batch).tokens[0] == logits.argmax(-1).tolist()
    vocabulary = (record.bins or {})["vocabulary"]
    allowed = list(range(vocabulary - 256, vocabulary))
    best = logits[:, allowed].argmax(-1) + allowed[0]
    assert fill(model, batch, allowed=allowed).tokens[0] == best.tolist()
    one = ActionRecord.of(load(made_folder(tmp_path / "plain"), chunk=4).record)
    assert (one.head, one.chunk, one.proprio, one.cameras) == ("parallel", 4, None, ("image",))


def test_images_are_resized_as_its_data_were_and_cut_where_training_did(folder: Path, tmp_path: Path):
    from PIL import Image

    image = Image.fromarray(picture(1, 40, 50))
    found = load(folder).prepare({"image": [image]})["image"][0]
    assert np.array_equal(found, np.asarray(lanczos(image, SIZE)).transpose(2, 0, 1))
    named = tmp_path / "openvla--image_aug"
    named.symlink_to(folder)
    for model in (load(named), load(folder, center_crop=True)):
        cut = np.asarray(middle_of(lanczos(image, SIZE), SIZE)).transpose(2, 0, 1)
        assert np.array_equal(model.prepare({"image": [image]})["image"][0], cut)


def test_by_way_of_a_folder_of_ours_and_written_back(folder: Path, model: Model, tmp_path: Path):
    load(folder).save(tmp_path / "ours")
    again = load(tmp_path / "ours", dtype="float32")
    sequence, items = asked(model)
    assert torch.equal(states_of(again, [sequence], [items]), states_of(model, [sequence], [items]))
    out = write_openvla(load(tmp_path / "ours"), tmp_path / "out")
    same(out, folder)
    for file in folder.glob("*.pt"):
        ours, theirs = (torch.load(place / file.name, weights_only=True) for place in (out, folder))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    again = load(out, dtype="float32")
    assert torch.equal(states_of(again, [sequence], [items]), states_of(model, [sequence], [items]))


def test_loss_and_gradients(folder: Path):
    """The L1 loss of a batch and its gradients, through head, language model and projector, against autograd by hand."""
    model = load(folder, inference_mode=False)
    record = ActionRecord.of(model.record)
    sequence, items = asked(model)
    target = torch.rand(record.chunk, record.dims, generator=torch.Generator().manual_seed(0)) * 2 - 1
    from vertebra.sequence.roles import VALUE_TARGET

    at = sequence.segments.index("action")
    here = sequence.slot[:, 0] == at
    supervised = sequence.with_vectors(
        target=np.where(here, VALUE_TARGET, sequence.target), weight=here.astype(np.float32)
    )
    batch = model.collate([supervised], [{**items, "action": target.numpy()[None]}])
    loss = model(**batch).loss
    loss.backward()
    original = plain.Original(folder)
    head = {name: t.requires_grad_() for name, t in plain.part_file(folder, "action_head").items()}
    for name in ("projector.fc1.weight", "projector.fc3.bias"):
        original.tensors[name].requires_grad_()  # type: ignore[index]
    token = plain.proprio_token(torch.from_numpy(STATE), plain.part_file(folder, "proprio_projector"))
    images = [items[segment_of(camera)][0] for camera in record.cameras]
    states, _ = original.chunk(ids_of(model), images, token, record.chunk * record.dims)
    expected = (plain.l1_head(states, head, record.dims) - target).abs().mean()
    expected.backward()
    close(loss.detach(), expected.detach())
    for name, parameter in model.heads["action"].named_parameters():
        close(parameter.grad, head[name].grad, 1e-4)
    for name, parameter in original.llm.named_parameters():
        if parameter.grad is not None and "lm_head" not in name:
            close(dict(model.backbone.llm.named_parameters())[name].grad, parameter.grad, 1e-4)
    projector = dict(model.parts["image"].projector.named_parameters())
    close(projector["fc1.weight"].grad, original.tensors["projector.fc1.weight"].grad, 1e-4)
    close(projector["fc3.bias"].grad, original.tensors["projector.fc3.bias"].grad, 1e-4)


def test_statistics_of_draws():
    """What the folders of these tests are made of differs from seed to seed."""
    assert statistics(seed=1) != statistics(seed=2)
    assert not torch.equal(Draw(0)(3), Draw(1)(3))
