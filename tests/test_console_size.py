"""100,000 alerts in the queue: pages come in time, and the process stays small. Slow: it fills a store first."""

import asyncio
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.console.office import SUMMARY_S
from streams.console.store import Batch
from tests.console_app import Shown, shown
from tests.console_shop import MINUTE, NOW_MS, Shop, alert, alert_id, label, shop
from tests.records import money
from tests.test_console_pages import Client, open_client

ALERTS, MOST_MS, MOST_MB = 100_000, 200, 500


def many(count: int) -> Iterator[dict[str, Any]]:
    """As the sample shop's, with other names: one in ten shares a card, a device or an address with another."""
    draw, kinds = random.Random(1), shop().alerts
    for number in range(count):
        tokens = [f"{kind}:{draw.randrange(10 * count):x}" for kind in ("card", "device", "address", "email", "ip")]
        amount, chance = round(draw.lognormvariate(4, 1), 2), round(draw.uniform(0.4, 1), 3)
        yield draw.choice(kinds) | {
            "alert_id": alert_id(f"n{number}"), "order_id": f"n{number}", "user_id": f"u{draw.randrange(count // 2)}",
            "raised_at": NOW_MS - draw.randrange(60 * 24 * 30) * MINUTE, "probability": chance, "entities": tokens,
            "amount": money(amount), "currency": "GBP", "expected_loss": chance * amount,
        }  # fmt: skip


def fill(console: Shown) -> None:
    batch: list[dict[str, Any]] = []
    for number, record in enumerate(many(ALERTS), 1):
        batch.append(record)
        if number % 500 == 0:
            answers = [label(one["order_id"], float(n % 2)) for n, one in enumerate(batch[:150])]
            console.store.apply(Batch(batch, answers))
            batch = []


async def timed(client: Client, console: Shown, path: str, news: str) -> float:
    """ms of CPU, with an alert that came just before: nothing that was counted then holds."""
    console.store.apply(Batch([alert(news)]))
    await asyncio.sleep(SUMMARY_S)
    begun = time.process_time()  # not the time that others took
    answer = await client.get(path)
    assert answer.status == 200
    await answer.read()
    return 1000 * (time.process_time() - begun)


@pytest.mark.slow
def test_pages_come_in_time_and_memory_stays_small(tmp_path: Path) -> None:
    took: dict[str, float] = {}

    async def story(console: Shown) -> None:
        async with open_client(console, "analyst") as client:
            paths = {
                "queue": "/queue", "newest": "/queue?sort=newest", "each": "/queue?each=1",
                "all": "/queue?state=all",
                "filters": "/queue?country=NL&least=100&most=400&rule=foreign-card", "text": "/queue?text=n999",
                "token": "/queue?text=u31415", "case": f"/cases/{alert_id('n77')}", "row": f"/rows/{alert_id('n77')}",
                "answered": "/queue?state=answered&sort=probability",
            }  # fmt: skip
            for name, path in paths.items():
                took[name] = min([await timed(client, console, path, f"{name} {n}") for n in range(3)])

    with shown(tmp_path, Shop([alert("a")])) as console:
        fill(console)
        asyncio.run(story(console))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print({name: round(ms) for name, ms in took.items()}, f"{memory:.0f} MB")
    assert max(took.values()) < MOST_MS, took
    assert memory < MOST_MB
