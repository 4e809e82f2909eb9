"""The console with 100,000 alerts in its queue: server time of each page, and memory: `python -m bench.console`.
The store is filled beforehand, the console is a process as in a shop, with its broker away; one request at a time.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import requests
import xxhash

from bench.measure import cpu_seconds, rss_mb
from bench.report import show
from bench.testbed import process, say
from schemas import catalog
from streams.access.accounts import Accounts
from streams.config import Settings
from streams.console.answers import Label
from streams.console.office import SUMMARY_S
from streams.console.store import Batch, Store
from streams.events import ENTITY_FIELDS, Record
from streams.output_columns import FEATURES_FORMAT
from streams.ports import free_port
from streams.sources.shop import to_decimal
from streams.tasks.fraud import Fraud

ALERTS, REPEATS = 100_000, 30
TARGETS = {"page_p99_ms": 200.0, "page_cpu_p99_ms": 200.0, "rss_mb": 500.0}
DAY_MS = 86_400_000
KIOSK, RING = 50, 200
"""One alert in so many is from a device that everybody uses; one in so many from one user's one card."""
START_S = 60.0
REASONS = ("new card", "many orders in an hour", "shared device", "country differs")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--alerts", type=int, default=ALERTS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        settings = Settings(
            data_dir=Path(folder),
            brokers="127.0.0.1:9",
            console={"port": free_port()},
            registry_url="http://127.0.0.1:9",
        )
        now_ms = time.time_ns() // 1_000_000
        newest = fill(Store(settings.data_dir / "console"), arguments.alerts, now_ms)
        with Accounts(settings) as accounts:
            code = accounts.login_code("analyst", by="bench", now_ms=time.time_ns() // 1_000_000)
        log = settings.data_dir / "console.log"
        with process(["streams", "console"], settings, log) as console:
            base = f"http://127.0.0.1:{settings.console.port}"
            visitor = logged_in(base, code, log)
            figures = asked(visitor, base, pages(newest), console.pid, arguments.repeats)
            show("console", {"alerts": arguments.alerts, **figures, "rss_mb": rss_mb(console.pid)}, TARGETS)


def pages(alert: Record) -> dict[str, str]:
    """By name: the ways of looking at the queue that cost most, and one case."""
    return {
        "queue": "/queue", "newest": "/queue?sort=newest", "each": "/queue?each=1", "all": "/queue?state=all",
        "answered": "/queue?state=answered&sort=probability", "row": f"/rows/{alert['alert_id']}",
        "filters": "/queue?country=NL&least=100&most=400&rule=foreign-card", "text": "/queue?text=n999",
        "nobody": "/queue?text=nobody-has-this", "case": f"/cases/{alert['alert_id']}",
        "large_case": f"/cases/{named('n0')}", "large_case_row": f"/rows/{named('n0')}",
        "large_case_orders": f"/queue?case={named('n0')}&each=1&state=all",
    }  # fmt: skip


def asked(visitor: requests.Session, base: str, paths: dict[str, str], pid: int, repeats: int) -> dict[str, float]:
    """ms of wall time and of the process's CPU; p99 over all pages, and the median of each."""
    wall: dict[str, list[float]] = {name: [] for name in paths}
    cpu: dict[str, float] = {}
    for name, path in paths.items():
        spent = cpu_seconds(pid)
        for _ in range(repeats):
            begun = time.perf_counter()
            answer = visitor.get(base + path, timeout=30)
            wall[name].append(1000 * (time.perf_counter() - begun))
            assert answer.status_code == 200, f"{path}: {answer.status_code}"
            time.sleep(SUMMARY_S / 10)  # now and then the counts of the queue are made anew
        cpu[name] = 1000 * (cpu_seconds(pid) - spent) / repeats
        say(json.dumps({"page": name, "p50_ms": float(np.median(wall[name])), "cpu_ms": cpu[name]}))
    every = np.concatenate(list(wall.values()))
    worst = max(paths, key=lambda name: float(np.median(wall[name])))
    return {
        "page_p50_ms": float(np.median(every)), "page_p99_ms": float(np.quantile(every, 0.99)),
        "page_cpu_p99_ms": max(cpu.values()), f"slowest_{worst}_p50_ms": float(np.median(wall[worst])),
    }  # fmt: skip


def logged_in(base: str, code: str, log: Path) -> requests.Session:
    """By a link that works once, as soon as there is a console."""
    visitor, deadline = requests.Session(), time.monotonic() + START_S
    while True:
        try:
            visitor.get(f"{base}/healthz", timeout=5)
            break
        except requests.ConnectionError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the console has not come up: {log.read_text()[-2000:]}") from None
            time.sleep(0.2)
    visitor.post(f"{base}/login/once", data={"code": code}, timeout=30).raise_for_status()
    return visitor


def fill(store: Store, count: int, now_ms: int) -> Record:
    """Alerts of a month; one in three is linked with another, three in ten are answered. The newest one."""
    newest: Record = {}
    batch: list[Record] = []
    for number, record in enumerate(alerts(count, now_ms), 1):
        batch.append(record)
        if number % 500 == 0 or number == count:
            store.apply(Batch(batch, list(answers(batch[: 3 * len(batch) // 10], now_ms))))
            newest, batch = record, []
    store.close()
    return newest


def named(order_id: str) -> str:
    """Its alert_id."""
    return xxhash.xxh3_128_hexdigest(order_id.encode())


def answers(records: Sequence[Record], now_ms: int) -> Iterator[tuple[str, Label]]:
    for number, one in enumerate(records):
        yield one["order_id"], Label(f"{one['order_id']}-label", float(number % 2), "analyst", now_ms, 0)


def alerts(count: int, now_ms: int) -> Iterator[Record]:
    draw = random.Random(1)
    given = {one["name"]: one["default"] for one in catalog.load("fraud_alert")["fields"] if "default" in one}
    row = np.zeros(1, Fraud.features)
    for number in range(count):
        row["fields"] = np.float32(draw.random())
        tokens = {kind: f"{draw.randrange(10 * count):x}" for kind in ENTITY_FIELDS}
        user = f"u{draw.randrange(count // 2 + 1)}"
        if number % KIOSK == 1:
            tokens["device"] = "kiosk"
        if number % RING == 0:
            user, tokens["card"] = "ring", "ring"
        amount, chance = round(draw.lognormvariate(4, 1), 2), round(draw.uniform(0.4, 1), 3)
        reasons = draw.sample(REASONS, 2)
        made: dict[str, Any] = {
            "alert_id": named(f"n{number}"), "order_id": f"n{number}",
            "event_id": f"e{number}", "user_id": user, "event_time": now_ms - 1000,
            "raised_at": now_ms - draw.randrange(30 * DAY_MS), "policy_version": "shop/1", "release": "fraud/1",
            "probability": chance, "decision": draw.choice(("review", "block")), "reasons": reasons,
            "rules": draw.sample(("foreign-card", "night", "many-cards"), draw.randrange(3)), "links": [],
            "amount": to_decimal(round(amount * 10_000)), "currency": "GBP", "country": draw.choice(("NL", "GB", "FR")),
            "expected_loss": chance * amount, "features": row.tobytes(), "features_format": FEATURES_FORMAT,
            "entities": [f"{kind}:{token}" for kind, token in tokens.items()],
            "sentences": {"en": f"Held at {chance:.0%}, mostly because {reasons[0]} and {reasons[1]}", "zh": ""},
        }  # fmt: skip
        yield given | made


if __name__ == "__main__":
    main()
