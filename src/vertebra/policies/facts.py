"""What a decision depends on, as short hashes that two machines can compare: prompt, pixels, proprio, statistics, who sees
whom, the record, the tokenizer; and the versions of everything that computed it.

    {"prompt": "3f…", "items": {"image": {"hash": …, "shape": [1, 3, 224, 224], "mean": 117.2}}, "attention": …}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from vertebra.action.record import ActionRecord
from vertebra.backbone.habits import fingerprint
from vertebra.model.model import Model
from vertebra.policies.prompts import PolicyPrompt
from vertebra.sequence.visibility import allowed

LIBRARIES = ("vertebra", "torch", "transformers", "tokenizers", "numpy", "Pillow")


def facts_of(model: Model, record: ActionRecord, row: PolicyPrompt, key: str) -> dict[str, Any]:
    """Everything about one row that must be the same for its action to be."""
    sequence = row.sequence
    return {
        "prompt": _hash(sequence.ids, sequence.slot, sequence.position, list(sequence.segments)),
        "items": {name: _item(values) for name, values in row.features.items()},
        "statistics": _hash(record.statistics.get(key)),
        "attention": {
            "rule": record.attention,
            "hash": _hash(_seen(model, row)),
            "kernel": model.backbone.attn,
        },
        "record": _hash({name: value for name, value in record.to_json().items() if name != "statistics"}),
        "tokenizer": fingerprint(model.tokenizer),
        "dtype": str(model.backbone.dtype).removeprefix("torch."),
        "device": model.device.type,
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what differs between two sets of facts; what may explain another action comes first."""
    found = []
    for name, what in _MEANINGS.items():
        if before.get(name) != now.get(name):
            found.append(what)
    items, others = _table(before, "items"), _table(now, "items")
    for name in dict.fromkeys([*items, *others]):
        if items.get(name) != others.get(name):
            found.append(
                f"`{name}` is prepared otherwise: {_written(items.get(name))} became {_written(others.get(name))}"
            )
    found += _attention(_table(before, "attention"), _table(now, "attention"))
    for name in ("dtype", "device"):
        if before.get(name) != now.get(name):
            found.append(f"{name}: {before.get(name)} became {now.get(name)}")
    old, new = _table(before, "versions"), _table(now, "versions")
    found += [f"{name} {old.get(name)} became {new.get(name)}" for name in new if old.get(name) != new.get(name)]
    return found


_MEANINGS = {
    "record": "the action record is another: head, bins, cameras, template or normalisation",
    "statistics": "the statistics are others",
    "tokenizer": "the tokenizer gives other ids",
    "prompt": "the prompt has other ids or places",
}


def _attention(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if before.get("hash") != now.get("hash"):
        found.append(f"who sees whom is another table: `{before.get('rule')}` became `{now.get('rule')}`")
    if before.get("kernel") != now.get("kernel"):
        found.append(f"the attention kernel {before.get('kernel')} became {now.get('kernel')}")
    return found


def _seen(model: Model, row: PolicyPrompt) -> np.ndarray:
    batch = model.collate([row.sequence], side="right")
    return allowed(batch, window=model.backbone.attention_facts.window).cpu().numpy()


def _item(values: np.ndarray) -> dict[str, Any]:
    return {"hash": _hash(values), "shape": list(values.shape), "mean": round(float(np.mean(values)), 4)}


def _table(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A fact that has several entries; nothing where a damaged file has something else."""
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def _written(item: Any) -> str:
    return "nothing" if not isinstance(item, Mapping) else f"{item.get('shape')} with the mean {item.get('mean')}"


def _hash(*things: Any) -> str:
    digest = hashlib.sha256()
    for thing in things:
        if isinstance(thing, np.ndarray):
            digest.update(f"{thing.dtype}{thing.shape}".encode() + np.ascontiguousarray(thing).tobytes())
        else:
            digest.update(json.dumps(thing, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
