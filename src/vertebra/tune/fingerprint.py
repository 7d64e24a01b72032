"""A fingerprint of a base model's weights: which base an adapter belongs to, cheap enough for every save.

Some numbers of every tensor, rounded to bfloat16, hashed: the same for a base that was loaded in fp32 and in bf16.
Rows of tokens that were added later are not the base's and are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from vertebra.errors import CheckpointError

_NUMBERS = 64  # of each tensor


@dataclass(frozen=True, kw_only=True)
class BasePrint:
    """Which base an adapter was trained on."""

    digest: str
    rows: int
    """How many rows of the matrices were the base's own tokens."""
    parameters: int
    name: str = ""


def base_print(parts: Any, *, rows: int | None = None) -> BasePrint:
    """The fingerprint of a model's language part, as it is now and without an adapter."""
    lm = parts.lm
    if rows is None:
        growths = parts.backbone.growths if parts.backbone is not None else []
        rows = growths[0].vocab_before if growths else _table_rows(lm)
    tables = {id(p) for p in _tables(lm)}
    digest = hashlib.sha256()
    count = 0
    for name, parameter in lm.named_parameters():
        data = parameter.detach()
        if id(parameter) in tables:
            data = data[:rows]
        count += data.numel()
        digest.update(f"{name} {tuple(data.shape)}".encode())
        flat = data.reshape(-1)
        if not len(flat) or flat.is_meta:
            continue
        step = max(1, len(flat) // _NUMBERS)
        sample = flat[::step][:_NUMBERS]
        packed = sample.to(torch.bfloat16).view(torch.int16) if sample.is_floating_point() else sample
        digest.update(packed.cpu().contiguous().numpy().tobytes())
    name = getattr(parts.backbone, "identifier", type(lm).__name__)
    return BasePrint(digest=digest.hexdigest()[:32], rows=rows, parameters=count, name=str(name))


def check_base(parts: Any, expected: BasePrint, *, who: str) -> BasePrint:
    """Stop where a model is not the base that an adapter was trained on."""
    found = base_print(parts, rows=min(expected.rows, _table_rows(parts.lm)))
    if found.digest != expected.digest:
        sizes = "" if found.parameters == expected.parameters else f" ({found.parameters:,} parameters)"
        raise CheckpointError(
            f"the adapter in `{who}` was trained on `{expected.name}` ({expected.parameters:,} parameters, fingerprint "
            f"{expected.digest[:8]}); this is another base: `{found.name}`{sizes}, fingerprint {found.digest[:8]}. Name "
            "the base that it was trained on, unmerged"
        )
    return found


def _tables(lm: Any) -> list[torch.Tensor]:
    head = lm.get_output_embeddings()
    found = [lm.get_input_embeddings().weight]
    if head is not None:
        found += [p for p in (head.weight, getattr(head, "bias", None)) if p is not None]
    return found


def _table_rows(lm: Any) -> int:
    return int(lm.get_input_embeddings().weight.shape[0])
