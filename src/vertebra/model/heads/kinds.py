"""Which action heads a model folder can name, and a head as plain data and back. It knows no weights and no files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vertebra.errors import CheckpointError, ConfigError, did_you_mean
from vertebra.model.heads.ddim import DdimHead
from vertebra.model.heads.flow import FlowHead
from vertebra.model.heads.interface import ActionHead
from vertebra.model.heads.l1 import L1Head
from vertebra.reading import reading

HEADS: dict[str, type[ActionHead]] = {head.kind: head for head in (L1Head, FlowHead, DdimHead)}
"""Heads by the names that model folders use."""


def register_head(head: type[ActionHead]) -> type[ActionHead]:
    """Let model folders name an action head of your own; usable as a decorator. Its `kind` must be new."""
    if head.kind in HEADS:
        raise ConfigError(f"an action head of kind `{head.kind}` exists already. Kinds: {', '.join(HEADS)}")
    HEADS[head.kind] = head
    return head


def head_record(head: ActionHead) -> dict[str, Any]:
    """What it takes to build a head again, and what `vertebra info` shows of it."""
    return {
        "kind": head.kind,
        "about": head.about(),
        "reads": head.reads,
        "chunk": head.chunk,
        "dims": head.dims,
        "slots": head.slots,
        "settings": head.settings(),
    }


def head_from(record: Mapping[str, Any], *, where: str) -> ActionHead:
    """A head as its record says, with fresh weights."""
    with reading(f"{where} is described in a way that cannot be built", "save the model again"):
        kind = record["kind"]
        if kind not in HEADS:
            raise CheckpointError(
                f"{where} is of kind `{kind}`, which is not known here.{did_you_mean(kind, HEADS)} Known: "
                f"{', '.join(HEADS)}. One of your own is made known with `register_head` before loading"
            )
        return HEADS[kind](**record["settings"])
