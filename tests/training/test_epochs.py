"""Three epochs and a bit, beside a plain loop: steps cross the ends of epochs, rows change places, nothing is lost.

The plain loop knows neither feed, loader nor trainer: it plans an epoch at a time, collates, adds up the gradients of
`accumulate` batches, and steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.training.models import Words, config, tiny, trainer
from vertebra.backbone.tiny import TINY
from vertebra.data.loaders.samplers import Packed
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.tokens import TokenSequence
from vertebra.training import checkpoint
from vertebra.training.watching.metrics import read, without_clock

EPOCHS, ACCUMULATE = 3, 2
SAMPLES = Words(20)


def run(name: str = "tiny-llama2", **changes: Any) -> Any:
    return config(
        model__backbone=name, optim__accumulate=ACCUMULATE, optim__schedule="constant", optim__weight_decay=0.0, steps=11,
        optim__lr=1e-3, save__keep=99, watch__every=1, **changes,
    )  # fmt: skip


def undropped(name: str) -> Any:
    """A model that draws nothing, so that a plain loop need not draw in the trainer's order."""
    model = tiny(name)
    for module in model.modules():
        for setting in ("p", "dropout", "attention_dropout", "resid_pdrop"):
            if isinstance(getattr(module, setting, None), float):
                setattr(module, setting, 0.0)
    return model


def epoch_of(epoch: int, seed: int) -> list[Batch]:
    """The batches of one epoch, from its plan alone."""
    plan = Packed(2, 16, seed=seed).plan(SAMPLES, epoch)
    rows = [plan.members[start:stop] for start, stop in zip(plan.rows[:-1], plan.rows[1:], strict=True)]
    samples = {i: TokenSequence.of(ids, weight=1.0) for i, ids in enumerate(SAMPLES.ids)}
    packed = [TokenSequence.join([samples[i] for i in row], new_documents=True) for row in rows]
    return [collate(packed[a:b], pad_id=0) for a, b in zip(plan.batches[:-1], plan.batches[1:], strict=True)]


def plainly(name: str, setup: Any) -> tuple[Any, list[float], int]:
    """The model after all steps, the loss of each, and how many steps had batches of two epochs."""
    torch.manual_seed(setup.seed)
    model = undropped(name)
    llm = model.backbone.llm.train()
    optimizer = torch.optim.AdamW(
        llm.parameters(), lr=1e-3, betas=setup.optim.betas, eps=setup.optim.eps, weight_decay=0.0
    )
    batches, ends = [], []
    for epoch in range(EPOCHS + 1):
        batches += epoch_of(epoch, setup.seed)
        ends.append(len(batches))
    losses = []
    for step in range(setup.steps):
        mine = batches[step * ACCUMULATE : (step + 1) * ACCUMULATE]
        sums, count = [], 0
        for batch in mine:
            logits = model(**batch, return_loss=False).logits[:, :-1]
            counted = (batch["weights"][:, 1:] > 0) & (batch["document"][:, 1:] == batch["document"][:, :-1])
            each = F.cross_entropy(logits.transpose(1, 2), batch["targets"][:, 1:].clamp(min=0), reduction="none")
            sums.append((each * counted).sum())
            count += int(counted.sum())
        loss = sum(sums) / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llm.parameters(), setup.optim.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    inside = [end for end in ends if end < setup.steps * ACCUMULATE]
    assert len(inside) >= EPOCHS, "the run has to go beyond the third epoch"
    return model, losses, sum(end % ACCUMULATE != 0 for end in inside)


@pytest.mark.parametrize("name", TINY)
def test_three_epochs_are_those_of_a_plain_loop(name: str, tmp_path: Path):
    setup = run(name)
    expected, losses, across = plainly(name, setup)
    assert across, "a step has to take batches of two epochs"
    made = trainer(tmp_path, setup, model=undropped(name), samples=SAMPLES)
    made.train()
    rows = read(tmp_path / "metrics.jsonl")
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=5e-4)
    assert rows[-1]["epoch"] > EPOCHS
    probe = epoch_of(EPOCHS, setup.seed)[0]
    with torch.no_grad():
        got, plain = (model.eval()(**probe, return_loss=False).logits for model in (made.learner.model, expected))
    # not the weights: AdamW makes whole steps of rounding where a gradient is none, as that of a key's bias
    torch.testing.assert_close(got, plain, atol=5e-3 * float(plain.abs().max()), rtol=0)


def test_rows_meet_others_every_epoch():
    """The same samples, each once an epoch, in other company."""
    plans = [Packed(2, 16, seed=0).plan(SAMPLES, epoch) for epoch in range(EPOCHS)]
    assert all(sorted(plan.members.tolist()) == list(range(len(SAMPLES.lengths))) for plan in plans)
    assert len({tuple(plan.members.tolist()) for plan in plans}) == EPOCHS


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resume_from_every_step_of_every_epoch(workers: int, tmp_path: Path):
    """Also at the very end of an epoch, and in a step that has batches of two."""
    setup = run(save__every=1, data__workers=workers)
    whole = trainer(tmp_path / "whole", setup, samples=SAMPLES)
    whole.train()
    whole.writer.wait()
    rows = [without_clock(row) for row in read(tmp_path / "whole" / "metrics.jsonl")]
    saved = checkpoint.checkpoints(tmp_path / "whole" / "checkpoints")
    assert [checkpoint.step_of(folder) for folder in saved] == list(range(1, setup.steps + 1))
    chosen = saved[:-1] if not workers else saved[2:-1:3]
    for folder in chosen:
        again = trainer(tmp_path / f"from-{folder.name}", setup, samples=SAMPLES)
        again.train(resume_from_checkpoint=str(folder))
        again.writer.wait()
        begun = checkpoint.step_of(folder)
        found = [without_clock(row) for row in read(tmp_path / f"from-{folder.name}" / "metrics.jsonl")]
        assert found == rows[begun:], folder.name
        for (name, a), (_, b) in zip(again.learner.named_parameters(), whole.learner.named_parameters(), strict=True):
            assert torch.equal(a, b), (folder.name, name)


def test_the_data_is_seen_equally_often(tmp_path: Path):
    """Every sample's ids pass through the model once an epoch."""
    made = trainer(tmp_path, run(), samples=SAMPLES)
    seen: list[np.ndarray] = []
    made.learner.register_forward_pre_hook(
        lambda _, given, kwargs: seen.append(kwargs["input_ids"][kwargs["attention_mask"] > 0].numpy()),
        with_kwargs=True,
    )
    made.train()
    per_epoch = len(epoch_of(0, 0))
    everything = np.sort(np.concatenate(SAMPLES.ids))
    for epoch in range(EPOCHS):
        own = np.concatenate(seen[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert np.array_equal(np.sort(own), everything)
