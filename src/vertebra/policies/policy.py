"""`Policy`: an observation and an instruction become a chunk of actions, in the robot's own units.

    Observation ──► faults? ──► normalised proprio ──► row ──► head ──► −1…1 ──► unnormalise ──► frame ──► gripper ──► first k
                                                                 │         NaN, beyond the data: by settings, counted
                                       ids allowed, prefix kept ─┘

`act` for one robot and a step, `act_many` for several at once (each as if alone), `decide` with everything that is known of
a decision. What is remembered between calls (earlier images, chunks that are blended) belongs to a robot: `reset`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vertebra import log
from vertebra.action.chunks import first
from vertebra.action.frames import from_frame, gripped
from vertebra.action.normalization import limits, normalize, outside, unnormalize
from vertebra.action.record import DENOISE, ActionRecord
from vertebra.action.statistics import DatasetStatistics, lookup
from vertebra.errors import ConfigError, DataError
from vertebra.model.heads.previous import Previous
from vertebra.model.model import Model
from vertebra.policies.decision import Decision, sureness
from vertebra.policies.fit import bins_of, check_dims, check_head, check_settings, require_list, require_rows
from vertebra.policies.heads import AskedModel, Predicted, predict
from vertebra.policies.memory import RobotMemory
from vertebra.policies.observation import Missing, Observation, faults
from vertebra.policies.prefix import Prefixes
from vertebra.policies.prompts import PolicyPrompt, Prompts
from vertebra.policies.settings import PolicySettings


class Policy:
    """A model that acts. `record`: by default the one that the model carries."""

    def __init__(
        self, model: Model, record: ActionRecord | None = None, settings: PolicySettings | None = None
    ) -> None:
        self.model = model
        self.record = record or ActionRecord.of(model.record, where=f"`{model.identifier}`")
        self.settings = settings or PolicySettings()
        check_settings(self.record, self.settings)
        check_head(self.record, model)
        self.bins = None if self.record.bins is None else bins_of(self.record, model)
        after = self.record.images == "after" and self.settings.keep_prefix
        self.prefixes = Prefixes() if after else None
        self.asking = AskedModel(model=model, record=self.record, bins=self.bins, prefixes=self.prefixes)
        self.prompts = Prompts(model, self.record, slots=self.asking.slots(), early=self.asking.early())
        self.counts: Counter[str] = Counter()
        """What happened so far: `actions`, `outside`, `not a number`, `missing camera`."""
        self._statistics: dict[str, DatasetStatistics] = {}
        self._robots: dict[Hashable, RobotMemory] = {}

    @property
    def keys(self) -> list[str]:
        """The data sets that actions can be brought to the units of."""
        return sorted(self.record.statistics)

    def act(
        self,
        observation: Any,
        instruction: str,
        unnorm_key: str | None = None,
        *,
        robot: Hashable = 0,
        done: int | None = None,
    ) -> np.ndarray:
        """[k, dims] in the robot's units: the next actions, the first of them first.

        `done`: under real-time chunking, how many actions of the chunk before are carried out by now.
        """
        return self.decide(observation, instruction, unnorm_key, robot=robot, done=done, sure=False).chunk

    def decide(
        self,
        observation: Any,
        instruction: str,
        unnorm_key: str | None = None,
        *,
        robot: Hashable = 0,
        done: int | None = None,
        sure: bool = True,
    ) -> Decision:
        """The same with everything that is known of it: ids, entropy and confidence (`sure`), what was cut."""
        return self.decide_many([observation], [instruction], unnorm_key, robots=[robot], done=done, sure=sure)[0]

    def act_many(
        self,
        observations: Sequence[Any],
        instructions: str | Sequence[str],
        unnorm_key: str | Sequence[str | None] | None = None,
        *,
        robots: Sequence[Hashable] | None = None,
        done: int | None = None,
    ) -> list[np.ndarray]:
        """A chunk for each of several robots, from one pass over all: the chunks are those of each alone."""
        made = self.decide_many(observations, instructions, unnorm_key, robots=robots, done=done, sure=False)
        return [one.chunk for one in made]

    def decide_many(
        self,
        observations: Sequence[Any],
        instructions: str | Sequence[str],
        unnorm_key: str | Sequence[str | None] | None = None,
        *,
        robots: Sequence[Hashable] | None = None,
        done: int | None = None,
        sure: bool = True,
    ) -> list[Decision]:
        """The decisions of several robots. `robots`: their names, by which each has a memory; by default 0, 1, 2 … One
        instruction or `unnorm_key` is for all."""
        require_list(observations)
        seen = [Observation.of(one, self.record.cameras) for one in observations]
        texts = [instructions] * len(seen) if isinstance(instructions, str) else list(instructions)
        names = list(range(len(seen))) if robots is None else list(robots)
        keys = [unnorm_key] * len(seen) if unnorm_key is None or isinstance(unnorm_key, str) else list(unnorm_key)
        require_rows(seen, texts, names, keys)
        if done is not None and self.settings.real_time is None:
            raise ConfigError(f"done={done} without effect: it is about real-time chunking (real_time=…), which is off")
        self._require_fit(seen, texts)
        if self.record.history:
            seen = [self._memory(name).remembered(one) for name, one in zip(names, seen, strict=True)]
        known = [self._known(key) for key in keys]
        rows = self._rows(seen, texts, [statistics for _, statistics in known])
        predicted = self._predicted(rows, names, sure=sure, done=done)
        made = [
            self._decided(predicted, row, one, name, *known[row])
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

    @property
    def remembers(self) -> bool:
        """Whether an answer depends on what was asked before it."""
        given = self.settings
        return bool(self.record.history) or given.ensemble is not None or given.real_time is not None

    def forget(self, robot: Hashable) -> None:
        """Forget one robot, and nothing else: what is kept of instructions stays."""
        self._robots.pop(robot, None)

    def memories(self, robots: Sequence[Hashable]) -> dict[Hashable, RobotMemory | None]:
        """What is remembered of these robots now, for `recall`."""
        known = ((robot, self._robots.get(robot)) for robot in robots)
        return {robot: None if memory is None else memory.copied() for robot, memory in known}

    def recall(self, memories: Mapping[Hashable, RobotMemory | None]) -> None:
        """Remember of these robots what was remembered then: as if they had asked nothing since."""
        for robot, memory in memories.items():
            if memory is None:
                self._robots.pop(robot, None)
            else:
                self._robots[robot] = memory.copied()

    def statistics(self, unnorm_key: str | None = None) -> DatasetStatistics:
        """Those of a data set, or the only ones there are."""
        return self._known(unnorm_key)[1]

    def known_key(self, unnorm_key: str | None = None) -> str:
        """The data set that a key means: itself, or the only one."""
        return self._known(unnorm_key)[0]

    def predicted(self, observation: Observation, instruction: str, key: str) -> tuple[Predicted, PolicyPrompt]:
        """What the head predicts for one observation, with probabilities, and the row it was given. Nothing is remembered."""
        self._require_fit([observation], [instruction], missing="mask", count=False)
        row = self.prompts.row(observation, instruction, self._proprio(observation, self._known(key)[1]))
        options = self._options()
        if "seed" in options:
            options["seed"] = 0  # the same noise whenever it is asked
        return predict(self.asking, [row], sure=True, options=options), row

    def settled(self, predicted: Predicted, observation: Observation, key: str) -> np.ndarray:
        """[C, D] the first row of a prediction, in the robot's units. Nothing is cut, counted or remembered."""
        actions = unnormalize(predicted.values[0], self._known(key)[1].action, self.record.normalization)
        return self._in_units(actions, observation)

    def _in_units(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        actions = from_frame(actions, self.record.frame, observation.proprio, dims=self.record.frame_dims)
        return gripped(actions, self.record.gripper)

    def _known(self, key: str | None) -> tuple[str, DatasetStatistics]:
        if key is None and len(self._statistics) == len(self.record.statistics) == 1:
            key = next(iter(self._statistics))
        if key not in self._statistics:  # None is never among them
            key, found = lookup(self.record.statistics, key)
            check_dims(key, found, self.record)
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

    def _rows(
        self, seen: Sequence[Observation], texts: Sequence[str], known: Sequence[DatasetStatistics]
    ) -> list[PolicyPrompt]:
        """A row for each robot; files that cannot be read are found here, all of them."""
        rows, found = [], []
        for number, (one, text, statistics) in enumerate(zip(seen, texts, known, strict=True)):
            try:
                rows.append(self.prompts.row(one, text, self._proprio(one, statistics)))
            except DataError as error:
                found.append(f"robot {number}: {error}" if len(seen) > 1 else str(error))
        if found:
            raise DataError("; ".join(found))
        return rows

    def _proprio(self, observation: Observation, statistics: DatasetStatistics) -> np.ndarray | None:
        if self.record.proprio is None:
            return None
        if statistics.proprio is None:
            raise DataError("this policy asks for proprio, and these statistics have none to normalise it by")
        how = self.record.proprio_normalization
        return normalize(np.asarray(observation.proprio, np.float64), statistics.proprio, how, proprio=True)

    def _predicted(
        self, rows: Sequence[PolicyPrompt], names: Sequence[Hashable], *, sure: bool, done: int | None
    ) -> Predicted:
        """What the head predicts for all rows; those that go on from a chunk, with it."""
        left = [None if done is None else self._memory(name).left(done) for name in names]
        if all(one is None for one in left):
            return predict(self.asking, rows, sure=sure, options=self._options())
        groups: dict[int, list[int]] = {}
        for row, old in enumerate(left):
            groups.setdefault(0 if old is None else len(old), []).append(row)
        values = np.empty((len(rows), self.record.chunk, self.record.dims))
        for members in groups.values():
            before = [old for row in members if (old := left[row]) is not None]
            options = {**self._options(), **self._previous(before)}
            values[members] = predict(self.asking, [rows[row] for row in members], options=options).values
        return Predicted(values=values)

    def _previous(self, left: Sequence[np.ndarray]) -> dict[str, Any]:
        if not left:
            return {}
        actions = torch.from_numpy(np.stack(left)).float().to(self.model.device)
        assert self.settings.real_time is not None
        return {"previous": Previous(actions=actions, delay=self.settings.delay, how=self.settings.real_time)}

    def _options(self) -> dict[str, Any]:
        """What a head that denoises is given."""
        if self.record.head not in DENOISE:
            return {}
        return {"steps": self.settings.steps or self.record.steps, "seed": self.settings.seed}

    def _decided(
        self,
        predicted: Predicted,
        row: int,
        observation: Observation,
        robot: Hashable,
        key: str,
        statistics: DatasetStatistics,
    ) -> Decision:
        values, broken = self._whole(predicted.values[row], robot)
        if self.settings.real_time is not None:
            self._memory(robot).values = values
        actions = unnormalize(values, statistics.action, self.record.normalization)
        beyond = outside(actions, statistics.action, self.record.normalization)
        actions = self._in_units(self._inside(actions, beyond, statistics, key), observation)
        self.counts["actions"] += len(actions)
        if self.settings.ensemble is not None:
            chunk = self._memory(robot).blended(actions, self.settings.ensemble)[None]
        else:
            chunk = first(actions, self.settings.execute or self.record.execute)
        entropy, confidence = sureness(predicted, row, self.bins)
        return Decision(
            chunk=chunk, actions=actions, values=values, ids=None if predicted.ids is None else predicted.ids[row],
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
        first = not self.counts["outside"]
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
        if first:  # the dimensions differ from chunk to chunk, and would make each a message of its own
            log.warn_once(
                f"actions lie beyond everything that `{key}` had, first in dimensions {dims}; they are passed on and "
                "counted (policy.counts)"
            )
        return actions

    def _memory(self, robot: Hashable) -> RobotMemory:
        return self._robots.setdefault(robot, RobotMemory(self.record.history))
