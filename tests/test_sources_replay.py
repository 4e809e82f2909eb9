"""Publishing a stream: at its pace, as any client would, and honestly about how far it fell behind."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from schemas.errors import BadRecord, BrokerUnavailable, ProduceFailed, SettingsError
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder
from streams.catalog import Catalogue
from streams.config import Settings
from streams.contracts import CONTRACTS
from streams.events import EVENT_TYPES
from streams.partitioning import partition_for
from streams.ports import free_port
from streams.sources.load import history_load, uniform_catalog, uniform_load
from streams.sources.outcomes import heartbeat
from streams.sources.publisher import REPLAYED_HEADER, SOURCE_HEADER, Message, Publisher
from streams.sources.replay import OpenLoop, Pace, replay
from streams.sources.simulate import Attribution, publish_catalog, simulate
from streams.sources.telling import Timed
from streams.sources.truth import SCHEMA, read_truth
from streams.sources.world import World, WorldConfig, milliseconds
from tests.records import click

FreshSettings = Callable[..., Settings]
MINUTE_MS = 60_000


class Clock:
    """Time as an argument; sleeping moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Recorder(Publisher):
    """A publisher without a broker: keeps what it is given; each send takes `cost` seconds of the clock."""

    def __init__(self, clock: Clock | None = None, cost: float = 0.0) -> None:
        self.events: list[Timed] = []
        self.records: list[tuple[str, Any]] = []
        self.sent_at: list[float] = []
        self._clock, self._cost = clock or Clock(), cost

    def publish(self, event: Timed) -> None:
        self.events.append(event)
        self.send(Message(event.topic, b"", b""))

    def encode_record(self, setting: str, record: Any) -> Message:
        self.records.append((setting, record))
        return Message(setting, b"", b"")

    def send(self, message: Message) -> None:
        self.sent_at.append(self._clock())
        self._clock.now += self._cost

    def serve(self, wait_s: float = 0.0) -> None:
        pass

    def flush(self) -> None:
        pass


class Stop(threading.Event):
    """Waiting moves the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.now += timeout or 0.0
        return self.is_set()


def minutes(*times: float) -> list[Timed]:
    return [Timed("clicks", click(event_id=str(at)), int(at * MINUTE_MS)) for at in times]


# -- pace --


def test_speed_is_event_time_over_real_time() -> None:
    pace = Pace(speed=60, longest_wait_s=10)
    assert [pace.due(at * MINUTE_MS) for at in (0, 1, 3)] == [0, 1, 3]


def test_a_night_is_shortened() -> None:
    pace = Pace(speed=60, longest_wait_s=2)
    assert [pace.due(at * MINUTE_MS) for at in (0, 600, 601)] == [0, 2, 3]


def test_a_rate_does_not_look_at_event_time() -> None:
    pace = Pace(rate=4)
    assert [pace.due(at) for at in (0, 9_999_999, 9_999_999)] == [0, 0.25, 0.5]


def test_without_a_pace_all_is_due_at_once() -> None:
    pace = Pace()
    assert [pace.due(at * MINUTE_MS) for at in (0, 5)] == [0, 0]


@pytest.mark.parametrize("values", [{"speed": 0}, {"rate": -1}, {"speed": 2, "rate": 3}])
def test_a_pace_that_makes_no_sense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        Pace(**values)


# -- replay --


def test_events_are_sent_when_they_are_due() -> None:
    clock = Clock()
    publisher = Recorder(clock)
    counts = replay(minutes(0, 1, 1.5), publisher, Pace(speed=60, longest_wait_s=9), stop=Stop(clock), clock=clock)
    assert publisher.sent_at == pytest.approx([100, 101, 101.5])
    assert (counts.total, counts.sent, counts.stopped) == (3, {"clicks": 3}, False)
    assert (counts.first_time, counts.last_time) == (0, 90_000)


def test_a_replay_that_fell_behind_catches_up() -> None:
    clock = Clock()
    publisher = Recorder(clock, cost=0.6)
    replay(minutes(0, 1, 2, 3), publisher, Pace(rate=2), stop=Stop(clock), clock=clock)
    assert publisher.sent_at == pytest.approx([100, 100.6, 101.2, 101.8])


def test_heartbeats_do_not_stretch_a_night() -> None:
    clock = Clock()
    publisher = Recorder(clock)
    night = [Timed("labels", heartbeat(at * 60 * MINUTE_MS), at * 60 * MINUTE_MS) for at in range(1, 10)]
    morning, after = minutes(600)[0], Timed("labels", heartbeat(660 * MINUTE_MS), 660 * MINUTE_MS)
    pace = Pace(speed=60, longest_wait_s=2)
    counts = replay([*minutes(0), *night, morning, after], publisher, pace, stop=Stop(clock), clock=clock)
    assert publisher.sent_at == pytest.approx([100] + 10 * [102] + [104])
    assert counts.sent == {"clicks": 2, "labels": 10}


def test_a_stop_ends_it_and_says_so() -> None:
    stop = threading.Event()
    publisher = Recorder()
    counts = replay(minutes(0, 1, 2), publisher, stop=stop, on_event=lambda event: stop.set())
    assert (counts.total, counts.stopped) == (1, True)


def test_control_c_ends_it_like_a_stop() -> None:
    def events() -> Iterator[Timed]:
        yield from minutes(0, 1)
        raise KeyboardInterrupt

    counts = replay(events(), Recorder())
    assert (counts.total, counts.stopped) == (2, True)


def test_an_event_may_be_completed_just_before_it_is_sent() -> None:
    publisher = Recorder()
    replay(minutes(0), publisher, on_event=lambda event: event.record.update(request_id="r1"))
    assert publisher.events[0].record["request_id"] == "r1"


# -- open loop --


def test_an_open_loop_sends_by_its_clock() -> None:
    clock = Clock()
    publisher = Recorder(clock)
    report = OpenLoop(10, clock=clock, sleep=clock.sleep).run([Message("t", b"", b"")] * 4, publisher)
    assert publisher.sent_at == pytest.approx([100, 100.1, 100.2, 100.3], abs=1e-6)
    assert report.sent == 4
    assert report.lag_max_ms == pytest.approx(0, abs=1e-3)


def test_an_open_loop_never_skips_and_reports_how_late_it_was() -> None:
    clock = Clock()
    publisher = Recorder(clock, cost=0.15)
    report = OpenLoop(10, clock=clock, sleep=clock.sleep).run([Message("t", b"", b"")] * 5, publisher)
    assert publisher.sent_at == pytest.approx([100, 100.15, 100.3, 100.45, 100.6])
    assert report.sent == 5
    assert report.lag_max_ms == pytest.approx(350)


def test_an_open_loop_needs_a_rate() -> None:
    with pytest.raises(SettingsError):
        OpenLoop(0)


# -- attribution and simulation --


def answered(minute: float, item: str = "b", user: str = "u") -> tuple[str | None, int | None]:
    attribution = Attribution()
    attribution.served("u", "request-1", 0, ["a", "b"])
    event = Timed("clicks", click(user_id=user, item_id=item), int(minute * MINUTE_MS))
    attribution.answer(event)
    return event.record["request_id"], event.record["position"]


def test_a_click_on_what_was_recommended_answers_it() -> None:
    assert answered(1) == ("request-1", 1)


@pytest.mark.parametrize("values", [{"minute": 31}, {"minute": 1, "item": "c"}, {"minute": 1, "user": "v"}])
def test_any_other_click_answers_nothing(values: dict[str, Any]) -> None:
    assert answered(**values) == (None, None)


def test_a_simulation_publishes_its_span_and_keeps_the_truth_of_it(tmp_path: Path) -> None:
    made = World(
        WorldConfig(start="2011-09-01", end="2011-09-05", shop="generated", orders_a_day=20, keep_truth=False),
        1,
    )
    publisher, path = Recorder(), tmp_path / "truth.parquet"
    counts = simulate(made, publisher, start="2011-09-03", end="2011-09-04", truth=path)
    assert {setting for setting, _ in publisher.records} == {"items", "ads"}
    times = [event.time for event in publisher.events]
    assert milliseconds("2011-09-03") <= min(times) <= max(times) < milliseconds("2011-09-04")
    truth = read_truth(path)
    assert truth.schema == SCHEMA
    told = {e.record["event_id"] for e in publisher.events if e.topic in ("orders", "impressions")}
    assert set(truth["event_id"].to_pylist()) == told
    assert counts.total == len(publisher.events)


# -- the load of benchmarks --


def test_a_uniform_load_has_its_mix_and_its_size() -> None:
    events = list(uniform_load(20_000, 100, 1))
    share = {topic: sum(e.topic == topic for e in events) / len(events) for topic in ("clicks", "orders")}
    assert share == pytest.approx({"clicks": 0.8, "orders": 0.05}, abs=0.01)
    assert all(len(e.record["slate"]) == 8 for e in events if e.topic == "impressions")
    assert [event.time for event in events] == list(range(events[0].time, events[0].time + 20_000))
    assert events == list(uniform_load(20_000, 100, 1))


def test_a_uniform_load_names_only_what_its_catalogue_has() -> None:
    items, ads = uniform_catalog(50, 9)
    known = {record["item_id"] for record in items} | {record["ad_id"] for record in ads}
    for event in uniform_load(500, 10, 1, items=50, ads=9):
        named = [ad["ad_id"] for ad in event.record.get("slate", [])]
        named += [line["item_id"] for line in event.record.get("items", [])]
        assert set(named) <= known


def test_a_history_load_fills_every_history() -> None:
    entries: dict[str, int] = {}
    catalog, kinds = Catalogue(), {kind.name: kind for kind in EVENT_TYPES}
    events = list(history_load(30, 1))
    for event in events:
        user = event.record["user_id"]
        entries[user] = entries.get(user, 0) + len(kinds[event.topic].entries(event.record, catalog))
    assert set(entries.values()) == {64}
    assert len(entries) == 30
    assert [event.time for event in events] == sorted(event.time for event in events)


# -- Kafka --


def test_events_are_placed_and_stamped_as_any_client_would(settings: Settings) -> None:
    registry, before = MemoryRegistry(), time.time() * 1000
    events = list(uniform_load(300, 20, 1))
    with Publisher(settings, registry, source="a test", replayed=True) as publisher:
        publish_catalog(uniform_catalog(5, 3), publisher)
        counts = replay(events, publisher)
    assert counts.total == 300
    assert publisher.acknowledged == 308
    decode = Decoder(registry, CONTRACTS["clicks"])
    found = list(consumed(settings, settings.topics.clicks))
    assert [event.record for event in events if event.topic == "clicks"] == sorted(
        (decode(message.value) for message in found), key=lambda record: record["event_time"]
    )
    for message in found:
        assert message.partition == partition_for(message.key, settings.partitions)
        assert message.timestamp >= before - 1000
        assert message.headers == [(SOURCE_HEADER, b"a test"), (REPLAYED_HEADER, b"1")]


def consumed(settings: Settings, topic: str) -> Iterator[Any]:
    consumer = KafkaConsumer(**settings.kafka_python(), enable_auto_commit=False, consumer_timeout_ms=20_000)
    places = [TopicPartition(topic, number) for number in range(settings.partitions)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    left = sum(consumer.end_offsets(places).values())
    try:
        for _ in range(left):
            yield next(consumer)
    finally:
        consumer.close(autocommit=False)


def test_a_record_that_is_not_of_its_contract_is_refused_before_it_is_sent(settings: Settings) -> None:
    with Publisher(settings, MemoryRegistry()) as publisher, pytest.raises(BadRecord):
        publisher.publish(Timed("clicks", click(action=None), 0))


def test_an_event_that_the_broker_refuses_ends_the_publishing(settings: Settings) -> None:
    too_large = b"x" * (2 * settings.max_message_bytes)
    with (
        pytest.raises(ProduceFailed, match="not accepted"),
        Publisher(settings, MemoryRegistry()) as publisher,
    ):
        publisher.send(Message(settings.topics.clicks, b"k", too_large))


def test_missing_topics_are_named(fresh_settings: FreshSettings) -> None:
    with pytest.raises(SettingsError, match=r"events\.clicks.*headrace topics create"):
        Publisher(fresh_settings(create=False), MemoryRegistry())


def test_a_broker_that_is_away_is_named() -> None:
    with pytest.raises(BrokerUnavailable, match="no broker listens"):
        Publisher(Settings(brokers=f"127.0.0.1:{free_port()}"), MemoryRegistry())
