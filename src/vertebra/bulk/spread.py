"""Shards answered by several processes, on one machine or many, through Ray Data.

What travels is the numbers of shards: each process loads the model by its name and reads its rows from the source, so model and
rows must be readable everywhere under the same paths, and so must the folder of answers be writable. A process that dies is
started anew by Ray, and its shard is answered again; a file that is there was whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from vertebra.bulk.answering import Answerer, Shard
from vertebra.bulk.running import Work, write_shard
from vertebra.errors import GenerationError, MissingPartError, VertebraError


def over_ray(processes: int | None = None) -> Callable[[Work, list[Shard]], Iterable[Shard]]:
    """Who answers, for `run_rows(spread=…)`: so many processes, by default one a GPU, or a core where there is none."""

    def spread(work: Work, missing: list[Shard]) -> Iterable[Shard]:
        ray, begun = _begun()
        try:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            several = min(processes or gpus or int(ray.cluster_resources()["CPU"]), len(missing))
            yield from _answered(ray, work, missing, several, gpus=min(1.0, gpus / several))
        finally:
            if begun:
                ray.shutdown()

    return spread


def _begun() -> tuple[Any, bool]:
    """Ray, and whether it was begun here: a cluster that one is connected to is left as it is."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPartError("--ray", "ray", "ray") from error
    if ray.is_initialized():
        return ray, False
    ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
    return ray, True


class _Answering:
    """A process of Ray Data: one model, many shards."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.answerer: Answerer = work.answerer()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(**row)
        write_shard(self.work.out, shard, self.answerer.answer(shard))
        return row


def _answered(ray: Any, work: Work, missing: list[Shard], processes: int, *, gpus: float) -> Iterable[Shard]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    blocks = ray.data.from_items([asdict(shard) for shard in missing], override_num_blocks=len(missing))
    done = blocks.map(
        _Answering,
        fn_constructor_kwargs={"work": work},
        compute=ray.data.ActorPoolStrategy(size=processes),
        num_cpus=1,
        num_gpus=gpus,
    )
    try:
        for row in done.iter_rows():
            yield Shard(**row)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, VertebraError):
            raise cause from None
        raise GenerationError(
            f"Ray could not answer all shards; those that are there stay. {str(error).splitlines()[-1]}"
        ) from error
