"""The raw inputs of outside embeddings (images, boxes, vectors) of a batch: gathered row by row, checked row by row.

`features[name] = {"values": [M, …], "rows": [M]}`: the items of all rows one after the other, in row order, and the
row each belongs to. An item may fill several slots (an image its 256 patches), so what can be checked here is that a
row's slots are a whole number of its items, the same number in every row. Counting over the batch would let 3 + 5
items pass for 4 + 4. Knows no encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vertebra.errors import InjectionError, UnknownNameError
from vertebra.sequence.length import listed
from vertebra.sequence.tokens import TokenSequence

Features = Mapping[str, Any]
"""The raw items of one row: segment name -> array [m, …]."""


def gather(sequences: Sequence[TokenSequence], features: Sequence[Features | None]) -> dict[str, dict[str, Any]]:
    """All rows' items as one block a name. One error lists every row that does not fit its slots."""
    if len(features) != len(sequences):
        raise InjectionError(f"{len(features)} rows of features for {len(sequences)} sequences; give one for each row")
    names = dict.fromkeys(name for sequence in sequences for name in sequence.segments)
    for row, given in enumerate(features):
        for name in set(given or ()) - set(names):
            raise UnknownNameError("segment", name, names, hint=f"Row {row} has features of it, but no row has slots.")
    blocks: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for name in names:
        items = [_array(name, row, (given or {}).get(name)) for row, given in enumerate(features)]
        if all(array is None for array in items):
            continue  # nobody gives any: the embedding of these slots comes from elsewhere (a learned query)
        faults += _faults(name, sequences, items)
        if not faults:
            given_items = [array for array in items if array is not None]
            counts = [0 if array is None else len(array) for array in items]
            blocks[name] = {
                "values": _joined(given_items),
                "rows": torch.arange(len(items)).repeat_interleave(torch.tensor(counts)),
            }
    if faults:
        raise InjectionError(f"features do not fit their slots: {listed(faults)}")
    return blocks


def _array(name: str, row: int, value: Any) -> np.ndarray | None:
    if value is None:
        return None
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise InjectionError(
            f"row {row}: `{name}` is {array.dtype} of shape {array.shape}; expected numbers, one item after the other "
            "in the first dimension"
        )
    # float64 is what numpy makes of Python numbers; no encoder computes in it.
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _faults(name: str, sequences: Sequence[TokenSequence], items: Sequence[np.ndarray | None]) -> list[str]:
    """Every row whose items and slots disagree, or whose items are unlike those of the other rows."""
    faults = []
    slots_of_one: tuple[int, int] | None = None  # (slots an item fills, the row that says so)
    model: tuple[int, np.ndarray] | None = None  # the first row that has items
    for row, (sequence, array) in enumerate(zip(sequences, items, strict=True)):
        slots, count = sequence.slot_count(name), 0 if array is None else len(array)
        if slots and not count:
            faults.append(f"row {row} has {slots} slots of `{name}` and no item for them")
            continue
        if count and (not slots or slots % count):
            faults.append(f"row {row} has {count} items of `{name}` for {slots} slots")
            continue
        if array is None or not count:
            continue
        if slots_of_one is None or model is None:
            slots_of_one, model = (slots // count, row), (row, array)
        elif slots // count != slots_of_one[0]:
            faults.append(
                f"row {row} has {count} items of `{name}` for {slots} slots ({slots // count} each), where row "
                f"{slots_of_one[1]} has {slots_of_one[0]} each"
            )
        elif array.shape[1:] != model[1].shape[1:] or array.dtype != model[1].dtype:
            faults.append(
                f"row {row}: items of `{name}` are {array.dtype} of shape {array.shape[1:]}, those of row {model[0]} "
                f"{model[1].dtype} of shape {model[1].shape[1:]}"
            )
        # One sum is cheap and finite unless a value is not (or it overflows): only then look at every value.
        if array.dtype.kind == "f" and not np.isfinite(_quiet_sum(array)) and not np.isfinite(array).all():
            faults.append(f"row {row}: `{name}` holds NaN or infinite values")
    return faults


def _quiet_sum(array: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(array.sum(dtype=np.float32))


def _joined(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    # A view of the user's own array, or a read-only one, must not become the tensor that a batch owns.
    if len(arrays) == 1 or not whole.flags.writeable:
        whole = whole.copy()
    return torch.from_numpy(whole)
