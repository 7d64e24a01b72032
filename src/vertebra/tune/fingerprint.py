"""A fingerprint of a base model's weights: which base an adapter belongs to, cheap enough for every save.

Some numbers of every tensor, rounded to bfloat16, hashed: the same for a base that was loaded in fp32 and in bf16.
Rows of tokens that were added later are not the base's and are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
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
    light: str = ""
    """Of tables and vectors alone: what a base has in common with its 8- and 4-bit form."""
    quantized: bool = False
    parts: dict[str, str] = field(default_factory=dict)
    """Of encoders, projectors and queries, by the names of the model's parts."""
    heads: dict[str, str] = field(default_factory=dict)
    """Of heads for actions, by segment."""


def base_print(parts: Any, *, rows: int | None = None) -> BasePrint:
    """The fingerprint of a model as it is now and without an adapter."""
    lm = parts.lm
    if rows is None:
        growths = parts.backbone.growths if parts.backbone is not None else []
        rows = growths[0].vocab_before if growths else _table_rows(lm)
    tables = {id(p) for p in _tables(lm)}
    named = [(n, p.detach()[:rows] if id(p) in tables else p.detach()) for n, p in lm.named_parameters()]
    light = [(n, p) for (n, p), whole in zip(named, lm.parameters(), strict=True) if id(whole) in tables or p.ndim == 1]
    return BasePrint(
        digest=_digest(named),
        rows=rows,
        parameters=sum(tensor.numel() for _, tensor in named),
        name=str(getattr(parts.backbone, "identifier", type(lm).__name__)),
        light=_digest([*light, *_shapes(lm)]),
        quantized=any(not (p.is_floating_point() or p.is_complex()) for _, p in named),
        parts={name: _digest(part.state_dict().items()) for name, part in parts.outside.items()},
        heads={name: _digest(head.state_dict().items()) for name, head in parts.answering.items()},
    )


def check_base(parts: Any, expected: BasePrint, *, who: str, brought: Collection[str] = ()) -> BasePrint:
    """Stop where a model is not the base that an adapter was trained on. `brought`: parts and heads that the adapter
    brings, by their names in the model."""
    found = base_print(parts, rows=min(expected.rows, _table_rows(parts.lm)))
    packed = found.quantized or expected.quantized
    if (found.light != expected.light) if packed else (found.digest != expected.digest):
        sizes = "" if found.parameters == expected.parameters or packed else f" ({found.parameters:,} parameters)"
        raise CheckpointError(
            f"the adapter in `{who}` was trained on `{expected.name}` ({expected.parameters:,} parameters, fingerprint "
            f"{expected.digest[:8]}); this is another base: `{found.name}`{sizes}, fingerprint {found.digest[:8]}. Name "
            "the base that it was trained on, unmerged"
        )
    for kind in ("parts", "heads"):
        trained, has = getattr(expected, kind), getattr(found, kind)
        own = {name: digest for name, digest in trained.items() if f"{kind}.{name}" not in brought}
        wrong = [name for name, digest in own.items() if has.get(name) != digest]
        if wrong:
            listed = f"the {kind} {', '.join(has)}" if has else f"no {kind}"
            raise CheckpointError(
                f"the adapter in `{who}` was trained on a model whose {' and '.join(f'`{n}`' for n in wrong)} {kind[:-1]} is "
                f"another one; this base has {listed}. Name the model folder that it was trained on"
            )
    return found


def _shapes(lm: Any) -> list[tuple[str, torch.Tensor]]:
    """What linears take and give: packed ones say it too."""
    sizes = (
        (name, getattr(m, "in_features", None), getattr(m, "out_features", None)) for name, m in lm.named_modules()
    )
    return [(name, torch.empty(given, taken, device="meta")) for name, taken, given in sizes if taken and given]


def _digest(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A hash of names, shapes and some numbers of every tensor."""
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1)
        if not len(flat) or flat.is_meta:
            continue
        step = max(1, len(flat) // _NUMBERS)
        sample = flat[::step][:_NUMBERS]
        packed = sample.to(torch.bfloat16).view(torch.int16) if sample.is_floating_point() else sample
        digest.update(packed.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _tables(lm: Any) -> list[torch.Tensor]:
    head = lm.get_output_embeddings()
    found = [lm.get_input_embeddings().weight]
    if head is not None:
        found += [p for p in (head.weight, getattr(head, "bias", None)) if p is not None]
    return found


def _table_rows(lm: Any) -> int:
    return int(lm.get_input_embeddings().weight.shape[0])
