"""The job in quixstreams with its own state (RocksDB) and changelog: one stateful function, two sinks.
State is a list, which it keeps as JSON; the contracts are its serializers.
"""

import time
from typing import Any

from quixstreams import Application
from quixstreams.models import Serializer
from quixstreams.state import State

from bench.peers.job import HISTORY, TASK, Contracts, features, score_record, served_record, short_entry
from schemas.wire import Encoder
from streams.config import Settings


class Avro(Serializer):
    """One half of what the function returns, by its contract."""

    def __init__(self, part: str, encode: Encoder) -> None:
        super().__init__()
        self._part, self._encode = part, encode

    def __call__(self, value: dict[str, Any], ctx: Any) -> bytes:
        return self._encode(value[self._part])


def main() -> None:
    settings = Settings()
    topics, contracts = settings.topics, Contracts(settings)
    app = Application(
        broker_address=settings.brokers,
        consumer_group=settings.app_id,
        auto_offset_reset="earliest",
        commit_interval=settings.state.flush_interval_s,
        state_dir=settings.data_dir / "state",
        producer_extra_config={"acks": "all", "enable.idempotence": True, "linger.ms": 5},
        loglevel="WARNING",
    )
    clicks = app.topic(topics.clicks, value_deserializer="bytes")
    scores = app.topic(topics.scores(TASK), value_serializer=Avro("score", contracts.score))
    served = app.topic(topics.served(TASK), value_serializer=Avro("served", contracts.served))

    def score(value: bytes, key: bytes, timestamp: int, headers: Any, state: State[str, Any]) -> dict[str, Any]:
        click = contracts.decode(value)
        history = state.get("history", [])
        row = features("".join(history).encode())
        history.append(short_entry(click))
        state.set("history", history[-HISTORY:])
        made = score_record(click, 0, time.time_ns() // 1_000_000, timestamp)
        return {"score": made, "served": served_record(made, row)}

    scored = app.dataframe(clicks).apply(score, stateful=True, metadata=True)
    scored.to_topic(scores)
    scored.to_topic(served, key=lambda made: made["served"]["target_id"].encode())
    app.run()


if __name__ == "__main__":
    main()
