"""How often a policy reaches the square: its actions decoded as a robot would, from the image it is shown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch

from vertebra.data.encode.chat import ImageFeatures
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import TokenSequence
from vertebra.training.squares import Squares, slots_of


@torch.no_grad()
def success(model: Any, squares: Squares, *, batch: int = 32) -> float:
    """The share of episodes whose square is reached, by greedy actions among the bins alone."""
    reached = 0
    was = model.training
    model.eval()
    for start in range(0, len(squares), batch):
        numbers = range(start, min(start + batch, len(squares)))
        actions = _parallel(model, squares, numbers) if squares.parallel else _one_by_one(model, squares, numbers)
        reached += sum(squares.episodes[n].reached(action) for n, action in zip(numbers, actions, strict=True))
    model.train(was)
    return reached / len(squares)


@torch.no_grad()
def shown(model: Any, squares: Squares, count: int) -> list[dict[str, str]]:
    """What a policy does in some episodes: its action in words, and a cross where its hand goes."""
    was = model.training
    model.eval()
    numbers = range(min(count, len(squares)))
    actions = _parallel(model, squares, numbers) if squares.parallel else _one_by_one(model, squares, numbers)
    model.train(was)
    found = []
    for number, action in zip(numbers, actions, strict=True):
        episode = squares.episodes[number]
        verdict = "reached" if episode.reached(action) else "missed"
        picture = base64.b64encode(episode.drawn(action)).decode()
        said = f"{' '.join(f'<ACT:{bin}>' for bin in action)} – {verdict}"
        found.append({"prompt": episode.instruction, "answer": said, "image": picture})
    return found


def _batch(model: Any, squares: Squares, numbers: Sequence[int], sequences: Sequence[TokenSequence]) -> Any:
    features = ImageFeatures(model.parts["image"].encoder.preparation)
    made = [features(squares.extra(number)) for number in numbers]
    return collate(sequences, made, pad_id=model.backbone.pad_token_id, side="left").to(model.backbone.device)


def _one_by_one(model: Any, squares: Squares, numbers: Sequence[int]) -> list[list[int]]:
    """A bin, then a bin, each after a forward over the whole row."""
    bins = squares.ids[1:]
    batch = _batch(model, squares, numbers, [squares.prompt(number) for number in numbers])
    device = batch.device
    said: list[list[int]] = [[] for _ in numbers]
    for _ in range(2):
        logits = model(**batch, return_loss=False, logits_to_keep=1).logits[:, -1]
        best = logits[:, bins].argmax(-1).tolist()
        for row, number in zip(said, best, strict=True):
            row.append(number)
        batch = batch.append(torch.tensor([[bins[number]] for number in best], device=device))
    return said


def _parallel(model: Any, squares: Squares, numbers: Sequence[int]) -> list[list[int]]:
    """Both slots in one forward, each read one position before it."""
    bins = squares.ids[1:]
    sequences = [squares.sequence(number) for number in numbers]
    batch = _batch(model, squares, numbers, sequences)
    rows, columns = [], []
    for row, sequence in enumerate(sequences):
        shift = batch.length - len(sequence)
        for at in slots_of(sequence, "action").tolist():
            rows.append(row)
            columns.append(at + shift - 1)
    where = (torch.tensor(rows, device=batch.device), torch.tensor(columns, device=batch.device))
    logits = model(**batch, return_loss=False, positions=where).logits
    return logits[:, bins].argmax(-1).view(len(numbers), -1).tolist()
