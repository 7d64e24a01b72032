"""Growing the vocabulary and taking it back, on copies of the tables and of the tokenizer.

While the block runs, the same parameter objects point to copies of their data; afterwards they point to the very
tensors that they had, so that not even a faulty growth leaves a trace.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vertebra.backbone.habits import fingerprint
from vertebra.backbone.matrices import Matrix, matrices, num_rows, resize
from vertebra.backbone.vocabulary import Growth, grow_vocabulary, undo_growth
from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject, difference

TOKENS = ("<vertebra-check-1>", "<vertebra-check-2>")


def growth(subject: Subject) -> Measure | Skip:
    """Grow by two tokens, look at every table, run the model, undo, and compare bit by bit."""
    backbone = subject.backbone
    if backbone.quantization is not None:
        return Skip("a quantized model does not grow")
    ids = subject.ids(subject.inside)
    with _on_copies(backbone) as before, torch.no_grad():
        logits, prints = backbone.eval()(input_ids=ids).logits, fingerprint(backbone.tokenizer)
        vocabulary, tied = min(len(backbone.tokenizer), logits.shape[-1]), len(before)
        made = grow_vocabulary(backbone, list(TOKENS))
        faults = _faults_of(backbone, made, before, tied)
        moved = difference(backbone(input_ids=ids).logits[..., :vocabulary], logits[..., :vocabulary])
        if moved > subject.tolerance:
            faults.append(f"logits of old tokens moved by {moved:.1e}")
        undo_growth(backbone)
        if fingerprint(backbone.tokenizer) != prints:
            faults.append("the tokenizer did not come back")
        changed = sum(
            _entries_changed(now.parameter, old) for now, old in zip(matrices(backbone.llm), before, strict=True)
        )
    tables = ", ".join(table.name for table in matrices(backbone.llm))
    message = f"faults, and numbers of {tables} left changed, after 2 tokens came and went"
    return Measure(number=changed + len(faults), relation="==", bound=0, message=message, faults=tuple(faults))


@contextmanager
def _on_copies(backbone: Any) -> Iterator[list[torch.Tensor]]:
    """Yields what the tables held; the tables themselves are copies inside the block."""
    tables, rows = matrices(backbone.llm), num_rows(backbone.llm)
    before = [table.parameter.data for table in tables]
    tokenizer, growths = backbone.tokenizer, list(backbone.growths)
    try:
        for table in tables:
            table.parameter.data = table.parameter.data.clone()
        backbone.tokenizer = copy.deepcopy(tokenizer)
        yield before
    finally:
        for table, data in zip(tables, before, strict=True):
            table.parameter.data = data
        resize(backbone.llm, rows)  # nothing is copied: only the sizes that modules keep are written again
        backbone.tokenizer, backbone.growths = tokenizer, growths


def _faults_of(backbone: Any, made: Growth, before: list[torch.Tensor], tables: int) -> list[str]:
    """What is wrong with the grown tables: their number, kept rows, and the new rows of each."""
    faults = []
    now = matrices(backbone.llm)
    if len(now) != tables:
        faults.append(f"{tables} tables became {len(now)}: tied weights came apart")
    for table, old in zip(now, before, strict=False):
        faults += _faults_of_table(table, made, old)
    for token, token_id in zip(made.tokens, made.ids, strict=True):
        if backbone.tokenizer(token, add_special_tokens=False).input_ids != [token_id]:
            faults.append(f"`{token}` is not the one id {token_id}")
    return faults


def _faults_of_table(table: Matrix, made: Growth, old: torch.Tensor) -> list[str]:
    faults = []
    parameter = table.parameter.detach()
    if parameter.shape[0] < max(len(old), max(made.ids) + 1):
        return [f"{table.name} has {parameter.shape[0]} rows; it had {len(old)} and needs row {max(made.ids)}"]
    kept = [row for row in range(made.vocab_before) if row < len(old)]
    if not torch.equal(parameter[kept], old[kept]):
        faults.append(f"rows of old tokens changed in {table.name}")
    new = parameter[list(made.ids)]
    if not bool(torch.isfinite(new).all()) or torch.equal(new[0], new[1]):
        faults.append(f"the new rows of {table.name} are not finite, or copies of each other")
    return faults


def _entries_changed(parameter: torch.Tensor, old: torch.Tensor) -> int:
    if parameter.shape != old.shape:
        return max(parameter.numel(), old.numel())
    return int((parameter.detach() != old).sum())
