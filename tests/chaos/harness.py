"""What the crash tests share: a crowd of users on three topics at once, a stream that publishes while things break,
and workers that are killed, frozen and started again. Every random choice comes from a seed that is printed.
"""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka

from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from streams.config import Settings
from streams.ports import free_port
from tests import checker, shop
from tests.records import NOON_MS, click, impression, line, money, order

SESSION_S = 6.0
CONTRACTS = {"clicks": "click", "orders": "order", "impressions": "ad_impression"}
PATIENT = {"fraud": 3_600_000, "recommendations": 3_600_000, "ctr": 3_600_000}

Sent = list[tuple[str, dict[str, Any]]]


def seed() -> int:
    """CHAOS_SEED, or a new one; printed, so that a failure can be run again."""
    chosen = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 30))
    print(f"CHAOS_SEED={chosen}")
    return chosen


def crowd(rng: random.Random, count: int, users: int = 40, start: int = 0) -> Sent:
    """`count` events of the same users on all topics: mostly in time order, some late, some sent twice."""
    sent: Sent = []
    for n in range(start, start + count):
        user = f"user-{int(users * rng.random() ** 2)}"
        when = NOON_MS + 700 * n - (rng.randrange(60_000) if rng.random() < 0.1 else 0)
        common = {"event_time": when, "user_id": user}
        kind = rng.choices(list(CONTRACTS), (5, 3, 3))[0]
        sent.append((kind, _event(rng, kind, n, common)))
        if rng.random() < 0.02:
            sent.append(sent[-max(1, min(len(sent), rng.randrange(1, 20)))])
    return sent


def _event(rng: random.Random, kind: str, n: int, common: dict[str, Any]) -> dict[str, Any]:
    item = f"item-{rng.randrange(shop.ITEMS)}"
    if kind == "clicks":
        return click(event_id=f"c{n}", item_id=item, action=rng.choice(["view", "click", "cart"]), **common)
    if kind == "impressions":
        return impression(event_id=f"i{n}", request_id=f"r{n}", context_item_id=item, **common)
    lines = [
        line(item_id=f"item-{rng.randrange(shop.ITEMS)}", quantity=rng.randrange(1, 5), unit_price=money(rng.random()))
        for _ in range(rng.randrange(1, 4))
    ]
    return order(
        event_id=f"o{n}", order_id=f"order-{n}", items=lines, amount=money(rng.random() * 100),
        device_id=f"device-{rng.randrange(60)}", email=f"mail-{rng.randrange(60)}", ip=f"10.0.0.{rng.randrange(90)}",
        **common,
    )  # fmt: skip


class Stream:
    """Publishes events at `rate` a second from a thread, keyed and placed as Java clients do."""

    def __init__(self, settings: Settings, sent: Sent, rate: float) -> None:
        self._sent, self._rate = sent, rate
        with closing(ConfluentRegistry(settings.registry())) as registry:
            encoders = {name: Encoder(registry, getattr(settings.topics, name), c) for name, c in CONTRACTS.items()}
        self._records = [
            (getattr(settings.topics, name), encoders[name](event), event["user_id"].encode()) for name, event in sent
        ]
        self._producer = confluent_kafka.Producer(
            settings.librdkafka()
            | {
                "partitioner": "murmur2_random", "acks": "all", "enable.idempotence": True, "linger.ms": 2,
                "log_level": 0, "message.timeout.ms": 120_000,
            }
        )  # fmt: skip
        self.published = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    @property
    def going(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()
        assert self._producer.flush(120) == 0

    def wait_for(self, share: float) -> None:
        """Until this share of the events is published."""
        shop.wait_for(lambda: self.published >= share * len(self._records), 300)

    def _run(self) -> None:
        started = time.monotonic()
        for number, (topic, value, key) in enumerate(self._records):
            self._producer.produce(topic, value, key)
            self.published = number + 1
            self._producer.poll(0)
            while (early := started + number / self._rate - time.monotonic()) > 0:
                time.sleep(min(early, 0.01))


class Crew:
    """Workers of one group: each with a folder and a port of its own, all gone at the end."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.workers: list[shop.WorkerProcess] = []

    def start(self, home: str = "a", *, ready: bool = True) -> shop.WorkerProcess:
        """A worker on the state folder `home`: the same name finds the local copy of its predecessor."""
        port = free_port()
        web = self.settings.web.model_copy(update={"port": port})
        settings = self.settings.model_copy(update={"data_dir": self.folder / home, "web": web})
        worker = shop.WorkerProcess(settings, self.folder / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        if ready:
            worker.wait_ready()
        return worker

    def logs(self) -> str:
        return "\n".join(worker.log.read_text(errors="replace") for worker in self.workers)

    def half_said(self) -> list[int]:
        """How many scores past the committed offsets each recovery found."""
        return [int(found) for found in re.findall(r'half_said[="\': ]+(\d+)', self.logs())]

    def finish(self, seconds: float = 120) -> None:
        """Until all that is on the topics is scored, committed and saved."""
        shop.wait_for(lambda: checker.finished(self.settings), seconds, lambda: self.logs()[-4000:])

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.kill()
                worker.process.wait()


@contextmanager
def crew(settings: Settings, folder: Path) -> Iterator[Crew]:
    made = Crew(settings, folder)
    try:
        yield made
    finally:
        made.close()


def woken_too_late(rng: random.Random, group: Crew) -> tuple[shop.WorkerProcess, shop.WorkerProcess]:
    """A worker that was stopped past its session, just woken, and the one that has its partitions by now."""
    frozen = group.start("a")
    time.sleep(rng.uniform(1.0, 3.0))
    frozen.process.send_signal(signal.SIGSTOP)
    successor = group.start("b")  # ready when the session of the frozen one is over
    time.sleep(rng.uniform(1.0, SESSION_S / 2))
    frozen.process.send_signal(signal.SIGCONT)
    return frozen, successor


def kill(worker: shop.WorkerProcess) -> None:
    worker.process.kill()
    worker.process.wait()


def judge(name: str, settings: Settings, sent: Sent, group: Crew, *, replay: bool = True) -> checker.Report:
    """Checks all that was published, and prints the figures."""
    report = checker.check(settings, sent, replay=replay)
    print(f"{name}: {report} half_said={group.half_said()}")
    assert not report.faults, "\n".join(report.faults)
    return report


def unserved(settings: Settings) -> int:
    """Scores that are said and not served, now."""
    missing = 0
    for task in settings.tasks:
        said = {score["event_id"] for score in shop.scores(settings, task)}
        served = {record["event_id"] for record in shop.read(settings, settings.topics.served(task), "served")}
        missing += len(said - served)
    return missing
