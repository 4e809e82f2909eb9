"""Two hours under a steady load: does anything grow? `python -m bench.soak` prints one line of JSON, and draws curves.
One worker with real engines; most users live in RocksDB. Slopes are of the second half, so that a start is not growth.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil  # type: ignore[import-untyped]  # its types are a package of their own
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    ResourceType,
)

from bench import plots, testbed
from bench.consumer import CONTRACTS
from bench.latency import quantiles
from bench.measure import Ends, cpu_seconds, rss_mb
from bench.report import show
from bench.slopes import quarter, theil_sen
from bench.steady_load import Digest
from bench.testbed import NEVER_MS, TASKS, furnish, process, say
from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder
from streams.config import Settings
from streams.demo.stage import environment, wait_ready
from streams.offsets import bounds, committed, places

MINUTES, RATE, USERS, SLOTS = 120.0, 200, 20_000, 8_192
WINDOW_S, PATIENCE_S = 30.0, 120.0
DISK = {"segment.bytes": str(16 << 20), "retention.bytes": str(48 << 20)}
"""Of a partition of a topic that is kept by time: two hours of load would be some 20 GB."""
TARGETS = {
    "lost": 0, "repeated": 0, "rss_mb_per_h": 20.0, "files_per_h": 2.0, "threads_per_h": 1.0, "lag_per_h": 50.0,
    "last_lag": 2.0 * RATE, "p50_ratio": 1.25, "p99_ratio": 1.5, "disk_gb": 8.0,
}  # fmt: skip
"""Ratios are of the last quarter to the second. A commit comes each second, so that a lag of a second is none."""


class Sample(NamedTuple):
    """A window of the run, and what stood at its end. at_s: since the load began; lag: events not yet committed."""

    at_s: float
    rss_mb: float
    files: int
    threads: int
    lag: int
    scored: int
    p50_ms: float
    p99_ms: float
    cores: float
    disk_gb: float
    learner_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rate", type=int, default=RATE, help="events/s")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--window", type=float, default=WINDOW_S, help="seconds of a sample")
    parser.add_argument("--learner", action="store_true", help="a learner beside it, which joins what is served")
    parser.add_argument("--plot", type=Path, default=Path("build/soak.png"))
    parser.add_argument("--curves", type=Path, default=Path("build/soak.jsonl"), help="the samples, a line each")
    arguments = parser.parse_args()
    never = dict.fromkeys(TASKS, NEVER_MS)
    with testbed.testbed(deadlines_ms=never, state={"slots": SLOTS}) as settings:
        furnish(settings)
        bound_disk(settings)
        figures, samples = run(settings, arguments)
    keep(samples, arguments.curves)
    title = (
        f"{arguments.minutes:.0f} minutes at {arguments.rate} events/s, {arguments.users:,} users, {SLOTS:,} in memory"
    )
    if plot := draw(samples, arguments.plot, title):
        say(f"curves: {plot}")
    head = {"minutes": arguments.minutes, "rate": arguments.rate, "users": arguments.users, "samples": len(samples)}
    show("soak", head | figures, {**TARGETS, "last_lag": 2.0 * arguments.rate})


def bound_disk(settings: Settings) -> None:
    """Small segments, and few of them, for all topics that are not compacted."""
    admin = AdminClient(settings.librdkafka())
    names = [name for name in admin.list_topics(timeout=15).topics if not name.startswith("__")]
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    for resource, future in admin.describe_configs(resources).items():
        compacted = "compact" in future.result()["cleanup.policy"].value
        wanted = {"segment.bytes": DISK["segment.bytes"]} if compacted else DISK
        entries = [
            ConfigEntry(name, value, ConfigSource.DYNAMIC_TOPIC_CONFIG, incremental_operation=AlterConfigOpType.SET)
            for name, value in wanted.items()
        ]
        changed = ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries)
        admin.incremental_alter_configs([changed])[changed].result()


def run(settings: Settings, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Sample]]:
    log = settings.data_dir / "worker.log"
    with ExitStack() as stack:
        worker = stack.enter_context(process(("streams", "worker"), settings, log))
        wait_ready(settings, worker, log)
        learner = None
        if arguments.learner:
            learner = stack.enter_context(process(("streams", "learner"), settings, settings.data_dir / "learner.log"))
        scores = stack.enter_context(closing(Scores(settings)))
        watch = Watch(settings, scores, worker.pid, None if learner is None else learner.pid)
        with load(settings, arguments) as publisher:
            while publisher.poll() is None:
                say(json.dumps(watch.sample(arguments.window)._asdict(), default=float))
                if worker.poll() is not None or (learner and learner.poll() is not None):
                    raise RuntimeError("a process ended")
            assert publisher.stdout is not None
            if publisher.returncode:
                raise RuntimeError("the load ended early")
            sent = json.loads(publisher.stdout.read())
        deadline = time.monotonic() + PATIENCE_S
        while scores.digest.count < sent["sent"] and time.monotonic() < deadline:
            scores.read(1.0)
        scores.read(2.0)
        last_lag = watch.lag(settled=True)
    samples = watch.samples[:-1] or watch.samples  # in the last window the load ended
    return {**counted(sent, scores.digest), "last_lag": last_lag, **curves(samples)}, samples


@contextmanager
def load(settings: Settings, arguments: argparse.Namespace) -> "Iterator[subprocess.Popen[str]]":
    said = [str(each) for each in (arguments.rate, 60 * arguments.minutes, arguments.users)]
    command = [sys.executable, "-m", "bench.steady_load", *said]
    publisher = subprocess.Popen(command, env=os.environ | environment(settings), stdout=subprocess.PIPE, text=True)
    try:
        yield publisher
    finally:
        publisher.kill()
        publisher.wait()


class Scores:
    """Reads all scores, from now on: when each came to the broker, after its event was published."""

    def __init__(self, settings: Settings) -> None:
        self.digest = Digest()
        self._registry = ConfluentRegistry(settings.registry())
        self._decoders = {settings.topics.scores(task): Decoder(self._registry, CONTRACTS[task]) for task in TASKS}
        found = bounds(settings, [place for topic in self._decoders for place in places(settings, topic)])
        self._consumer = Consumer(
            {**settings.librdkafka(), "group.id": "bench-soak", "enable.auto.commit": False, "fetch.wait.max.ms": 200}
        )
        self._consumer.assign([TopicPartition(*place, end) for place, (_, end) in found.items()])

    def read(self, seconds: float) -> list[float]:
        """Milliseconds from event to score of those that came meanwhile."""
        took: list[float] = []
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for message in self._consumer.consume(1_000, timeout=min(left, 0.5)):
                if message.error() is None:
                    record = self._decoders[str(message.topic())](message.value())
                    self.digest.add(record["event_id"])
                    took.append(message.timestamp()[1] - record["event_time"])
        return took

    def close(self) -> None:
        self._consumer.close()
        self._registry.close()


class Watch:
    """Looks at the worker from outside."""

    def __init__(self, settings: Settings, scores: Scores, pid: int, learner: int | None) -> None:
        self.samples: list[Sample] = []
        self._settings, self._scores, self._pid, self._learner = settings, scores, pid, learner
        self._process = psutil.Process(pid)
        self._topics = settings.topics.inputs
        self._places = [place for topic in self._topics for place in places(settings, topic)]
        self._began = time.monotonic()

    def sample(self, seconds: float) -> Sample:
        """Reads scores for so long, then looks."""
        cpu, began = cpu_seconds(self._pid), time.monotonic()
        took = np.array(self._scores.read(seconds))
        ranked = quantiles(took) if len(took) else dict.fromkeys(("p50_ms", "p99_ms"), float("nan"))
        now = time.monotonic()
        made = Sample(
            now - self._began, rss_mb(self._pid), self._process.num_fds(), self._process.num_threads(), self.lag(),
            len(took), ranked["p50_ms"], ranked["p99_ms"], (cpu_seconds(self._pid) - cpu) / (now - began),
            disk_gb(self._settings.data_dir.parent), rss_mb(self._learner) if self._learner else 0.0,
        )  # fmt: skip
        self.samples.append(made)
        return made

    def lag(self, *, settled: bool = False) -> int:
        """Events on the topics behind the group's commits. `settled`: when no more come, after a commit."""
        if settled:
            time.sleep(3 * self._settings.commit_interval_s)
        done = committed(self._settings, self._settings.app_id, self._places)
        with closing(Ends(self._settings, self._topics)) as ends:
            return sum(ends.counts()) - sum(done.values())


def disk_gb(folder: Path) -> float:
    """All that the bed holds: broker, state, logs. What is deleted while it is counted is not there."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total / 1e9


def counted(sent: dict[str, Any], seen: Digest) -> dict[str, Any]:
    """Whether each event has one score: by number, and by the sum of the ids' hashes where the numbers agree."""
    lost, more = max(0, sent["sent"] - seen.count), max(0, seen.count - sent["sent"])
    other = seen.count == sent["sent"] and seen.sum != sent["digest"]
    return {"events": sent["sent"], "lost": lost + other, "repeated": more + other}


def curves(samples: Sequence[Sample]) -> dict[str, float]:
    """Slopes over the second half by Theil and Sen; quantiles of the last quarter over those of the second."""
    half = samples[len(samples) // 2 :]
    hours = [sample.at_s / 3_600 for sample in half]
    names = {"rss_mb": "rss_mb", "files": "files", "threads": "threads", "lag": "lag", "learner_mb": "learner_rss_mb"}
    found = {
        f"{figure}_per_h": theil_sen(hours, [getattr(sample, name) for sample in half])
        for name, figure in names.items()
    }
    for name in ("p50", "p99"):
        values = [getattr(sample, f"{name}_ms") for sample in samples]
        found |= {f"{name}_ratio": quarter(values, 4) / quarter(values, 2), f"{name}_ms": quarter(values, 4)}
    return {
        **found, "rss_mb": samples[-1].rss_mb, "files": samples[-1].files, "threads": samples[-1].threads,
        "worker_cores": float(np.median([sample.cores for sample in half])),
        "disk_gb": max(sample.disk_gb for sample in samples),
    }  # fmt: skip


def keep(samples: Sequence[Sample], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(sample._asdict(), default=float) + "\n" for sample in samples))


def draw(samples: Sequence[Sample], path: Path, title: str) -> Path | None:
    def column(name: str) -> list[float]:
        return [getattr(sample, name) for sample in samples]

    panels: list[plots.Panel] = [
        ("resident memory, MB", {"worker": column("rss_mb")}),
        ("event to score, ms", {"p50": column("p50_ms"), "p99": column("p99_ms")}),
        ("open files and threads", {"files": column("files"), "threads": column("threads")}),
        ("events not committed", {"": column("lag")}),
        ("worker, cores", {"": column("cores")}),
        ("disk, GB", {"": column("disk_gb")}),
    ]
    if any(column("learner_mb")):
        panels[0] = (panels[0][0], {**panels[0][1], "learner": column("learner_mb")})
    return plots.draw(path, title, [sample.at_s / 60 for sample in samples], "minutes", panels)


if __name__ == "__main__":
    main()
