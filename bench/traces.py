"""What traces cost an event, in CPU time of the scoring thread: off, on without contexts, and with some or all sampled.
Spans are made and exported into memory; what a collector's own thread takes is in `sampled_export_us_a_span`."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from bench.report import show
from bench.scoring import Feed, Part, make_scorer
from streams.scoring import Scorer
from streams.sources.load import START_MS, uniform_load
from streams.telemetry.spans import Traces
from streams.work import Work

SIZE, BATCHES, ROUNDS, MOST = 64, 40, 5, 16
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0%d"
#: What of the events has a context, and what of these is sampled: every so many-th.
ARMS = {"on_without_contexts": (0, 0), "unsampled": (1, 0), "sampled_1_percent": (1, 100), "sampled_all": (1, 1)}
TARGETS = {"off_ns_an_event": 20, "on_without_contexts_us_an_event": 0.5, "off_modules_imported": 0}


class Kept(SpanProcessor):
    """In place of the queue to the exporter's thread."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def traced(batch: Sequence[Part], every: int, sampled: int) -> list[Part]:
    """The same records with contexts."""
    count, found = 0, list[Part]()
    for topic, records in batch:
        given = []
        for record in records:
            count += 1
            wanted = every and not count % every
            flag = bool(sampled) and not count % sampled
            given.append(record._replace(headers=[("traceparent", PARENT % flag)] if wanted else []))
        found.append((topic, given))
    return found


def costs(scorer: Scorer, batches: Sequence[Sequence[Part]], traces: Traces) -> float:
    """CPU seconds of contexts and spans, of all micro-batches, scored as the loop does."""
    spent = 0.0
    for batch in batches:
        work = scorer.prepare([(topic, part, scorer.decode(topic, part)) for topic, part in batch], START_MS)
        scorer.infer(work)
        spent += of_one(scorer, work, traces)
    return spent


def of_one(scorer: Scorer, work: Work, traces: Traces) -> float:
    started = time.thread_time()
    trace = work.trace = traces.begin(work, 0.001)
    if trace is not None:
        trace.stage("infer", 0.001)
    spent = time.thread_time() - started
    scorer.outputs.waves(work)
    started = time.thread_time()
    if trace is not None:
        trace.stage("send", 0.001)
        trace.scored()
        trace.end()
    return spent + time.thread_time() - started


def off_s(work: Work, traces: Traces | None, times: int = 200_000) -> float:
    """CPU seconds a micro-batch of all that the loop and the outputs ask where traces are off."""

    def asks() -> bool:
        return (
            traces is not None
            or work.trace is not None
            or bool(work.headers)
            or work.trace is not None
            or bool(work.headers)
            or work.trace is not None
            or bool(work.headers)
        )

    return (_cpu(asks, times) - _cpu(lambda: False, times)) / times


def _cpu(call: Callable[[], bool], times: int) -> float:
    started = time.thread_time()
    for _ in range(times):
        call()
    return time.thread_time() - started


def modules_imported() -> int:
    """Of OpenTelemetry, by a worker whose traces are off."""
    code = (
        "import sys, streams.worker; from streams.config import Settings;"
        "from streams.telemetry.contract import make_traces; assert make_traces(Settings()) is None;"
        "print(sum(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> dict[str, Any]:
    scorer, registry = make_scorer([SIZE])
    feed, kept = Feed(registry), Kept()
    provider = TracerProvider()
    provider.add_span_processor(kept)
    traces = Traces(provider, MOST)
    least: dict[str, float] = {}
    events, seed = SIZE * BATCHES, 0
    for _ in range(ROUNDS):
        for name, (every, sampled) in ARMS.items():
            seed += 1
            made = feed.batches(uniform_load(events, 1_000, seed, start=START_MS + seed * events), SIZE)
            took = costs(scorer, [traced(batch, every, sampled) for batch in made], traces)
            least[name] = min(took, least.get(name, took))
    work = scorer.prepare([], START_MS)
    started = time.thread_time()
    encode_spans(kept.spans[:4_000]).SerializeToString()
    exported = time.thread_time() - started
    return {
        "off_modules_imported": modules_imported(),
        "off_ns_an_event": 1e9 * min(off_s(work, None) for _ in range(ROUNDS)) / SIZE,
        **{f"{name}_us_an_event": 1e6 * least[name] / events for name in ARMS},
        "sampled_export_us_a_span": 1e6 * exported / min(4_000, len(kept.spans)),
    }


if __name__ == "__main__":
    show("traces", main(), TARGETS, digits=3)
