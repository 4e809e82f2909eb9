"""Turns of the engines: one at a time, in the order asked, in the event loop where that is short."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from engines.turns import Turns

LOOP, THREAD = "MainThread", "engines_0"


class Clock:
    """Seconds that jobs say they take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Iterator[Turns]:
    made = Turns(clock)
    yield made
    made.close()


def taking(clock: Clock, seconds: float) -> Callable[[], str]:
    """A job that takes so long by the clock, and says which thread ran it."""

    def job() -> str:
        clock.now += seconds
        return threading.current_thread().name

    return job


def told(story: Coroutine[Any, Any, list[str]]) -> list[str]:
    return asyncio.run(story)


def test_a_short_job_runs_in_the_loop_and_a_long_one_beside_it(turns: Turns, clock: Clock) -> None:
    async def story() -> list[str]:
        return [await turns.run(taking(clock, 0.0), events=events) for events in (1, 8, 64)]

    assert told(story()) == [LOOP, LOOP, THREAD]


def test_how_long_a_job_takes_is_known_from_those_of_its_size(turns: Turns, clock: Clock) -> None:
    async def story() -> list[str]:
        ran = [await turns.run(taking(clock, 0.005), events=3) for _ in range(2)]
        ran += [await turns.run(taking(clock, 0.001), events=64) for _ in range(2)]
        return [*ran, await turns.run(taking(clock, 0.0), events=1)]

    assert told(story()) == [LOOP, THREAD, THREAD, LOOP, LOOP]


def test_a_job_that_was_kept_waiting_once_does_not_send_the_next_ones_away(turns: Turns, clock: Clock) -> None:
    async def story() -> list[str]:
        return [await turns.run(taking(clock, seconds), events=2) for seconds in (0.001, 0.5, 0.001)]

    assert told(story()) == [LOOP, LOOP, LOOP]


def test_sizes_that_grew_slow_are_found_quick_again(turns: Turns, clock: Clock) -> None:
    async def story() -> list[str]:
        slow = [await turns.run(taking(clock, 0.01), events=2) for _ in range(20)]
        return slow[-1:] + [await turns.run(taking(clock, 0.001), events=2) for _ in range(2)]

    assert told(story()) == [THREAD, THREAD, LOOP]


def test_short_jobs_that_find_a_long_one_run_after_it_in_the_loop_in_the_order_asked(
    turns: Turns, clock: Clock
) -> None:
    gate = threading.Event()
    order: list[str] = []

    def long() -> str:
        assert gate.wait(10)
        order.append("long")
        return threading.current_thread().name

    def short(name: str) -> Callable[[], str]:
        def job() -> str:
            order.append(name)
            return threading.current_thread().name

        return job

    async def story() -> list[str]:
        jobs = [asyncio.ensure_future(turns.run_aside(long))]
        jobs += [asyncio.ensure_future(turns.run(short(name), events=1)) for name in "abc"]
        await asyncio.sleep(0.01)
        assert not order
        gate.set()
        return list(await asyncio.gather(*jobs))

    assert told(story()) == [THREAD, LOOP, LOOP, LOOP]
    assert order == ["long", "a", "b", "c"]


def test_what_was_submitted_from_elsewhere_comes_first(turns: Turns, clock: Clock) -> None:
    gate = threading.Event()
    order: list[str] = []
    turns.submit(gate.wait, 10)
    turns.submit(order.append, "flip")

    def events() -> str:
        order.append("events")
        return threading.current_thread().name

    async def story() -> list[str]:
        job = asyncio.ensure_future(turns.run(events, events=1))
        await asyncio.sleep(0.01)
        assert not order
        gate.set()
        return [await job]

    told(story())
    assert order == ["flip", "events"]


def test_a_job_that_fails_leaves_the_turn_to_the_next(turns: Turns, clock: Clock) -> None:
    def broken() -> str:
        raise ValueError("broken")

    async def story() -> list[str]:
        for job in (turns.run(broken, events=1), turns.run(broken, events=64), turns.run_aside(broken)):
            with pytest.raises(ValueError, match="broken"):
                await job
        return [await turns.run(taking(clock, 0.0), events=1)]

    assert told(story()) == [LOOP]


def test_who_gives_up_waiting_leaves_the_turn_to_the_next_and_two_jobs_never_run_at_once(
    turns: Turns, clock: Clock
) -> None:
    gate, running = threading.Event(), threading.Semaphore(1)

    def alone() -> str:
        assert running.acquire(blocking=False)
        gate.wait(10)
        running.release()
        return threading.current_thread().name

    async def story() -> list[str]:
        first = asyncio.ensure_future(turns.run_aside(alone))
        await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.ensure_future(turns.run(alone, events=1))
        await asyncio.sleep(0.01)
        gate.set()
        return [await second]

    assert told(story()) == [THREAD]
