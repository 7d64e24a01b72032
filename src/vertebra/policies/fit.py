"""Whether a record, its model, its statistics and a call's rows belong together; each fault is an error that names it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from vertebra.action.bins import Bins
from vertebra.action.record import DENOISE, ActionRecord
from vertebra.action.statistics import DatasetStatistics
from vertebra.errors import ConfigError, DataError
from vertebra.model.model import Model
from vertebra.policies.observation import Observation
from vertebra.policies.prompts import SLOTS
from vertebra.policies.settings import PolicySettings


def bins_of(record: ActionRecord, model: Model) -> Bins:
    """The bins of a record, whose ids are rows of this head and none of them an end."""
    assert record.bins is not None
    bins = Bins.of(record.bins)
    ends = set(model.backbone.eos_token_ids) & set(bins.allowed)
    if ends:
        raise ConfigError(
            f"the ids {sorted(ends)} stand for actions and end an answer too; the record is another model's"
        )
    if max(bins.allowed) >= model.backbone.num_rows:
        raise ConfigError(
            f"the action ids go up to {max(bins.allowed)}, and the head of `{model.identifier}` has "
            f"{model.backbone.num_rows} rows; the record is another model's"
        )
    if bins.dims not in (None, record.dims):
        raise ConfigError(f"the bins are for {bins.dims} dimensions, and an action has {record.dims}")
    return bins


def check_dims(key: str, found: DatasetStatistics, record: ActionRecord) -> None:
    faults = []
    if found.action.dims != record.dims:
        faults.append(f"actions of {found.action.dims} numbers, and this policy makes {record.dims}")
    if record.proprio is not None and found.proprio is not None and found.proprio.dims != record.proprio:
        faults.append(f"proprio of {found.proprio.dims} numbers, and this policy asks for {record.proprio}")
    if faults:
        raise DataError(f"the statistics `{key}` are another robot's: they are of {'; of '.join(faults)}")


def check_settings(record: ActionRecord, settings: PolicySettings) -> None:
    if settings.execute is not None and settings.execute > record.chunk:
        raise ConfigError(f"execute={settings.execute}, and this policy makes chunks of {record.chunk}")
    if settings.steps is not None and record.head not in DENOISE:
        raise ConfigError(f"steps={settings.steps} without effect: the head is `{record.head}`, which does not denoise")
    if settings.seed is not None and record.head not in DENOISE:
        raise ConfigError(f"seed={settings.seed} without effect: the head `{record.head}` draws nothing")
    if settings.real_time is not None and record.head != "flow":
        raise ConfigError(f"real_time={settings.real_time!r} is of flow heads, and the head is `{record.head}`")
    if settings.delay and settings.real_time is None:
        raise ConfigError(f"delay={settings.delay} without effect: it is about `real_time` chunking, which is off")
    if settings.real_time is not None and settings.ensemble is not None:
        raise ConfigError("ensembling blends chunks, and real-time chunking lets them go on from each other; take one")
    if settings.ensemble is not None and settings.execute not in (None, 1):
        raise ConfigError("ensembling gives one action a call; leave `execute` out")


def require_list(observations: Any) -> None:
    """One observation where several belong would be taken apart."""
    if isinstance(observations, Observation | Mapping | str | bytes):
        kind = type(observations).__name__
        raise DataError(f"the observations are one {kind}; expected a list, one for each robot. `act` takes one alone")


def require_rows(
    seen: Sequence[Any], texts: Sequence[str], names: Sequence[Hashable], keys: Sequence[str | None]
) -> None:
    if not seen:
        raise DataError("no observations; give at least one")
    if {len(texts), len(names), len(keys)} != {len(seen)}:
        raise DataError(
            f"{len(seen)} observations, {len(texts)} instructions, {len(names)} robots and {len(keys)} keys; give as many of "
            "each, or one instruction and one key for all"
        )
    if len(set(names)) < len(names):
        raise DataError("two observations of one robot in one call; each robot sees one moment at a time")


def check_head(record: ActionRecord, model: Model) -> None:
    """A head that gives numbers must be there, and give as many as the record says."""
    if record.head in ("tokens", "parallel"):
        return
    if SLOTS not in model.heads:
        raise ConfigError(
            f"the head is `{record.head}`, and `{model.identifier}` has none; its heads: {list(model.heads)}"
        )
    head: Any = model.heads[SLOTS]
    if head.kind != record.head or (head.chunk, head.dims) != (record.chunk, record.dims):
        raise ConfigError(
            f"the record says `{record.head}`, {record.chunk} × {record.dims} numbers, and the head of `{model.identifier}` is "
            f"`{head.kind}`, {head.chunk} × {head.dims}; the record is another model's"
        )
