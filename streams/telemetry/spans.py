"""Spans of what happens to a micro-batch, and one for each of its events that the publisher's trace has sampled.
Where nothing is sampled there is no span at all: headers are looked at, and a context that is there is handed on.

An event's span belongs to the publisher's trace. A micro-batch belongs to no single one: it has a trace of its own,
with links to its sampled events, and these link back to it.
"""

import time
from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from streams.raw import RawRecord
from streams.telemetry.context import Headers, Parent, parent_of
from streams.work import Work

NS = 1_000_000_000


class Traces:
    """Makes traces of micro-batches. From one event loop; the provider exports in a thread of its own."""

    def __init__(self, provider: TracerProvider, most: int) -> None:
        """`most`: events of one micro-batch that get a span; a publisher that samples all must not slow scoring."""
        self._provider, self._most = provider, most
        self._tracer = provider.get_tracer("headrace")

    def begin(self, work: Work, seconds: float) -> "BatchTrace | None":
        """Puts into `work.headers` what its outputs carry on; None where no event is sampled.

        `seconds`: how long ago the micro-batch was taken.
        """
        taken = time.time_ns() - round(seconds * NS)
        spans: dict[int, Span] = {}
        headers: dict[int, Headers] = {}
        for number, raw in enumerate(work.raw):
            if not raw.headers or (parent := parent_of(raw.headers)) is None:
                continue
            if parent.sampled and len(spans) < self._most:
                spans[number] = span = self._event(raw, parent, taken)
                headers[number] = parent.carried(span.get_span_context().span_id)
            else:
                headers[number] = parent.carried()
        work.headers = headers
        return BatchTrace(self._tracer, work, spans, taken) if spans else None

    def asked(self, parent: Parent, task: str) -> "AskedSpan | None":
        """Of a request that begins now, where who asks has sampled it."""
        if not parent.sampled:
            return None
        span = self._tracer.start_span(
            "POST /v1/score/{task}",
            _below(parent),
            SpanKind.SERVER,
            {"http.request.method": "POST", "http.route": "/v1/score/{task}", "headrace.tasks": [task]},
        )
        return AskedSpan(span, parent)

    def close(self) -> None:
        """Exports what is left, for as long as the exporter may take."""
        self._provider.shutdown()

    def _event(self, raw: RawRecord, parent: Parent, taken: int) -> Span:
        return self._tracer.start_span(
            f"process {raw.topic}",
            _below(parent),
            SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": raw.topic,
                "messaging.destination.partition.id": str(raw.partition),
                "messaging.kafka.offset": raw.offset,
            },
            start_time=_fetched(raw, taken),
        )


class AskedSpan:
    """The span of a request, below the caller's. `headers`: what the event that it publishes carries on."""

    def __init__(self, span: Span, parent: Parent) -> None:
        self._span = span
        self.headers = parent.carried(span.get_span_context().span_id)

    def end(self, status: int) -> None:
        """It is answered, with this status of HTTP."""
        self._span.set_attribute("http.response.status_code", status)
        self._span.end()


class BatchTrace:
    """The spans of one micro-batch with sampled events; see streams.telemetry.contract."""

    def __init__(self, tracer: Tracer, work: Work, events: dict[int, Span], taken: int) -> None:
        self._tracer, self._work, self._events = tracer, work, events
        self._batch = tracer.start_span(
            "score a micro-batch",
            Context(),
            SpanKind.CONSUMER,
            {"messaging.system": "kafka", "messaging.batch.message_count": len(work.events)},
            [Link(span.get_span_context()) for span in events.values()],
            start_time=(first := min(_fetched(work.raw[number], taken) for number in events)),
        )
        self._inside = set_span_in_context(self._batch, Context())
        for span in events.values():
            span.add_link(self._batch.get_span_context())
        self._span("fetch", first, taken)
        self._span("decode and absorb", taken, time.time_ns())

    def stage(self, name: str, seconds: float) -> None:
        now = time.time_ns()
        self._span(name, now - round(seconds * NS), now)

    def scored(self) -> None:
        said: dict[int, list[tuple[str, str]]] = {number: [] for number in self._events}
        for job in self._work.jobs:
            for number in job.index.tolist():
                if number in said:
                    said[number].append((job.task.name, job.release))
        for number, span in self._events.items():
            span.set_attributes(_attributes(self._work.events[number]["event_id"], said[number]))
            span.end()

    def end(self) -> None:
        self._batch.end()

    def _span(self, name: str, start: int, end: int) -> None:
        self._tracer.start_span(name, self._inside, start_time=start).end(max(start, end))


def _below(parent: Parent) -> Context:
    """Where a span begins that another process has caused."""
    caller = SpanContext(parent.trace_id, parent.span_id, True, TraceFlags(parent.flags), _state(parent.tracestate))
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _attributes(event_id: str, said: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """No user, card or address: who may see traces is another circle of people."""
    return {
        "headrace.event_id": event_id,
        "headrace.tasks": [task for task, _ in said],
        "headrace.releases": [release for _, release in said],
    }


def _fetched(raw: RawRecord, taken: int) -> int:
    """When the broker had it, ns; never after it was taken, whatever its clock says."""
    return min(raw.timestamp * 1_000_000, taken)


def _state(tracestate: bytes | None) -> TraceState | None:
    return TraceState.from_header([tracestate.decode("latin-1")]) if tracestate else None
