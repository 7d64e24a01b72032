"""A growth of the vocabulary as a record, and what the record does to the matrices: the same on every base, bit for bit.

It knows no tokenizer; `vocabulary` makes records and takes them back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn

from vertebra.backbone.matrices import matrices, resize, row_statistics, write_rows

# Noise in units of the real rows' own spread: new rows differ from each other, yet start where tokens live.
_NOISE = 0.1
KEEP = "keep"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One growth of the vocabulary, as it is recorded in a checkpoint."""

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    special: bool
    init: str
    """`mean`, `mean+noise`, `normal`, `like` for rows that start from those of given tokens, or `keep` for a pad that
    leaves its spare row as it was."""
    like: tuple[tuple[int, ...], ...] = ()
    """For `like`: per new token, the ids whose rows it starts as the mean of."""
    seed: int
    vocab_before: int
    rows_before: int
    rows_after: int
    is_pad: bool
    pad_before: str | None
    displaced: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)
    """Spare rows (Qwen, Phi and OPT have more rows than tokens) that new tokens took over, for the exact inverse."""

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "displaced"}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Growth:
        return cls(
            **{
                **data,
                "tokens": tuple(data["tokens"]),
                "ids": tuple(data["ids"]),
                "like": tuple(tuple(ids) for ids in data["like"]),
            }
        )

    @property
    def spare(self) -> list[int]:
        """New tokens' rows that the matrix had already."""
        return [i for i in self.ids if i < self.rows_before]

    @property
    def written(self) -> list[int]:
        """Every row that this growth writes: its tokens' and the ones that pad to a multiple."""
        ids = () if self.init == KEEP else self.ids
        return sorted({*ids, *range(self.rows_before, self.rows_after)})


def replay(llm: Any, growth: Growth) -> None:
    """Grow the matrices as the record says; on a meta structure only their shapes change."""
    resize(llm, growth.rows_after)
    for matrix in matrices(llm):
        if matrix.parameter.is_meta:
            continue
        if growth.spare and growth.init != KEEP:
            growth.displaced[matrix.name] = matrix.parameter.detach()[growth.spare].clone()
        if growth.written:
            write_rows(matrix.parameter, growth.written, _new_rows(matrix.parameter, matrix.name, growth, llm.config))


def _new_rows(parameter: nn.Parameter, name: str, growth: Growth, config: Any) -> torch.Tensor:
    """The values of `growth.written`, a function of the record and the real rows alone, so that a replay is exact."""
    # Each table draws from a stream of its own: embedding and head must not start as copies of each other.
    generator = torch.Generator().manual_seed(growth.seed * 1009 + len(name))
    shape = (len(growth.written), *parameter.shape[1:])
    noise = torch.randn(shape, generator=generator)
    if growth.init == "normal":
        std = float(getattr(config, "initializer_range", 0.02)) if parameter.dim() > 1 else 0.0  # a bias starts at 0
        return (noise * std).to(parameter.device)
    mean, spread = row_statistics(parameter, min(growth.vocab_before, growth.rows_before))
    values = mean.expand(shape).clone()
    if growth.init == "like":
        at = {row: index for index, row in enumerate(growth.written)}
        for token_id, models in zip(growth.ids, growth.like, strict=True):
            values[at[token_id]] = parameter.detach()[list(models)].mean(0, dtype=torch.float32)
    if growth.init == "mean":
        return values
    return values + _NOISE * spread * noise.to(values.device)
