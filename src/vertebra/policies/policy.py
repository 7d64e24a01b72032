"""`Policy`: an observation and an instruction become a chunk of actions, in the robot's own units.

    Observation ──► faults? ──► normalised proprio ──► row ──► head ──► −1…1 ──► unnormalise ──► frame ──► gripper ──► first k
                                                                 │         NaN, beyond the data: by settings, counted
                                       ids allowed, prefix kept ─┘

`act` for one robot and a step, `act_many` for several at once (each as if alone), `decide` with everything that is known of
a decision. What is remembered between calls (earlier images, chunks that are blended) belongs to a robot: `reset`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from vertebra import log
from vertebra.action.bins import Bins
from vertebra.action.chunks import Ensemble, first
from vertebra.action.frames import from_frame, gripped
from vertebra.action.normalization import limits, normalize, outside, unnormalize
from vertebra.action.record import ActionRecord
from vertebra.action.statistics import DatasetStatistics, lookup
from vertebra.errors import ConfigError, DataError
from vertebra.model.model import Model
from vertebra.policies.decision import Decision, sureness
from vertebra.policies.heads import Asking, Predicted, predict
from vertebra.policies.observation import Missing, Observation, faults
from vertebra.policies.prefix import Prefixes
from vertebra.policies.prompts import Asked, Prompts
from vertebra.policies.settings import PolicySettings


class Policy:
    """A model that acts. `record`: by default the one that the model carries."""

    def __init__(
        self, model: Model, record: ActionRecord | None = None, settings: PolicySettings | None = None
    ) -> None:
        self.model = model
        self.record = record or ActionRecord.of(model.record, where=f"`{model.identifier}`")
        self.settings = settings or PolicySettings()
        self.bins = None if self.record.bins is None else _bins(self.record, model)
        after = self.record.images == "after" and self.settings.keep_prefix
        self.prefixes = Prefixes() if after else None
        self.asking = Asking(model=model, record=self.record, bins=self.bins, prefixes=self.prefixes)
        self.prompts = Prompts(model, self.record, slots=self.asking.slots())
        self.counts: Counter[str] = Counter()
        """What happened so far: `actions`, `outside`, `not a number`, `missing camera`."""
        self._statistics: dict[str, DatasetStatistics] = {}
        self._robots: dict[Hashable, _Memory] = {}
        _check_steps(self.record, self.settings)

    @property
    def keys(self) -> list[str]:
        """The data sets that actions can be brought to the units of."""
        return sorted(self.record.statistics)

    def act(
        self, observation: Any, instruction: str, unnorm_key: str | None = None, *, robot: Hashable = 0
    ) -> np.ndarray:
        """[k, dims] in the robot's units: the next actions, the first of them first."""
        return self.decide(observation, instruction, unnorm_key, robot=robot, sure=False).chunk

    def decide(
        self,
        observation: Any,
        instruction: str,
        unnorm_key: str | None = None,
        *,
        robot: Hashable = 0,
        sure: bool = True,
    ) -> Decision:
        """The same with everything that is known of it: ids, entropy and confidence (`sure`), what was cut."""
        return self.decide_many([observation], [instruction], unnorm_key, robots=[robot], sure=sure)[0]

    def act_many(
        self,
        observations: Sequence[Any],
        instructions: str | Sequence[str],
        unnorm_key: str | None = None,
        *,
        robots: Sequence[Hashable] | None = None,
    ) -> list[np.ndarray]:
        """A chunk for each of several robots, from one pass over all: the chunks are those of each alone."""
        made = self.decide_many(observations, instructions, unnorm_key, robots=robots, sure=False)
        return [one.chunk for one in made]

    def decide_many(
        self,
        observations: Sequence[Any],
        instructions: str | Sequence[str],
        unnorm_key: str | None = None,
        *,
        robots: Sequence[Hashable] | None = None,
        sure: bool = True,
    ) -> list[Decision]:
        """The decisions of several robots. `robots`: their names, by which each has a memory; by default 0, 1, 2 …"""
        seen = [Observation.of(one) for one in observations]
        texts = [instructions] * len(seen) if isinstance(instructions, str) else list(instructions)
        names = list(range(len(seen))) if robots is None else list(robots)
        _require_rows(seen, texts, names)
        self._require_fit(seen, texts)
        key, statistics = self._known(unnorm_key)
        if self.record.history:
            seen = [self._memory(name).remembered(one, self.record) for name, one in zip(names, seen, strict=True)]
        proprio = [self._proprio(one, statistics) for one in seen]
        rows = [self.prompts.row(*given) for given in zip(seen, texts, proprio, strict=True)]
        said = predict(self.asking, rows, sure=sure, options=self._options())
        made = [
            self._decided(said, row, one, name, key, statistics)
            for row, (one, name) in enumerate(zip(seen, names, strict=True))
        ]
        if self.record.history:
            for name, one in zip(names, seen, strict=True):
                self._memory(name).keep(one)
        return made

    def reset(self, robot: Hashable | None = None) -> None:
        """A new episode begins: forget earlier images and chunks, of one robot or of all, and what is kept of prompts."""
        if robot is None:
            self._robots.clear()
        else:
            self._robots.pop(robot, None)
        if self.prefixes is not None:
            self.prefixes.forget()

    def statistics(self, unnorm_key: str | None = None) -> DatasetStatistics:
        """Those of a data set, or the only ones there are."""
        return self._known(unnorm_key)[1]

    def known_key(self, unnorm_key: str | None = None) -> str:
        """The data set that a key means: itself, or the only one."""
        return self._known(unnorm_key)[0]

    def predicted(self, observation: Observation, instruction: str, key: str) -> tuple[Predicted, Asked]:
        """What the head says of one observation, with probabilities, and the row it said it of. Nothing is remembered."""
        self._require_fit([observation], [instruction], missing="mask", count=False)
        row = self.prompts.row(observation, instruction, self._proprio(observation, self._known(key)[1]))
        options = self._options()
        if "seed" in options:
            options["seed"] = 0  # the same noise whenever it is asked
        return predict(self.asking, [row], sure=True, options=options), row

    def settled(self, said: Predicted, observation: Observation, key: str) -> np.ndarray:
        """[C, D] the first row of what a head said, in the robot's units. Nothing is cut, counted or remembered."""
        actions = unnormalize(said.values[0], self._known(key)[1].action, self.record.normalization)
        return self._in_units(actions, observation)

    def _in_units(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        actions = from_frame(actions, self.record.frame, observation.proprio, dims=self.record.frame_dims)
        return gripped(actions, self.record.gripper)

    def _known(self, key: str | None) -> tuple[str, DatasetStatistics]:
        if key not in self._statistics:  # None is never among them
            key, found = lookup(self.record.statistics, key)
            _check_dims(key, found, self.record)
            self._statistics[key] = found
        assert key is not None
        return key, self._statistics[key]

    def _require_fit(
        self, seen: Sequence[Observation], texts: Sequence[str], *, missing: Missing | None = None, count: bool = True
    ) -> None:
        missing = missing or self.settings.missing_camera
        found = []
        for row, (one, text) in enumerate(zip(seen, texts, strict=True)):
            where = f"robot {row}: " if len(seen) > 1 else ""
            found += [f"{where}{fault}" for fault in faults(one, text, self.record, missing=missing)]
        if found:
            raise DataError("this policy cannot act on what it was given:\n" + "\n".join(f"  {one}" for one in found))
        masked = sum(one.images.get(name) is None for one in seen for name in self.record.cameras)
        if masked and count:
            self.counts["missing camera"] += masked

    def _proprio(self, observation: Observation, statistics: DatasetStatistics) -> np.ndarray | None:
        if self.record.proprio is None:
            return None
        if statistics.proprio is None:
            raise DataError("this policy asks for proprio, and these statistics have none to normalise it by")
        how = self.record.proprio_normalization
        return normalize(np.asarray(observation.proprio, np.float64), statistics.proprio, how, proprio=True)

    def _options(self) -> dict[str, Any]:
        """What a head that denoises is given."""
        if self.record.head != "flow":
            return {}
        return {"steps": self.settings.steps or self.record.steps, "seed": self.settings.seed}

    def _decided(
        self,
        said: Predicted,
        row: int,
        observation: Observation,
        robot: Hashable,
        key: str,
        statistics: DatasetStatistics,
    ) -> Decision:
        values, broken = self._whole(said.values[row], robot)
        actions = unnormalize(values, statistics.action, self.record.normalization)
        beyond = outside(actions, statistics.action, self.record.normalization)
        actions = self._in_units(self._inside(actions, beyond, statistics, key), observation)
        self.counts["actions"] += len(actions)
        if self.settings.ensemble is not None:
            chunk = self._memory(robot).blended(actions, self.settings.ensemble)[None]
        else:
            chunk = first(actions, self.settings.execute or self.record.execute)
        entropy, confidence = sureness(said, row, self.bins)
        return Decision(
            chunk=chunk, actions=actions, values=values, ids=None if said.ids is None else said.ids[row],
            entropy=entropy, confidence=confidence, outside=int(beyond.sum()), not_a_number=broken, key=key,
        )  # fmt: skip

    def _whole(self, values: np.ndarray, robot: Hashable) -> tuple[np.ndarray, int]:
        """The numbers of a chunk, and how many of them were none."""
        broken = ~np.isfinite(values)
        count = int(broken.sum())
        if count:
            self.counts["not a number"] += count
            if self.settings.not_a_number == "refuse":
                raise DataError(
                    f"robot {robot!r}: {count} of {values.size} numbers of the action are NaN or infinite; the weights or "
                    'the observation are damaged. Stop, or take the middle of the range: not_a_number="zero"'
                )
        return np.where(broken, 0.0, values), count

    def _inside(self, actions: np.ndarray, beyond: np.ndarray, statistics: DatasetStatistics, key: str) -> np.ndarray:
        """Actions beyond everything that the data had, by settings."""
        if not beyond.any():
            return actions
        self.counts["outside"] += int(beyond.sum())
        dims = np.flatnonzero(beyond.any(0)).tolist()
        if self.settings.outside == "refuse":
            raise DataError(
                f"{int(beyond.sum())} numbers of the action lie beyond everything that `{key}` had, in dimensions {dims}; "
                'cut them with outside="clamp", or look whether the statistics are those of this robot'
            )
        if self.settings.outside == "clamp":
            low, high = limits(statistics.action, self.record.normalization)
            return np.clip(actions, low, high)
        log.warn_once(
            f"actions lie beyond everything that `{key}` had, first in dimensions {dims}; they are passed on and counted "
            "(policy.counts)"
        )
        return actions

    def _memory(self, robot: Hashable) -> _Memory:
        return self._robots.setdefault(robot, _Memory(self.record.history))


class _Memory:
    """What is remembered of one robot."""

    def __init__(self, history: int) -> None:
        self.images: deque[Mapping[str, Any]] = deque(maxlen=history or None)
        self.ensemble: Ensemble | None = None

    def remembered(self, observation: Observation, record: ActionRecord) -> Observation:
        """The observation with what came before it, unless it brings that itself."""
        if observation.history:
            return observation
        return Observation(images=observation.images, proprio=observation.proprio, history=tuple(self.images))

    def keep(self, observation: Observation) -> None:
        # arrays are often buffers that a camera writes into again
        kept = {n: i.copy() if isinstance(i, np.ndarray) else i for n, i in observation.images.items() if i is not None}
        self.images.append(kept)

    def blended(self, actions: np.ndarray, decay: float) -> np.ndarray:
        if self.ensemble is None:
            self.ensemble = Ensemble(decay=decay)
        return self.ensemble.add(actions)


def _bins(record: ActionRecord, model: Model) -> Bins:
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


def _check_dims(key: str, found: DatasetStatistics, record: ActionRecord) -> None:
    faults = []
    if found.action.dims != record.dims:
        faults.append(f"actions of {found.action.dims} numbers, and this policy makes {record.dims}")
    if record.proprio is not None and found.proprio is not None and found.proprio.dims != record.proprio:
        faults.append(f"proprio of {found.proprio.dims} numbers, and this policy asks for {record.proprio}")
    if faults:
        raise DataError(f"the statistics `{key}` are another robot's: they are of {'; of '.join(faults)}")


def _check_steps(record: ActionRecord, settings: PolicySettings) -> None:
    if settings.execute is not None and settings.execute > record.chunk:
        raise ConfigError(f"execute={settings.execute}, and this policy makes chunks of {record.chunk}")
    if settings.steps is not None and record.head != "flow":
        raise ConfigError(f"steps={settings.steps} without effect: the head is `{record.head}`, which does not denoise")
    if settings.seed is not None and record.head != "flow":
        raise ConfigError(f"seed={settings.seed} without effect: the head `{record.head}` draws nothing")
    if settings.ensemble is not None and settings.execute not in (None, 1):
        raise ConfigError("ensembling gives one action a call; leave `execute` out")


def _require_rows(seen: Sequence[Any], texts: Sequence[str], names: Sequence[Hashable]) -> None:
    if not seen:
        raise DataError("no observations; give at least one")
    if len(texts) != len(seen) or len(names) != len(seen):
        raise DataError(
            f"{len(seen)} observations, {len(texts)} instructions and {len(names)} robots; give as many of each, or one "
            "instruction for all"
        )
    if len(set(names)) < len(names):
        raise DataError("two observations of one robot in one call; each robot sees one moment at a time")
