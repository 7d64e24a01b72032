"""Flow matching: prefix once against everything anew, the loss and the guided steps against plain formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import DynamicCache

from tests.model import test_heads
from tests.model.models import close, slots, text
from vertebra.action.chunks import guidance_weight, prefix_weights
from vertebra.backbone.registry import load_backbone
from vertebra.decode.actions import noise_of, predict
from vertebra.decode.state.prefill import prefill
from vertebra.errors import BackboneError, ConfigError, GenerationError, UnknownNameError
from vertebra.model.description import describe
from vertebra.model.fresh import new_flow, new_queries
from vertebra.model.heads.flow import FlowHead, sin_cos, times_of
from vertebra.model.heads.previous import Previous
from vertebra.model.model import Model
from vertebra.sequence.loss import count_items
from vertebra.sequence.roles import VALUE_TARGET
from vertebra.sequence.tokens import TokenSequence
from vertebra.training.learner import Learner

CHUNK, DIMS = 4, 2


def acting(name: str = "tiny-llama2", **settings: Any) -> Model:
    backbone = load_backbone(name, dtype="float32")
    torch.manual_seed(0)
    head = new_flow(backbone, chunk=CHUNK, dims=DIMS, width=16, inner=24, **settings)
    return Model(backbone, {"action": new_queries(backbone, 1)}, heads={"action": head})


def head_of(model: Model) -> FlowHead:
    head: Any = model.heads["action"]
    return head


def row(
    length: int = 5, seed: int = 0, *, weight: float = 1.0, end: bool = True
) -> tuple[TokenSequence, dict[str, Any]]:
    slot = slots("action", 1, target=[VALUE_TARGET], weight=weight)
    parts = [text(length, seed), slot, *([text(1, seed, weight=1.0)] if end else [])]
    values = np.random.default_rng(seed).uniform(-1, 1, (1, CHUNK, DIMS)).astype(np.float32)
    return TokenSequence.join(parts), {"action": values}


def batch_of(model: Model, *rows: Any, side: Any = "right") -> Any:
    sequences, features = zip(*rows, strict=True)
    return model.collate(sequences, features, side=side)


ROWS = [row(5, 1), row(9, 2, weight=0.5), row(3, 3)]


def plain_velocity(model: Model, sequence: TokenSequence, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """One chunk [chunk, dims], everything anew: the backbone over the row up to its slot, and loops over heads."""
    head = head_of(model)
    stop = int(np.flatnonzero(sequence.slot[:, 0] >= 0)[-1]) + 1
    batch = model.collate([sequence.cut(0, stop)])
    # without the model's config it forgets nothing, windows or not; the embeddings go in by hand
    cache = DynamicCache()
    model.backbone.llm(inputs_embeds=model.embed(batch), past_key_values=cache, use_cache=True)
    w = dict(head.named_parameters())
    moments = sin_cos(time, head.expert_width)
    h = torch.cat([x @ w["action_in.weight"].T + w["action_in.bias"], moments], -1)
    h = F.silu(h @ w["time_in.weight"].T + w["time_in.bias"]) @ w["time_out.weight"].T + w["time_out.bias"]
    key_heads, width, theta = (head.settings()[name] for name in ("key_heads", "head_dim", "theta"))
    for number, layer in enumerate(head.layers):
        at = {name.split(".", 3)[3]: p for name, p in w.items() if name.startswith(f"expert.layers.{number}.")}
        cached = cache.layers[layer]
        y = rms(h, at["input_layernorm.weight"])
        q, k, v = (
            (y @ at[f"{one}_proj.weight"].T).unflatten(-1, (-1, width)).transpose(0, 1) for one in ("q", "k", "v")
        )
        if theta is not None:
            q, k = (turn(table, stop, theta) for table in (q, k))
        made = []
        for one in range(len(q)):
            shared = one // (len(q) // key_heads)
            keys = torch.cat([cached.keys[0, shared], k[shared]])
            values = torch.cat([cached.values[0, shared], v[shared]])
            made.append(((q[one] @ keys.T) / math.sqrt(width)).softmax(-1) @ values)
        h = h + torch.cat(made, -1) @ at["o_proj.weight"].T
        y = rms(h, at["post_attention_layernorm.weight"])
        h = h + (F.silu(y @ at["gate_proj.weight"].T) * (y @ at["up_proj.weight"].T)) @ at["down_proj.weight"].T
    return rms(h, w["expert.norm.weight"]) @ w["action_out.weight"].T + w["action_out.bias"]


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def turn(x: torch.Tensor, start: int, theta: float) -> torch.Tensor:
    """Pair by pair, as complex numbers."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    angle = (start + torch.arange(x.shape[-2])[:, None]) * theta ** (-torch.arange(half) / half)
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


def plain_actions(model: Model, sequence: TokenSequence, noise: torch.Tensor, steps: int) -> torch.Tensor:
    x = noise
    for step in range(steps):
        x = x + plain_velocity(model, sequence, x, torch.full((CHUNK,), step / steps)) / steps
    return x


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2", "tiny-gemma2", "tiny-gpt2", "tiny-mistral", "tiny-phi2"])
def test_the_prefix_computed_once_is_everything_anew(name: str):
    model = acting(name).eval()
    batch = batch_of(model, *[row(n, n, end=False) for n in (5, 9, 3)], side="left")
    made = predict(model, batch, steps=3, seed=[1, 2, 3])
    noise = noise_of([1, 2, 3], 3, head_of(model))
    with torch.no_grad():
        for number, length in enumerate((5, 9, 3)):
            close(made[number], plain_actions(model, row(length, length)[0], noise[number], 3))


def test_batches_are_one_by_one_and_do_not_see_what_comes_behind_the_slot():
    model = acting().eval()
    together = predict(model, batch_of(model, *ROWS), seed=7)
    for number, (sequence, _) in enumerate(ROWS):
        close(together[number], predict(model, sequence, seed=7)[0])
        close(together[number], predict(model, sequence.cut(0, len(sequence) - 1), seed=7)[0])
    close(predict(model, ROWS[0][0]), predict(model, ROWS[0][0], seed=0))
    assert not torch.equal(predict(model, ROWS[0][0], seed=1), predict(model, ROWS[0][0], seed=2))


def test_a_state_computed_before_gives_the_same():
    model = acting().eval()
    sequence = row(9, 2, end=False)[0]
    for cut in (1, 4, 8):
        state = prefill(model, sequence.cut(0, cut))
        rest = sequence.cut(cut)
        rest = rest.with_vectors(position=rest.position - cut)
        made = predict(model, [rest], state=state, seed=3)
        close(made, predict(model, sequence, seed=3))
        close(predict(model, [rest], state=state, seed=3), made)


def plain_loss(model: Model, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Of chunks and tokens, chunk by chunk; noise and times as the head draws them."""
    head, total, weight = head_of(model), torch.zeros(()), torch.zeros(())
    values = torch.from_numpy(np.concatenate([given["action"] for _, given in rows]))
    noise, time, decided = head.drawn(values)
    for n, (sequence, _) in enumerate(rows):
        counted = float(sequence.weight[np.flatnonzero(sequence.slot[:, 0] >= 0)[0]])
        x = torch.stack([time[n, i] * values[n, i] + (1 - time[n, i]) * noise[n, i] for i in range(CHUNK)])
        moves = plain_velocity(model, sequence, x, time[n])
        losses = [
            (moves[i] - values[n, i] + noise[n, i]).square().mean() for i in range(CHUNK) if not bool(decided[n, i])
        ]
        total, weight = total + counted * torch.stack(losses).mean(), weight + counted
        logits = model(**model.collate([sequence]), return_loss=False).logits[0]
        total = total + F.cross_entropy(logits[-2], torch.tensor(int(sequence.ids[-1])))
        weight = weight + 1
    return total, weight


@pytest.mark.parametrize(("name", "delay"), [("tiny-llama2", 0), ("tiny-gemma2", 0), ("tiny-llama2", 3)])
def test_loss_and_gradients_are_the_plain_ones(name: str, delay: int):
    model = acting(name, delay=delay)
    model.backbone.llm.eval()
    batch = batch_of(model, *ROWS)
    found = []
    for loss in (
        lambda: Learner(model)(**batch)["loss"],
        lambda: torch.div(*plain_loss(model, ROWS)),
        lambda: model(**batch).loss,
    ):
        model.zero_grad()
        torch.manual_seed(5)
        made = loss()
        made.backward()
        found.append((made.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    for made, gradients in found[1:]:
        close(made, found[0][0])
        assert gradients.keys() == found[0][1].keys()
        for key, gradient in gradients.items():
            close(gradient, found[0][1][key], 1e-4)
    assert set(found[0][1]) >= {n for n, _ in model.named_parameters() if n.startswith(("heads", "parts"))}


@pytest.mark.parametrize("build", [test_heads, None], ids=["l1", "flow"])
def test_half_precision_is_near(build: Any):
    """Autocast in training, and weights in bfloat16."""
    model = acting() if build is None else build.acting()
    rows, one = (ROWS, row) if build is None else (build.ROWS, build.row)
    batch = batch_of(model, *rows)
    model.heads.eval()
    full = Learner(model)(**batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = Learner(model)(**batch)["loss"]
        assert torch.isfinite(predict(model, one(5, 1)[0])).all()
    half.backward()
    assert float(half.detach()) == pytest.approx(float(full.detach()), rel=0.03)
    made = predict(model, one(5, 1)[0])
    for module in (model.backbone.llm, model.parts, model.heads):
        module.to(torch.bfloat16)
    assert float((predict(model, one(5, 1)[0]) - made).abs().max()) < 0.1


def test_packed_chunks_are_learned_as_alone():
    model = acting().eval()
    packed = TokenSequence.join([sequence for sequence, _ in ROWS], new_documents=True)
    features = {"action": np.concatenate([given["action"] for _, given in ROWS])}
    close(model(**batch_of(model, (packed, features))).loss, model(**batch_of(model, *ROWS)).loss)


def test_an_evaluation_draws_the_same_and_a_training_does_not():
    model = acting(delay=2)
    batch = batch_of(model, *ROWS)
    learner, items = Learner(model), count_items(batch)

    def loss() -> float:
        return float(learner(**batch, num_items_in_batch=items)["loss"].detach())

    learner.eval()
    state = torch.get_rng_state()
    assert loss() == loss()
    assert torch.equal(torch.get_rng_state(), state), "an evaluation moves nobody's random numbers"
    learner.train()
    torch.manual_seed(3)
    first, second = loss(), loss()
    assert first != second
    torch.manual_seed(3)
    assert loss() == first


def test_times_are_drawn_as_named():
    share = torch.linspace(0, 1, 10001)
    assert torch.equal(times_of(share, "uniform"), share)
    beta = times_of(share, "beta")
    # (0.999 - t) / 0.999 is distributed as x with P(x < a) = a ** 1.5
    for a in (0.1, 0.5, 0.9):
        assert abs(float(((0.999 - beta) / 0.999 < a).float().mean()) - a**1.5) < 1e-3
    assert float(beta.min()) == 0.0
    assert float(beta.max()) == pytest.approx(0.999)
    found = sin_cos(torch.tensor([0.25, 1.0]), 6)
    for number, time in enumerate((0.25, 1.0)):
        periods = [4e-3, math.sqrt(4e-3 * 4), 4.0]
        plain = [math.sin(2 * math.pi * time / p) for p in periods] + [
            math.cos(2 * math.pi * time / p) for p in periods
        ]
        close(found[number], torch.tensor(plain), 1e-3)


def test_guided_steps_are_the_plain_formula():
    """With the whole Jacobian, where the head takes one product with it."""
    model = acting().eval()
    sequence, steps, delay, left = row(5, 1, end=False)[0], 4, 1, 3
    old = torch.randn(1, left, DIMS, generator=torch.Generator().manual_seed(1))
    made = predict(model, sequence, steps=steps, seed=2, previous=Previous(actions=old, delay=delay))
    x = noise_of(2, 1, head_of(model))[0]
    weights = (
        torch.tensor(prefix_weights(CHUNK, delay, left), dtype=torch.float32)[:, None].expand(-1, DIMS).reshape(-1)
    )
    expected = F.pad(old[0], (0, 0, 0, CHUNK - left)).reshape(-1)
    for step in range(steps):
        t = step / steps

        def end(x: torch.Tensor, t: float = t) -> torch.Tensor:
            moved = plain_velocity(model, sequence, x.view(CHUNK, DIMS), torch.full((CHUNK,), t)).reshape(-1)
            return x + (1 - t) * moved

        flat = x.reshape(-1)
        jacobian = torch.autograd.functional.jacobian(end, flat)
        pull = (weights * (expected - end(flat))) @ jacobian
        moves = plain_velocity(model, sequence, x, torch.full((CHUNK,), t)) + guidance_weight(t) * pull.view(
            CHUNK, DIMS
        )
        x = (x + moves / steps).detach()
    close(made[0], x)
    free = predict(model, sequence, steps=steps, seed=2)
    assert float((made[0, :delay] - old[0, :delay]).abs().mean()) < float(
        (free[0, :delay] - old[0, :delay]).abs().mean()
    )


def test_a_head_trained_with_decided_actions_keeps_them():
    model = acting(delay=2).eval()
    head = head_of(model)
    sequence = row(5, 1, end=False)[0]
    old = torch.randn(1, 3, DIMS, generator=torch.Generator().manual_seed(1))
    made = predict(model, sequence, steps=3, seed=2, previous=Previous(actions=old, delay=2, how="trained"))
    assert torch.equal(made[0, :2], old[0, :2])
    x = noise_of(2, 1, head)[0]
    with torch.no_grad():
        for step in range(3):
            x = torch.cat([old[0, :2], x[2:]])
            time = torch.tensor([1.0, 1.0, step / 3, step / 3])
            x = x + plain_velocity(model, sequence, x, time) / 3
    close(made[0, 2:], x[2:])
    plain = predict(model, sequence, steps=3, seed=2)
    none = predict(model, sequence, steps=3, seed=2, previous=Previous(actions=old, delay=0, how="trained"))
    assert torch.equal(none, plain)


def test_an_insulated_head_teaches_the_backbone_nothing():
    model = acting(insulated=True)
    words = TokenSequence.join([text(4, 1), slots("action", 1, target=[VALUE_TARGET], weight=1.0)])
    model(**batch_of(model, (words, ROWS[0][1]))).loss.backward()
    moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert moved == {"heads"}


def test_a_folder_keeps_it(tmp_path: Path):
    model = acting(delay=1, steps=5).eval()
    folder = model.save(tmp_path / "made")
    again = Model.load(folder, inference_mode=True)
    assert head_of(again).settings() == head_of(model).settings()
    assert torch.equal(predict(again, ROWS[0][0]), predict(model, ROWS[0][0]))
    drawn = describe(folder).draw()
    assert "4 × 2 numbers by flow matching in 5 steps" in drawn
    assert "the keys of its layers ──flow──► 4 × 2" in drawn


def test_only_some_layers_may_be_read():
    model = acting(layers=[1]).eval()
    sequence = row(6, 2, end=False)[0]
    with torch.no_grad():
        close(
            predict(model, sequence, steps=2)[0], plain_actions(model, sequence, noise_of(0, 1, head_of(model))[0], 2)
        )


def test_what_cannot_be_is_refused():
    model = acting()
    sequence = row(5, 1, end=False)[0]
    with pytest.raises(ConfigError, match="gradient checkpointing takes them away"):
        model.enable_gradient_checkpointing()
    for settings, message in (
        ({"width": 15}, "even number"),
        ({"delay": 4}, "delay is 4; expected 0 to 3"),
        ({"heads": 3}, "3 heads of queries for 4"),
        ({"times": "betta"}, "Did you mean `beta`"),
        ({"steps": 0}, "steps is 0"),
    ):
        given = {"width": 16, "heads": 4, "key_heads": 4, "head_dim": 8, "layers": [0], **settings}
        with pytest.raises(ConfigError, match=message):
            FlowHead(chunk=CHUNK, dims=DIMS, **given)
    old = torch.zeros(1, 3, DIMS)
    for previous, message in (
        ({"actions": old, "delay": 4}, "delay is 4 of 3"),
        ({"actions": old, "delay": 1, "how": "train"}, "Did you mean `trained`"),
        ({"actions": old, "delay": 1, "most": 0}, "most is 0"),
        ({"actions": old * math.nan, "delay": 1}, "NaN"),
        ({"actions": old[0], "delay": 1}, "expected numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            Previous(**previous)  # type: ignore[arg-type]
    for actions, how, message in (
        (torch.zeros(1, 5, DIMS), "guided", "at most 4"),
        (torch.zeros(2, 3, DIMS), "guided", r"expected \[1,"),
        (old, "trained", "trained to go on from none"),
    ):
        with pytest.raises(ConfigError, match=message):
            predict(model, sequence, previous=Previous(actions=actions, delay=2, how=how))  # type: ignore[arg-type]


def test_prompts_that_do_not_fit_are_refused():
    model = acting().eval()
    with pytest.raises(GenerationError, match="row 0 has 0"):
        predict(model, text(5))
    with pytest.raises(UnknownNameError, match="`generate` and `fill` say actions in tokens"):
        predict(Model(model.backbone), text(5))
    with pytest.raises(GenerationError, match="2 seeds for 1 rows"):
        predict(model, ROWS[0][0], seed=[1, 2])
    for seed in (2**63, -(2**63) - 1, "7", 1.5, [2**70]):
        with pytest.raises(GenerationError, match=r"seed is .*; expected whole numbers from -2\*\*63"):
            predict(model, ROWS[0][0], seed=seed)  # type: ignore[arg-type]
    wide = acting(layers=[0, 7]).eval()
    with pytest.raises(BackboneError, match=r"layer 7.* has \d layers"):
        predict(wide, ROWS[0][0])
    other = acting(key_heads=1).eval()
    with pytest.raises(BackboneError, match="layer 0 has"):
        predict(other, ROWS[0][0])
