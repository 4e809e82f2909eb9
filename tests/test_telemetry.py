"""Traces: a publisher's sampled context goes through every stage to the score; what is not sampled costs no span."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import confluent_kafka
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bench.scoring import Feed, make_scorer
from schemas.confluent import ConfluentRegistry
from schemas.errors import SettingsError
from schemas.wire import Encoder
from streams import outputs
from streams.config import Settings
from streams.doctor.traces import traces as doctors_check
from streams.offsets import bounds, places, read_range
from streams.ports import free_port
from streams.sources.load import START_MS, uniform_load
from streams.telemetry.context import Parent, parent_of, parent_of_request
from streams.telemetry.contract import make_traces
from streams.telemetry.spans import Traces
from streams.work import Outgoing, Work
from tests import shop
from tests.askers import until_answered
from tests.records import NOON_MS, order

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ASKERS = "f" * 32  # another trace, of somebody who asks
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01".encode(), f"00-{TRACE}-{SPAN}-00".encode()


# -- contexts --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_context_is_read_as_it_was_written(trace, span, flags):
    header = b"00-%032x-%016x-%02x" % (trace, span, flags)
    parent = parent_of([("a", b"b"), ("traceparent", header), ("tracestate", b"k=v")])
    assert parent == Parent(trace, span, flags, header, b"k=v")
    assert parent.sampled == bool(flags & 1)
    assert parent.carried() == [("traceparent", header), ("tracestate", b"k=v")]
    below = parent_of(parent.carried(7))
    assert below is not None
    assert (below.trace_id, below.span_id, below.sampled, below.tracestate) == (trace, 7, True, b"k=v")


@pytest.mark.parametrize(
    "header",
    [
        None, b"", b"00", SAMPLED.upper(), SAMPLED[:-1], SAMPLED + b"-more", b"ff" + SAMPLED[2:],
        b"00-" + b"0" * 32 + SAMPLED[35:], SAMPLED[:36] + b"0" * 16 + b"-01", b"\xff" * 55,
    ],
)  # fmt: skip
def test_what_is_no_context_is_passed_over(header):
    assert parent_of([("traceparent", header)]) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]), st.none() | st.binary(max_size=60))))
def test_no_headers_are_refused(headers):
    parent_of(headers)


def test_the_last_of_several_contexts_counts_and_a_later_version_may_say_more():
    later = b"01" + SAMPLED[2:] + b"-more"
    parent = parent_of([("traceparent", UNSAMPLED), ("traceparent", later)])
    assert parent is not None
    assert parent.sampled


def test_of_a_request_two_contexts_are_none_and_a_state_is_only_handed_on_with_its_context():
    first, second = SAMPLED.decode(), UNSAMPLED.decode()
    assert parent_of_request([first, second], []) is None
    assert parent_of_request([], ["shop=1"]) is None
    assert parent_of_request(["00-x"], ["shop=1"]) is None
    both = parent_of_request([first], ["shop=1", "other=2"])
    assert both is not None
    assert both.carried() == [("traceparent", SAMPLED), ("tracestate", b"shop=1,other=2")]


@pytest.mark.parametrize(
    "state",
    ["", "x", "=x", "Shop=1", "shop=1;2=3", "shop=\x01", "shop=é", ",", "a=" + "x" * 511, ",".join(["a=1"] * 33)],
)
def test_of_a_request_a_state_that_is_none_is_left_behind_and_its_context_is_not(state):
    parent = parent_of_request([SAMPLED.decode()], [state])
    assert parent is not None
    assert parent.carried() == [("traceparent", SAMPLED)]


@settings(deadline=None)
@given(st.lists(st.text(max_size=70), max_size=2), st.lists(st.text(max_size=70), max_size=2))
def test_no_headers_of_a_request_are_refused(contexts, states):
    parent_of_request(contexts, states)


# -- spans -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer_and_registry():
    return make_scorer([64])


class Watched:
    """Traces whose spans are kept here."""

    def __init__(self, most: int = 4) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traces = Traces(provider, most)

    def spans(self) -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


_seeds = iter(range(100, 10_000))


def scored(scorer_and_registry, traces: Traces | None, headers: dict[int, bytes], few: int = 0) -> tuple[Work, Any]:
    """A micro-batch of 12 events, scored as the loop does; event number -> its traceparent."""
    scorer, registry = scorer_and_registry
    seed = next(_seeds)
    [batch] = Feed(registry).batches(uniform_load(12, 20, seed, start=START_MS + seed * 1000), 12)
    number, parts = 0, []
    for topic, records in batch:
        given = []
        for record in records:
            head = [("traceparent", headers[number])] if number in headers else []
            given.append(record._replace(headers=head, timestamp=START_MS))
            number += 1
        parts.append((topic, given, scorer.decode(topic, given)))
    work = scorer.prepare(parts, START_MS + 10)
    assert len(work.events) == 12
    if traces is not None:
        work.trace = traces.begin(work, 0.25)
    scorer.infer(work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "FEW", few)
        first, _ = scorer.outputs.waves(work)
    if work.trace is not None:
        for stage in ("infer", "send"):
            work.trace.stage(stage, 0.01)
        work.trace.scored()
        work.trace.end()
    return work, first


def context_of(record: Outgoing) -> Parent | None:
    return parent_of(record.headers or [])


@pytest.mark.parametrize("few", [0, 1000])
def test_a_sampled_event_has_its_span_in_the_publishers_trace_and_its_score_hands_it_on(scorer_and_registry, few):
    watched = Watched()
    work, first = scored(scorer_and_registry, watched.traces, {3: SAMPLED}, few)
    spans = watched.spans()
    [event] = [span for name, found in spans.items() if name.startswith("process ") for span in found]
    assert event.parent is not None
    assert (f"{event.context.trace_id:032x}", f"{event.parent.span_id:016x}") == (TRACE, SPAN)
    assert event.parent.is_remote
    assert event.attributes is not None
    assert event.attributes["headrace.event_id"] == work.events[3]["event_id"]
    contexts = [context for record in first if (context := context_of(record))]
    assert [(f"{c.trace_id:032x}", c.span_id, c.sampled) for c in contexts] == [(TRACE, event.context.span_id, True)]


def test_a_micro_batch_has_one_span_for_each_stage_in_a_trace_of_its_own_with_links_both_ways(scorer_and_registry):
    watched = Watched()
    scored(scorer_and_registry, watched.traces, {1: SAMPLED, 8: SAMPLED})
    spans = watched.spans()
    [batch] = spans["score a micro-batch"]
    assert batch.parent is None
    events = [span for name, found in spans.items() if name.startswith("process ") for span in found]
    assert {link.context.span_id for link in batch.links} == {span.context.span_id for span in events}
    assert [[link.context.span_id for link in span.links] for span in events] == [[batch.context.span_id]] * 2
    for stage in ("fetch", "decode and absorb", "infer", "send"):
        [span] = spans[stage]
        assert span.parent is not None
        assert (span.parent.span_id, span.context.trace_id) == (batch.context.span_id, batch.context.trace_id)
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time >= span.start_time
    assert spans["fetch"][0].start_time == START_MS * 1_000_000


def test_without_a_sampled_event_there_is_no_span_and_a_context_is_handed_on_as_it_is(scorer_and_registry):
    watched = Watched()
    work, first = scored(scorer_and_registry, watched.traces, {2: UNSAMPLED, 5: b"nonsense"})
    assert work.trace is None
    assert not watched.spans()
    assert [context.traceparent for record in first if (context := context_of(record))] == [UNSAMPLED]
    assert sum(record.headers is not None for record in first) == 1


def test_a_request_that_is_sampled_has_a_span_below_its_callers_and_its_event_comes_below_that():
    watched = Watched()
    parent, other = parent_of([("traceparent", SAMPLED)]), parent_of([("traceparent", UNSAMPLED)])
    assert parent is not None
    assert other is not None
    assert watched.traces.asked(other, "fraud") is None
    asked = watched.traces.asked(parent, "fraud")
    assert asked is not None
    asked.end(503)
    [span] = watched.spans()["POST /v1/score/{task}"]
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 503
    below = parent_of(asked.headers)
    assert below is not None
    assert (below.trace_id, below.span_id, below.sampled) == (span.context.trace_id, span.context.span_id, True)


def test_a_publisher_that_samples_everything_gets_so_many_spans_and_every_score_its_trace(scorer_and_registry):
    watched = Watched(most=4)
    _, first = scored(scorer_and_registry, watched.traces, dict.fromkeys(range(12), SAMPLED))
    named = [span for name, found in watched.spans().items() if name.startswith("process ") for span in found]
    assert len(named) == 4
    contexts = [context_of(record) for record in first]
    assert {f"{context.trace_id:032x}" for context in contexts if context} == {TRACE}
    assert len([context for context in contexts if context]) == len(first) == 12


def test_scores_are_the_same_with_traces_and_without(scorer_and_registry):
    _, plain = scored(scorer_and_registry, None, {1: SAMPLED})
    assert all(record.headers is None for record in plain)


# -- off, away, wrong ------------------------------------------------------------------------------------------------


def test_off_is_the_default_and_imports_nothing():
    code = """
import sys
from streams.config import Settings
from streams.telemetry.contract import make_traces
import streams.worker
assert make_traces(Settings()) is None
assert not [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_traces_without_the_library_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "streams.telemetry.export", None)
    with pytest.raises(SettingsError, match="headrace\\[traces\\]"):
        make_traces(Settings(traces={"enabled": True}))


@pytest.mark.parametrize(
    "section", [{"endpoint": "collector:4318"}, {"headers": "no-pair"}, {"most_per_batch": 0}, {"most_per_batch": 129}]
)
def test_settings_that_cannot_be_used_are_refused(section):
    with pytest.raises(SettingsError, match="traces") as refused:
        Settings(traces=section)
    assert "no-pair" not in str(refused.value)


def test_a_collector_that_is_away_costs_spans_and_keeps_no_worker_from_ending(scorer_and_registry):
    settings = Settings(traces={"enabled": True, "endpoint": f"http://127.0.0.1:{free_port()}/v1/traces"})
    traces = make_traces(settings)
    assert traces is not None
    for _ in range(50):
        _, first = scored(scorer_and_registry, traces, {0: SAMPLED})
        assert len(first) == 12
    started = time.monotonic()
    traces.close()
    assert time.monotonic() - started < 10
    [finding] = doctors_check(settings)
    assert (finding.state, bool(finding.todo)) == ("warning", True)


# -- the whole way ---------------------------------------------------------------------------------------------------


class Collector:
    """A real OTLP receiver over HTTP: keeps what it was sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.keys: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                export = ExportTraceServiceRequest.FromString(body)
                for resource in export.resource_spans:
                    said = {each.key: each.value.string_value for each in resource.resource.attributes}
                    outer.resources.append(said)
                    outer.spans += [span for scope in resource.scope_spans for span in scope.spans]
                outer.keys.add(self.headers["x-key"])
                reply = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/v1/traces"


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


def published(settings: Settings, headers: list[list[tuple[str, bytes]]]) -> None:
    """Orders o0, o1, … with these headers."""
    registry = ConfluentRegistry(settings.registry())
    try:
        encode = Encoder(registry, settings.topics.orders, "order")
        producer = confluent_kafka.Producer(settings.librdkafka() | {"partitioner": "murmur2_random"})
        for number, head in enumerate(headers):
            record = order(event_id=f"o{number}", order_id=f"order-{number}", event_time=NOON_MS + 1000 * number)
            producer.produce(settings.topics.orders, encode(record), record["user_id"].encode(), headers=head)
        assert producer.flush(30) == 0
    finally:
        registry.close()


def test_a_publishers_trace_reaches_the_collector_and_the_score(fresh_settings, registry, tmp_path):
    store, _ = shop.releases()
    with collecting() as collector:
        settings = fresh_settings(
            release_store=store,
            web={"port": free_port()},
            deadlines_ms={"fraud": 60_000},
            traces={"enabled": True, "endpoint": collector.endpoint, "headers": "x-key=open-sesame"},
            ask={"without_token": True, "deadline_ms": 20_000},
        )
        shop.furnish(settings)
        assert [each.state for each in doctors_check(settings)] == ["well"]
        with shop.worker(settings, tmp_path / "worker.log") as worker:
            state = ("tracestate", b"shop=1")
            published(settings, [[("traceparent", SAMPLED), state], [], [("traceparent", UNSAMPLED)]])
            shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 3, 180)
            checkout = order(event_id="asked", order_id="order-asked", event_time=NOON_MS + 9_000)
            until_answered(worker, "fraud", checkout, headers={"traceparent": f"00-{ASKERS}-{SPAN}-01"})
            shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 4, 180)
            assert worker.end() == 0, (tmp_path / "worker.log").read_text()
        topic = settings.topics.orders
        event, absorbed = sorted(
            (span for span in collector.spans if span.name == f"process {topic}"), key=lambda span: span.trace_id.hex()
        )
        assert (event.trace_id.hex(), event.parent_span_id.hex()) == (TRACE, SPAN)
        asked = next(
            span
            for span in collector.spans
            if span.name.startswith("POST ") and span.span_id == absorbed.parent_span_id
        )
        assert (asked.trace_id.hex(), asked.parent_span_id.hex()) == (ASKERS, SPAN)
        names = {span.name for span in collector.spans}
        assert names >= {"score a micro-batch", "fetch", "decode and absorb", "infer", "send"}
        assert {said["service.name"] for said in collector.resources} == {settings.app_id}
        assert collector.keys == {"open-sesame"}
    found: dict[tuple[int, int], dict[str, bytes]] = {}
    for (_, partition), (low, high) in bounds(settings, places(settings, settings.topics.scores("fraud"))).items():
        for messages in read_range(settings, settings.topics.scores("fraud"), partition, low, high):
            found |= {(partition, message.offset()): dict(message.headers() or []) for message in messages}
    handed = sorted(head.get("traceparent", b"").decode() for head in found.values())
    of_spans = [f"00-{TRACE}-{event.span_id.hex()}-01", f"00-{ASKERS}-{absorbed.span_id.hex()}-01"]
    assert handed == sorted(["", UNSAMPLED.decode(), *of_spans])
    assert [head["tracestate"] for head in found.values() if "tracestate" in head] == [b"shop=1"]
    assert "open-sesame" not in (tmp_path / "worker.log").read_text()
