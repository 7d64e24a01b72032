"""Action heads on a model: the L1 head against plain loops and OFT's own formula, and a model that carries one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.model.models import close, slots, text
from vertebra.backbone.registry import load_backbone
from vertebra.decode.actions import predict
from vertebra.decode.state.prefill import prefill
from vertebra.errors import (
    CheckpointError,
    ConfigError,
    GenerationError,
    InjectionError,
    SequenceError,
    UnknownNameError,
    VertebraError,
)
from vertebra.model.description import describe
from vertebra.model.fresh import new_l1, new_queries
from vertebra.model.heads.interface import ActionHead, chunks_of
from vertebra.model.heads.kinds import HEADS, head_from, head_record, register_head
from vertebra.model.heads.l1 import L1Head
from vertebra.model.model import Model
from vertebra.sequence.loss import count_items
from vertebra.sequence.roles import NO_VALUE, VALUE_TARGET
from vertebra.sequence.tokens import TokenSequence
from vertebra.training.learner import Learner

CHUNK, DIMS = 3, 2


def acting(name: str = "tiny-llama2") -> Model:
    backbone = load_backbone(name, dtype="float32")
    torch.manual_seed(0)
    head = new_l1(backbone, chunk=CHUNK, dims=DIMS, hidden=16)
    return Model(backbone, {"action": new_queries(backbone, head.slots)}, heads={"action": head})


def chunk_slots(weight: Any = 1.0) -> TokenSequence:
    return slots("action", CHUNK * DIMS, target=[VALUE_TARGET] * CHUNK * DIMS, weight=weight, block=1)


def row(length: int = 5, seed: int = 0, *, chunks: int = 1, weight: Any = 1.0) -> tuple[TokenSequence, dict[str, Any]]:
    """Words, then chunks of slots, each with an end behind it; the end is learned as a token."""
    parts = [text(length, seed)]
    for number in range(chunks):
        parts += [chunk_slots(weight), text(1, seed + number, weight=1.0)]
    values = np.random.default_rng(seed).uniform(-1, 1, (chunks, CHUNK, DIMS)).astype(np.float32)
    return TokenSequence.join(parts), {"action": values} if chunks else {}


def batch_of(model: Model, *rows: tuple[TokenSequence, dict[str, Any]], side: Any = "right") -> Any:
    sequences, features = zip(*rows, strict=True)
    return model.collate(sequences, features, side=side)


ROWS = [row(5, 1), row(9, 2), row(3, 3, chunks=0), row(4, 4, chunks=2)]


def plain_net(head: L1Head, x: torch.Tensor) -> torch.Tensor:
    """OFT's formula, written out."""
    at = dict(head.named_parameters())

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-5).sqrt() * at[f"{name}.weight"] + at[f"{name}.bias"]

    x = torch.relu(norm(x, "model.layer_norm1") @ at["model.fc1.weight"].T + at["model.fc1.bias"])
    for block in range(head.blocks):
        inner = f"model.mlp_resnet_blocks.{block}.ffn"
        x = x + torch.relu(norm(x, f"{inner}.0") @ at[f"{inner}.1.weight"].T + at[f"{inner}.1.bias"])
    return norm(x, "model.layer_norm2") @ at["model.fc2.weight"].T + at["model.fc2.bias"]


def plain_losses(model: Model, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(the sum of all losses, the weight of all), row by row and number by number, from the model's own logits."""
    head: Any = model.heads["action"]
    inputs = {**batch, "features": {}}
    out = model(**inputs, return_loss=False, output_hidden_states=True, logits_to_keep=0)
    total, weight, seen = torch.zeros(()), torch.zeros(()), 0
    for r in range(batch.rows):
        columns = [c for c in range(batch.length) if int(batch["targets"][r, c]) == VALUE_TARGET]
        for start in range(0, len(columns), head.slots):
            chunk = columns[start : start + head.slots]
            states = torch.stack([out.hidden_states[-1][r, c - 1] for c in chunk])
            made = torch.stack([plain_net(head, states[i * DIMS : (i + 1) * DIMS].reshape(-1)) for i in range(CHUNK)])
            expected = batch["features"]["action"]["values"][seen]
            seen += 1
            for number, column in enumerate(chunk):
                w = batch["weights"][r, column]
                total = total + w * (made.flatten()[number] - expected.flatten()[number]).abs()
                weight = weight + w
        for c in range(1, batch.length):
            if batch["weights"][r, c] > 0 and int(batch["targets"][r, c]) >= 0:
                total = total + F.cross_entropy(out.logits[r, c - 1], batch["targets"][r, c])
                weight = weight + 1
    return total, weight


def test_its_modules_are_called_as_in_openvla_oft():
    names = [name for name, _ in L1Head(4, chunk=1, dims=2, blocks=2).named_parameters()]
    ends = [f"{name}.{end}" for name in ("layer_norm1", "fc1") for end in ("weight", "bias")]
    for block in (0, 1):
        ends += [f"mlp_resnet_blocks.{block}.ffn.{i}.{end}" for i in (0, 1) for end in ("weight", "bias")]
    ends += [f"{name}.{end}" for name in ("layer_norm2", "fc2") for end in ("weight", "bias")]
    assert names == [f"model.{end}" for end in ends]


def test_its_shape_is_read_off_a_checkpoint():
    head = L1Head(6, chunk=4, dims=3, hidden=5, blocks=1)
    again = L1Head.shaped_as(head.state_dict(), chunk=4)
    assert again.settings() == head.settings()
    again.load_state_dict(head.state_dict())
    states = torch.randn(2, 12, 6)
    assert torch.equal(again(states), head(states))
    close(head(states), plain_net(head, states.reshape(2, 4, -1)))
    with pytest.raises(CheckpointError, match=r"fc2\.weight.* is missing"):
        L1Head.shaped_as({"model.layer_norm1.weight": torch.zeros(3)}, chunk=1)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_loss_is_the_plain_one(name: str, side: str):
    model = acting(name)
    batch = batch_of(model, *ROWS, side=side)
    total, weight = plain_losses(model, batch)
    assert float(count_items(batch)) == float(weight)
    close(model(**batch).loss, total / weight)
    close(model(**batch, num_items_in_batch=40).loss, total / 40)
    for fused in (True, False):
        learner = Learner(model, fused=fused)
        close(learner(**batch)["loss"], total / weight)
        close(learner(**batch, num_items_in_batch=torch.tensor(40.0))["loss"], total / 40)


def test_numbers_count_by_their_weights_and_padding_of_a_chunk_not_at_all():
    """The last action of a chunk lies behind its episode's end."""
    weight = [1.0, 0.5, 2.0, 1.0, 0.0, 0.0]
    model = acting()
    first, second = row(5, 1, weight=weight), row(7, 2)
    batch = batch_of(model, first, second)
    total, count = plain_losses(model, batch)
    assert float(count) == 4.5 + 6 + 2
    close(model(**batch).loss, total / count)
    other = {"action": first[1]["action"].copy()}
    other["action"][:, -1] = 9.0
    close(model(**batch_of(model, (first[0], other), second)).loss, total / count)


def test_gradients_are_those_of_the_plain_loss():
    model = acting()
    batch = batch_of(model, *ROWS)
    found = []
    for loss in (lambda: Learner(model)(**batch)["loss"], lambda: torch.div(*plain_losses(model, batch))):
        model.zero_grad()
        loss().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == dict(model.named_parameters()).keys()
    for name, gradient in found[0].items():
        close(gradient, found[1][name], 1e-4)


def test_packed_chunks_are_learned_as_alone():
    model = acting()
    parts = [row(5, 1), row(6, 2), row(4, 3, chunks=2)]
    packed = TokenSequence.join([sequence for sequence, _ in parts], new_documents=True)
    features = {"action": np.concatenate([given["action"] for _, given in parts])}
    one = model(**batch_of(model, (packed, features))).loss
    close(one, model(**batch_of(model, *parts)).loss)


def test_accumulation_over_batches_of_chunks_and_of_words_is_one_batch():
    model = acting()
    learner = Learner(model)
    items = count_items(batch_of(model, *ROWS))
    parts = [learner(**batch_of(model, one), num_items_in_batch=items)["loss"] for one in ROWS]
    close(torch.stack(parts).sum(), learner(**batch_of(model, *ROWS), num_items_in_batch=items)["loss"])


def test_a_loss_of_ones_own_has_no_say_in_numbers():
    model = acting()
    learner = Learner(model, function=lambda outputs, batch, items: outputs.logits.sum())
    with pytest.raises(ConfigError, match="by a loss of its own"):
        learner(**batch_of(model, *ROWS))


def test_a_batch_without_chunks_teaches_words_alone():
    model = acting()
    batch = batch_of(model, row(6, 1, chunks=0), row(4, 2, chunks=0))
    assert model.answering(batch) is None
    words = TokenSequence.join([text(5, 1), text(2, 2, weight=1.0)])
    batch = model.collate([words])
    close(Learner(model)(**batch)["loss"], Model(model.backbone)(**batch).loss)


def test_values_of_chunks_are_no_inputs():
    """What must be predicted does not leak: the logits are the same for any values."""
    model = acting().eval()
    first, (sequence, values) = row(5, 1), row(5, 1)
    other = {"action": -values["action"]}
    logits = [model(**batch_of(model, one), return_loss=False).logits for one in (first, (sequence, other))]
    assert torch.equal(*logits)
    assert torch.equal(logits[0], model(**model.collate([sequence]), return_loss=False).logits)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_folder_keeps_it(tmp_path: Path, dtype: str | None):
    model = acting()
    model.save(tmp_path / "made")
    again = Model.load(tmp_path / "made", dtype=dtype)
    head: Any = again.heads["action"]
    assert head.settings() == model.heads["action"].settings()
    for name, tensor in model.heads.state_dict().items():
        assert torch.equal(again.heads.state_dict()[name], tensor.to(again.backbone.dtype)), name
    if dtype is None:
        batch = batch_of(model, *ROWS)
        assert torch.equal(again(**batch).loss, model(**batch).loss)
        runs = Model.load(tmp_path / "made", inference_mode=True)
        assert torch.equal(runs(**batch).loss, model.eval()(**batch).loss)


def test_a_folder_without_heads_is_as_it_was(tmp_path: Path):
    """Folders that were written before there were heads have no such entry."""
    backbone = load_backbone("tiny-llama2", dtype="float32")
    folder = Model(backbone, {"action": new_queries(backbone, 2)}).save(tmp_path / "made")
    record = json.loads((folder / "vertebra.json").read_text())
    assert record.pop("heads") == {}
    (folder / "vertebra.json").write_text(json.dumps(record))
    assert len(Model.load(folder).heads) == 0
    assert describe(folder).heads == ()


def test_a_folder_is_drawn_with_it(tmp_path: Path):
    folder = acting().save(tmp_path / "made")
    drawn = describe(folder).draw()
    assert "action" in drawn
    assert "3 × 2 numbers by L1 regression, 2 residual blocks of 16" in drawn
    assert "6 hidden states ──l1──► 3 × 2" in drawn
    head = describe(folder).heads[0]
    assert head.parameters == sum(p.numel() for p in acting().heads.parameters())
    assert describe(folder).parameters == sum(p.numel() for p in acting().parameters())


def test_damaged_folders_say_what_lacks(tmp_path: Path):
    model = acting()
    folder = model.save(tmp_path / "made")
    record = json.loads((folder / "vertebra.json").read_text())
    for change, message in (
        ({"kind": "l2"}, "kind `l2`.*`l1`"),
        ({"settings": {"width": 4}}, "cannot be built"),
        ({"settings": {**record["heads"]["action"]["settings"], "hidden": 8}}, r"expected \(8,"),
    ):
        entry = {"action": {**record["heads"]["action"], **change}}
        (folder / "vertebra.json").write_text(json.dumps({**record, "heads": entry}))
        with pytest.raises(VertebraError, match=message):
            Model.load(folder)
    (folder / "vertebra.json").write_text(json.dumps({**record, "heads": {}}))
    with pytest.raises(CheckpointError, match="belongs to no head"):
        Model.load(folder)


def test_batches_that_do_not_fit_are_refused():
    model = acting()
    sequence, values = row(5, 1)
    for features, message in (
        ({}, "brings no value"),
        ({"action": values["action"][:, :2]}, r"chunks of 3 actions of 2 numbers"),
        ({"action": np.repeat(values["action"], 2, 0)}, "row 0 has 2 chunks for 1"),
    ):
        with pytest.raises(InjectionError, match=message):
            model(**model.collate([sequence], [features]))
    short = TokenSequence.join([text(3), sequence.cut(5, 9)])
    with pytest.raises(InjectionError, match="row 0 has 4; its head takes 6"):
        model(**model.collate([short], [values]))
    with pytest.raises(InjectionError, match="begins a document"):
        model(**model.collate([sequence.cut(5)], [values]))
    without = Model(model.backbone, dict(model.parts.items()))  # type: ignore[arg-type]
    with pytest.raises(SequenceError, match=r"no head of the model.*Heads: none"):
        without(**without.collate([sequence]))
    word = TokenSequence.of([5, 6], target=[5, VALUE_TARGET], weight=[0, 1])
    with pytest.raises(SequenceError, match="a position that is no slot"):
        model(**model.collate([word]))


def test_heads_that_do_not_fit_are_refused():
    backbone = load_backbone("tiny-llama2", dtype="float32")
    queries = new_queries(backbone, 6)
    narrow = L1Head(8, chunk=3, dims=2)
    for parts, head, why in (
        ({"action": queries}, narrow, "width 8"),
        ({}, new_l1(backbone, chunk=3, dims=2), "no part of its name"),
        ({"action": queries}, new_l1(backbone, chunk=4, dims=2), "takes 8 slots.* its part has 6"),
    ):
        with pytest.raises(ConfigError, match=why):
            Model(backbone, parts, heads={"action": head})
    with pytest.raises(ConfigError, match="chunk is 0, dims is -1"):
        L1Head(4, chunk=0, dims=-1)


def test_one_of_your_own_has_a_name_of_its_own():
    class Mine(L1Head):
        kind = "mine"

    register_head(Mine)
    try:
        made = head_from(head_record(Mine(4, chunk=1, dims=1)), where="it")
        assert isinstance(made, Mine)
        assert isinstance(made, ActionHead)
        with pytest.raises(ConfigError, match="exists already"):
            register_head(Mine)
    finally:
        HEADS.pop("mine")


@pytest.mark.parametrize("see", ["given", "block", "row", "causal"])
@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2"])
def test_predictions_are_plain_whole_forwards_whoever_sees_whom(name: str, see: Any):
    """In a batch of prompts of other lengths, and behind a state; the plain way has its mask written out."""
    model = acting(name).eval()
    head: Any = model.heads["action"]
    sequences = [row(5, 1)[0], row(9, 2)[0]]
    made = predict(model, sequences, see=see)
    state = None if see == "row" else prefill(model, [one.cut(0, 3) for one in sequences])
    for number, sequence in enumerate(sequences):
        length, at = len(sequence), np.flatnonzero(sequence.slot[:, 0] >= 0)
        table = torch.ones(length, length).tril().bool()
        if see in ("given", "block"):
            table[at[0] : at[-1] + 1, at[0] : at[-1] + 1] = True
        if see == "row":
            table[:] = True
        mask = torch.where(table, 0.0, torch.finfo(torch.float32).min)[None, None]
        embeds = model.embed(model.collate([sequence.with_vectors(block=[0] * length)]))
        with torch.no_grad():
            hidden = model.backbone.llm.base_model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
            close(made[number], plain_net(head, hidden[0, at - 1].reshape(CHUNK, -1)))
    rest = [one.cut(3).with_vectors(position=one.cut(3).position - 3) for one in sequences]
    if state is None:
        with pytest.raises(GenerationError, match="leave `state` out"):
            predict(model, rest, see=see, state=prefill(model, sequences[0].cut(0, 3)))
    else:
        close(predict(model, rest, see=see, state=state), made)


def test_options_without_effect_are_refused():
    model = acting().eval()
    with pytest.raises(ConfigError, match="steps: without effect on a head `l1`"):
        predict(model, row(5, 1)[0], steps=3)
    with pytest.raises(UnknownNameError, match="Did you mean `block`"):
        predict(model, row(5, 1)[0], see="blok")  # type: ignore[arg-type]
    with pytest.raises(GenerationError, match="row 1 has 2"):
        predict(model, [row(5, 1)[0], row(5, 1, chunks=2)[0]])


def test_chunks_are_found_in_their_order():
    model = acting()
    batch = batch_of(model, *ROWS, side="left")
    at = chunks_of(batch, "action", CHUNK * DIMS)
    assert at.rows.tolist() == [0, 1, 3, 3]
    for chunk, r in enumerate(at.rows.tolist()):
        columns = at.columns[chunk]
        assert (batch["slot"][r, columns, 0] == 0).all()
        assert (columns.diff() == 1).all()
    assert len(chunks_of(batch, "other", 2)) == 0


def test_one_slot_answers_for_a_whole_chunk():
    backbone = load_backbone("tiny-llama2", dtype="float32")
    head = new_l1(backbone, chunk=CHUNK, dims=DIMS, hidden=16, one_slot=True)
    model = Model(backbone, {"action": new_queries(backbone, head.slots)}, heads={"action": head})
    assert head.slots == 1
    assert head_from(head_record(head), where="here").settings() == head.settings()
    one = slots("action", 1, target=[VALUE_TARGET], weight=2.0, block=1)
    sequence = TokenSequence.join([text(5, 1), one])
    values = np.random.default_rng(1).uniform(-1, 1, (1, CHUNK, DIMS)).astype(np.float32)
    values[0, 2] = NO_VALUE
    batch = batch_of(model, (sequence, {"action": values}))
    with torch.no_grad():
        seen = model(**batch, output_hidden_states=True)
        made = predict(model, [sequence])
    state = seen.hidden_states[-1]
    close(made, plain_net(head, state[:, 4]).view(1, CHUNK, DIMS))
    errors = (made.numpy()[0, :2] - values[0, :2]).__abs__()
    assert float(seen.loss) == pytest.approx(errors.mean(), rel=1e-5), (
        "of what stands behind the end nothing is learned"
    )
