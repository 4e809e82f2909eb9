"""Sends spans to a collector, over OTLP and HTTP. Imported only where traces are on: OpenTelemetry comes with it.
A collector that is away costs spans, never a score: the queue is bounded, and what does not fit is dropped.
"""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from streams.config import Settings
from streams.security import reveal
from streams.telemetry.settings import header_pairs
from streams.telemetry.spans import Traces

#: Spans that wait at most, and how long one export may take, seconds: a stop waits for the last one.
QUEUE, TIMEOUT_S = 4_096, 3.0
EVERY_MS = 1_000


def exporting(settings: Settings) -> Traces:
    """Traces that go where the settings say."""
    traces = settings.traces
    headers = header_pairs(reveal(traces.headers) or "")
    exporter = OTLPSpanExporter(endpoint=traces.endpoint, headers=headers or None, timeout=TIMEOUT_S)
    return Traces(provider(settings, exporter), traces.most_per_batch)


def provider(settings: Settings, exporter: SpanExporter) -> TracerProvider:
    """Which events are sampled is the publishers' choice: what gets here is sampled."""
    made = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource.create({"service.name": settings.app_id, "service.namespace": "headrace"}),
        span_limits=SpanLimits(max_links=settings.traces.most_per_batch),
        shutdown_on_exit=False,
    )
    made.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE,
            max_export_batch_size=512,
            schedule_delay_millis=EVERY_MS,
            export_timeout_millis=round(TIMEOUT_S * 1000),
        )
    )
    return made
