"""The job as a stock Faust agent: a Table with its changelog, and `topic.send` for both outputs.
Run as Faust documents it, by its own worker; `-l info`, for lower levels turn on its debug records.
"""

import sys
import time
from pathlib import Path
from typing import Any

import faust

from bench.peers.job import HISTORY, TASK, Contracts, features, score_record, served_record, short_entry
from streams.config import Settings


def make_app(settings: Settings) -> faust.App:
    topics, contracts = settings.topics, Contracts(settings)
    folder = Path(settings.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        settings.app_id,
        broker=f"aiokafka://{settings.brokers}",
        datadir=folder / "faust",
        store="memory://",
        topic_partitions=settings.partitions,
        topic_disable_leader=True,
        producer_acks=-1,
        producer_linger=0.005,
        broker_commit_interval=settings.commit_interval_s,
        autodiscover=False,
    )
    raw: Any = {"key_serializer": "raw", "value_serializer": "raw"}
    clicks, scores, served = (
        app.topic(name, **raw) for name in (topics.clicks, topics.scores(TASK), topics.served(TASK))
    )
    histories = app.Table("histories", default=list, partitions=settings.partitions)

    @app.agent(clicks)
    async def score(stream: faust.StreamT[Any]) -> None:
        async for event in stream.events():
            click = contracts.decode(event.value)
            message = event.message
            user = str(click["user_id"])
            history = histories[user]
            row = features("".join(history).encode())
            history.append(short_entry(click))
            histories[user] = history[-HISTORY:]
            now_ms = time.time_ns() // 1_000_000
            made = score_record(click, message.offset, now_ms, int(message.timestamp * 1000))
            await scores.send(key=event.key, value=contracts.score(made))
            await served.send(key=made["event_id"].encode(), value=contracts.served(served_record(made, row)))

    return app


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "info", "--without-web"]
    make_app(Settings()).main()
