"""The scheduler without a wire: batches are what each alone would be, for robots that remember too."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from tests.policies.models import image
from tests.serve.serving import TASK, policy
from vertebra.errors import DataError
from vertebra.policies import Observation
from vertebra.serve.metrics import ServerMetrics
from vertebra.serve.refusals import Busy
from vertebra.serve.scheduler import Scheduler
from vertebra.serve.settings import ServeSettings


def seen(seed: int) -> Observation:
    return Observation(images={"image": image(seed)})


def scheduled(one, work, **settings):
    """What `work(scheduler)` gives; the batches that were computed."""
    metrics = ServerMetrics(10)
    scheduler = Scheduler(one, ServeSettings(**settings), metrics)
    sizes, real = [], one.decide_many

    def counted(observations, *given, **more):
        sizes.append(len(observations))
        return real(observations, *given, **more)

    one.decide_many = counted
    scheduler.start()
    try:
        return asyncio.run(work(scheduler)), sizes
    finally:
        scheduler.stop()


@pytest.mark.parametrize("changes", [{}, {"history": 1}, {"settings": {"ensemble": 0.1}, "chunk": 3}])
def test_a_batch_is_what_each_alone_would_be(changes):
    alone = policy(**changes)
    expected = {(r, t): alone.act(seen(10 * r + t), TASK, robot=r) for t in range(3) for r in range(5)}

    async def work(scheduler):
        return [
            await asyncio.gather(*(scheduler.ask(seen(10 * r + t), TASK, None, f"{r}") for r in range(5)))
            for t in range(3)
        ]

    made, sizes = scheduled(policy(**changes), work, max_batch=4, batch_wait=0.05)
    assert max(sizes) in (2, 3, 4)
    for t, row in enumerate(made):
        for r, decision in enumerate(row):
            assert np.allclose(decision.chunk, expected[r, t], atol=1e-5)


def test_requests_of_one_robot_keep_their_order():
    alone = policy(history=2)
    expected = [alone.act(seen(t), TASK) for t in range(6)]

    async def work(scheduler):
        return await asyncio.gather(*(scheduler.ask(seen(t), TASK, None, "arm") for t in range(6)))

    made, sizes = scheduled(policy(history=2), work)
    assert sizes == [1] * 6
    for decision, chunk in zip(made, expected, strict=True):
        assert np.allclose(decision.chunk, chunk, atol=1e-5)


def test_whoever_stands_beside_a_failure_is_answered_from_what_it_remembered():
    changes = {"settings": {"ensemble": 0.1}, "chunk": 3}
    alone, one = policy(**changes), policy(**changes)
    expected = [alone.act(seen(t), TASK) for t in range(3)]
    whole = one._whole

    def broken(values, robot):
        return whole(np.full_like(values, np.nan) if robot == "bad" else values, robot)

    one._whole = broken

    async def work(scheduler):
        made = []
        for t in range(3):
            scheduler._expected = 2
            names = ("good", "bad")
            asks = [scheduler.ask(seen(t), TASK, None, name) for name in names]
            made.append(await asyncio.gather(*asks, return_exceptions=True))
        return made

    made, sizes = scheduled(one, work, batch_wait=0.2)
    assert 2 in sizes
    for t, (good, bad) in enumerate(made):
        assert np.allclose(good.chunk, expected[t], atol=1e-5)
        assert isinstance(bad, DataError)


def test_a_robot_without_a_name_leaves_no_memory_and_silent_ones_are_forgotten():
    one = policy(history=1)

    async def work(scheduler):
        for robot in (None, "a", "b", "c", None):
            await scheduler.ask(seen(0), TASK, None, robot)
        scheduler.forget("c")
        await scheduler.ask(seen(0), TASK, None, None)
        return sorted(one._robots)

    kept, _ = scheduled(one, work, sessions=2)
    assert kept == ["b"]


def test_who_stops_waiting_costs_no_pass():
    async def work(scheduler):
        first = asyncio.ensure_future(scheduler.ask(seen(0), TASK, None, "a"))
        second = asyncio.ensure_future(scheduler.ask(seen(1), TASK, None, "a"))
        await asyncio.sleep(0)
        second.cancel()
        return await first

    _, sizes = scheduled(policy(), work, max_batch=1)
    assert sizes == [1]


def test_robots_that_fell_into_two_groups_find_together():
    one, begun, all_here = policy(), threading.Event(), threading.Event()
    real = one.decide_many
    one.decide_many = lambda *given, **more: (begun.set(), all_here.wait(30), real(*given, **more))[2]

    async def work(scheduler):
        async def robot(name: str) -> None:
            for step in range(4):
                await scheduler.ask(seen(step), TASK, None, name)

        first = asyncio.ensure_future(robot("a"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(robot(name)) for name in "bcd"]
        while scheduler.waiting < 3:
            await asyncio.sleep(0.001)
        all_here.set()
        await asyncio.gather(first, *others)

    _, sizes = scheduled(one, work, batch_wait=5.0)
    assert sizes == [1, 4, 4, 4, 3]


def test_an_ended_scheduler_sends_away():
    async def work(scheduler):
        scheduler.stop()
        with pytest.raises(Busy):
            await scheduler.ask(seen(0), TASK, None, "a")

    scheduled(policy(), work)
