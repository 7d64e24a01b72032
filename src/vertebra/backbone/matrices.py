"""The tables of a model that have one row a token: the input embedding, an untied head, the head's bias.

Rows are added, removed and written in place of the same parameter objects, so that ties, hooks and names stay. It
does not know tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vertebra.errors import VocabularyError


@dataclass(frozen=True)
class Matrix:
    """One table with a row a token; a bias is a table of width one."""

    name: str
    module: nn.Module
    parameter: nn.Parameter


def matrices(llm: Any) -> list[Matrix]:
    """The embedding first; the head only where it is a tensor of its own."""
    embedding = llm.get_input_embeddings()
    found = [Matrix("embedding", embedding, _plain(embedding.weight))]
    head = llm.get_output_embeddings()
    if head is None:
        return found
    if head.weight is not embedding.weight:
        found.append(Matrix("head", head, _plain(head.weight)))
    if getattr(head, "bias", None) is not None:
        found.append(Matrix("head.bias", head, _plain(head.bias)))
    return found


def _plain(parameter: nn.Parameter) -> nn.Parameter:
    if not (parameter.is_floating_point() or parameter.is_meta):
        raise VocabularyError(
            "a quantized embedding or head cannot change its rows; grow the vocabulary before quantizing"
        )
    return parameter


def num_rows(llm: Any) -> int:
    return int(llm.get_input_embeddings().weight.shape[0])


def resize(llm: Any, rows: int) -> None:
    """Give every table `rows` rows; kept rows are the same bits, new ones are not yet written."""
    for matrix in matrices(llm):
        old = matrix.parameter.data
        if old.shape[0] != rows:
            new = old.new_empty((rows, *old.shape[1:]))
            kept = min(rows, old.shape[0])
            new[:kept] = old[:kept]
            # the same Parameter object: an optimizer, a tie or a hook that holds it still holds it
            matrix.parameter.data = new
            matrix.parameter.grad = None
        _note(matrix.module, rows)
    head = llm.get_output_embeddings()
    if head is not None:
        _note(head, rows)  # a tied head shares the tensor, yet counts for itself
    llm.config.vocab_size = rows
    if hasattr(llm, "vocab_size"):
        llm.vocab_size = rows


def _note(module: nn.Module, rows: int) -> None:
    """The sizes that modules keep beside their tensors."""
    for name in ("num_embeddings", "out_features", "nf"):  # `nf`: GPT-2's Conv1D, where it serves as a head
        if hasattr(module, name):
            setattr(module, name, rows)


def write_rows(parameter: nn.Parameter, rows: Sequence[int], values: torch.Tensor) -> None:
    with torch.no_grad():
        parameter[list(rows)] = values.to(parameter.dtype)


def row_statistics(parameter: nn.Parameter, real: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (a row) and spread (one number) of the first `real` rows, in fp32.

    Only rows that tokens use count: the last rows of a padded matrix are not tokens, and averaging them is the
    common mistake.
    """
    used = parameter.detach()[:real]
    mean = used.mean(0, dtype=torch.float32)
    sample = used[:: max(1, real // 4096)].float()  # the spread needs no more, and 128 k rows would cost a copy
    return mean, (sample - mean).pow(2).mean().sqrt()
