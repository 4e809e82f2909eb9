"""Health: alive means that offsets advance while there is lag; ready means assigned, recovered and warm."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError
from streams.config_sections import Web
from streams.health import Pulse, Status, Track, Watch, Watchdog, missing
from streams.metrics import Metrics
from streams.web import Server, application

LIMIT_S = 60.0
READY = Status(assigned=True, releases={"fraud": "fraud/1"})


@dataclass
class FakeWorker:
    """A provider that says what the test wants."""

    says: Status = field(default_factory=Status)

    def status(self) -> Status:
        return self.says


@dataclass
class FakeClock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def track(position: int, end: int | None, name: str = "clicks-0", parked: bool = False) -> Track:
    return Track(name, position, end, parked)


def stuck_after(seconds: float, *tracks: Track, step: float = 10.0) -> list[str]:
    """The stuck tracks after the same `tracks` were seen for `seconds`."""
    watchdog, now = Watchdog(LIMIT_S), 0.0
    stuck = watchdog.observe(now, tracks)
    while now < seconds:
        now += step
        stuck = watchdog.observe(now, tracks)
    return [one.name for one in stuck]


def test_offsets_that_stand_still_under_lag_are_stuck_after_the_limit() -> None:
    assert stuck_after(50, track(5, 9)) == []
    assert stuck_after(60, track(5, 9)) == ["clicks-0"]


def test_offsets_that_stand_still_without_lag_are_idle() -> None:
    assert stuck_after(600, track(9, 9)) == []


def test_one_stuck_partition_is_named_although_others_advance() -> None:
    watchdog = Watchdog(LIMIT_S)
    for second in range(0, 61, 10):
        stuck = watchdog.observe(second, (track(second, 1000, "clicks-0"), track(3, 9, "clicks-1")))
    assert [one.name for one in stuck] == ["clicks-1"]


def test_a_parked_partition_waits_on_purpose() -> None:
    assert stuck_after(600, track(5, 9, parked=True)) == []


def test_where_the_end_is_unknown_nothing_is_concluded() -> None:
    assert stuck_after(600, track(5, None)) == []


def test_lag_that_only_just_came_has_the_whole_limit() -> None:
    watchdog = Watchdog(LIMIT_S)
    for second in range(0, 601, 10):
        assert watchdog.observe(second, (track(5, 5),)) == []
    for second in range(610, 670, 10):
        assert watchdog.observe(second, (track(5, 6),)) == []
    assert len(watchdog.observe(670, (track(5, 6),))) == 1


def test_a_process_that_was_stopped_and_goes_on_is_not_stuck_at_once() -> None:
    watchdog = Watchdog(LIMIT_S)
    watchdog.observe(0, (track(5, 9),))
    assert watchdog.observe(500, (track(5, 9),)) == []
    for second in range(510, 560, 10):
        assert watchdog.observe(second, (track(5, 9),)) == []
    assert len(watchdog.observe(560, (track(5, 9),))) == 1


def test_a_rewind_after_a_rebalance_counts_as_a_change() -> None:
    watchdog = Watchdog(LIMIT_S)
    for second in range(0, 60, 10):
        watchdog.observe(second, (track(9, 20),))
    assert watchdog.observe(60, (track(2, 20),)) == []


@given(st.lists(st.tuples(st.integers(1, 29), st.integers(1, 5)), max_size=40))
def test_a_partition_that_always_advances_is_never_stuck(steps: list[tuple[int, int]]) -> None:
    watchdog, now, position = Watchdog(LIMIT_S), 0.0, 0
    for seconds, records in steps:
        now, position = now + seconds, position + records
        assert watchdog.observe(now, (track(position, 10**9),)) == []


def test_a_loop_that_does_not_answer_shows_as_a_track_with_lag() -> None:
    asked: list[Callable[[], None]] = []
    pulse = Pulse(asked.append)
    assert pulse.track().lag == 1
    assert pulse.track().lag == 1
    assert len(asked) == 1  # not one more call for each look at a loop that hangs
    asked[0]()
    before = pulse.track()
    asked[1]()
    assert pulse.track().position > before.position


NOT_READY = [
    (Status(), "no partitions are assigned"),
    (replace(READY, recovering=(1, 3)), "partitions 1, 3"),
    (replace(READY, cold=("ctr",)), "engines of ctr"),
    (replace(READY, unreachable=("the registry at http://r does not answer",)), "http://r"),
    (replace(READY, stopping=True), "stopping"),
]


@pytest.mark.parametrize(("status", "words"), NOT_READY)
def test_what_is_missing_is_said_in_words(status: Status, words: str) -> None:
    assert any(words in lack for lack in missing(status))


def test_a_worker_that_lacks_nothing_is_ready() -> None:
    assert missing(READY) == []


def test_the_watch_reports_a_hang_from_its_own_thread() -> None:
    clock, hung = FakeClock(), threading.Event()
    worker = FakeWorker(replace(READY, tracks=(track(5, 9),)))
    named: list[Track] = []

    def on_stuck(stuck: list[Track]) -> None:
        named.extend(stuck)
        hung.set()

    watch = Watch(worker, Watchdog(0.05), clock, on_stuck=on_stuck)
    watch.step()
    clock.now = 0.02
    watch.step()
    clock.now = 0.04
    watch.step()
    clock.now = 0.06
    watch.start()
    assert hung.wait(10)
    watch.join(10)
    assert [one.name for one in named] == ["clicks-0"]


def test_a_watch_can_be_stopped() -> None:
    watch = Watch(FakeWorker(), Watchdog(LIMIT_S), FakeClock())
    watch.start()
    watch.stop()
    watch.join(10)
    assert not watch.is_alive()


def ask(worker: FakeWorker, path: str, clock: FakeClock, seconds: int = 0) -> tuple[int, str]:
    """Status and body of `path`, asked for again every 10 s of the clock for `seconds`."""

    async def call() -> tuple[int, str]:
        app = application(worker, Metrics(), LIMIT_S, clock)
        async with Server(app, Web(port=0)) as server, ClientSession() as http:
            for _ in range(seconds // 10 + 1):
                async with http.get(f"http://127.0.0.1:{server.port}{path}") as answer:
                    status, body = answer.status, await answer.text()
                clock.now += 10
            return status, body

    return asyncio.run(call())


def test_healthz_fails_once_offsets_stand_still_under_lag() -> None:
    worker = FakeWorker(replace(READY, tracks=(track(5, 9), track(0, 4, "clicks-1", parked=True))))
    assert ask(worker, "/healthz", FakeClock())[0] == 200
    status, body = ask(worker, "/healthz", FakeClock(), seconds=60)
    assert status == 503
    assert '"stuck": ["clicks-0"]' in body
    assert '"parked": ["clicks-1"]' in body


def test_readyz_says_what_is_missing() -> None:
    status, body = ask(FakeWorker(), "/readyz", FakeClock())
    assert status == 503
    assert "no partitions are assigned yet" in body
    status, body = ask(FakeWorker(READY), "/readyz", FakeClock())
    assert status == 200
    assert '"fraud": "fraud/1"' in body


def test_the_metrics_page_tells_whether_the_worker_is_ready() -> None:
    assert "headrace_ready 1.0" in ask(FakeWorker(READY), "/metrics", FakeClock())[1]
    assert "headrace_ready 0.0" in ask(FakeWorker(), "/metrics", FakeClock())[1]


def test_a_port_that_is_taken_is_a_settings_error() -> None:
    async def twice() -> None:
        app = application(FakeWorker(), Metrics(), LIMIT_S)
        async with Server(app, Web(port=0)) as first:
            again = application(FakeWorker(), Metrics(), LIMIT_S)
            async with Server(again, Web(port=first.port)):
                pass

    with pytest.raises(SettingsError, match="HEADRACE_WEB__PORT"):
        asyncio.run(twice())
