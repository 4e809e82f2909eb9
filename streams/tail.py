"""Follows topics and shows their records: as JSON for programs, or one line in words for people.
It joins no group and commits nothing, so it disturbs no one and may be run at any time."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kafka import TopicPartition

from schemas.errors import BadRecord, SettingsError
from schemas.registry import Registry
from schemas.values import to_json
from schemas.wire import Decoder, WritersDecoder
from streams.clients import consumer, partitions
from streams.config import Settings
from streams.contracts import TopicContract, readable, topic_contract
from streams.raw import RawRecord

POLL_MS = 200
FIRST_ITEMS = 3


def contracts_of(settings: Settings, topics: Sequence[str]) -> list[TopicContract]:
    """Of topics by name or setting: ours, those of any task, and what else is on the broker, which is asked only
    if need be. SettingsError, with the nearest name, for one that is nowhere; BrokerUnavailable."""
    try:
        return [topic_contract(settings, topic) for topic in topics]
    except SettingsError:
        with consumer(settings) as client:
            there = client.topics()
        return [readable(settings, topic, there) for topic in topics]


def tail(
    settings: Settings,
    topics: Sequence[str],
    *,
    from_beginning: bool = False,
    follow: bool = True,
    limit: int | None = None,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RawRecord]:
    """The records of `topics` (names) as they come, from now on or from the beginning.

    It ends after `limit` records or `seconds`; without `follow`, where the topics ended when it began.
    Records of one partition come in order. Raises BrokerUnavailable, SettingsError for a topic that is not there.
    """
    until = clock() + seconds if seconds is not None else None
    with consumer(settings) as client:
        places = [TopicPartition(topic, number) for topic in topics for number in partitions(settings, client, topic)]
        client.assign(places)
        ends: dict[TopicPartition, int] = client.end_offsets(places)
        starts = client.beginning_offsets(places) if from_beginning else ends
        for place in places:
            client.seek(place, starts[place])
        left = limit
        while (left is None or left > 0) and (until is None or clock() < until):
            if not follow and all(client.position(place) >= ends[place] for place in places):
                return
            for place, records in client.poll(timeout_ms=POLL_MS, max_records=left).items():
                wanted = [record for record in records if follow or record.offset < ends[place]]
                yield from map(_message, wanted)
                left = None if left is None else left - len(wanted)


def _message(record: Any) -> RawRecord:
    place = record.topic, record.partition, record.offset, record.timestamp
    return RawRecord(*place, record.key, record.value, record.headers)


class Reader:
    """Messages to JSON rows: topic, partition, offset, timestamp, key, value, or `error` in its place."""

    def __init__(self, contracts: Sequence[TopicContract], registry: Registry) -> None:
        self._values = {each.name: _value_of(each, registry) for each in contracts}

    def __call__(self, message: RawRecord) -> dict[str, Any]:
        """Raises RegistryUnavailable. What cannot be decoded is shown with its bytes, in base64."""
        instant = datetime.fromtimestamp(message.timestamp / 1000, UTC)
        row: dict[str, Any] = {
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "timestamp": instant.isoformat(timespec="milliseconds"),
            "key": message.key.decode("utf-8", "backslashreplace") if message.key is not None else None,
        }
        return row | self._value(message)

    def _value(self, message: RawRecord) -> dict[str, Any]:
        if message.value is None:
            return {"value": None}  # a compacted topic's deletion
        packed = base64.b64encode(message.value).decode()
        if (value := self._values[message.topic]) is None:
            return {"value_base64": packed}
        try:
            return {"value": value(message.value)}
        except BadRecord as error:
            return {"error": str(error), "value_base64": packed}


def _value_of(topic: TopicContract, registry: Registry) -> Callable[[bytes], Any] | None:
    """Bytes to a JSON value, by our contract, or the writer's schema where we have none; None for our own packing."""
    if not topic.contract:
        return None if topic.setting else WritersDecoder(registry)
    decode = Decoder(registry, topic.contract)
    return lambda value: to_json(topic.contract, decode(value))


def line(row: Mapping[str, Any], contract: str) -> str:
    """One line for people: `12:30:01.250 scores.fraud[1]@44 u17: order 541696, fraud 0.91, review`."""
    place = f"{row['timestamp'][11:23]} {row['topic']}[{row['partition']}]@{row['offset']} {row['key']}"
    if row.get("value") is None:
        return f"{place}: {row.get('error') or ('packed' if 'value_base64' in row else 'deleted')}"
    return f"{place}: {words(contract, row['value'])}"


def words(contract: str, value: Any) -> str:
    """A record in words; of contracts that have none here, its fields. What is no record is shown as it is."""
    describe = WORDS.get(contract)
    if not isinstance(value, Mapping):
        return str(value)
    if describe is None:
        return " ".join(f"{name}={part}" for name, part in value.items() if part not in (None, [], {}))
    late = ", late" if value.get("late") else ""
    return describe(value) + (f", not by the model: {value['fallback']}" if value.get("fallback") else late)


def _fraud(score: Mapping[str, Any]) -> str:
    reasons = f" ({', '.join(score['reasons'])})" if score["reasons"] else ""
    return f"order {score['order_id']}, fraud {score['probability']:.2f}, {score['decision']}{reasons}"


def _recommendation(score: Mapping[str, Any]) -> str:
    items = ", ".join(f"{item['item_id']} {item['score']:.2f}" for item in score["items"][:FIRST_ITEMS])
    return f"next items {items}, … of {len(score['items'])}"


def _ctr(score: Mapping[str, Any]) -> str:
    return f"{score['placement']}, click on {', '.join(map(_ad, score['ads']))}"


def _ad(ad: Mapping[str, Any]) -> str:
    bought = ad.get("conversion")
    return f"{ad['ad_id']} {ad['probability']:.3f}" + ("" if bought is None else f" (then bought {bought:.3f})")


def _dead_letter(letter: Mapping[str, Any]) -> str:
    place = f"{letter['topic']}[{letter['partition']}]@{letter['offset']}"
    return f"{letter['code']} at {place}, {letter['message']}"


WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "fraud_score": _fraud,
    "fraud_alert": _fraud,
    "recommendation_score": _recommendation,
    "ctr_score": _ctr,
    "dead_letter": _dead_letter,
}
