"""Plays a world into Kafka: its catalogue first, then its events, with the truth written to a file beside the
stream. What a worker recommended can be handed back, so that the clicks that follow answer it as a shop's
page would.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from streams.sources.publisher import Publisher
from streams.sources.records import Record
from streams.sources.replay import Counts, Pace, replay
from streams.sources.telling import Timed
from streams.sources.truth import TruthFile
from streams.sources.world import World

ATTRIBUTION_MS = 30 * 60_000


class Attribution:
    """Which recommendation a later click answers: the newest one served to that user within half an hour that
    has the item.

    The users of this world do not read recommendations; those clicks would have come anyway. So attributed
    clicks say how often a recommendation was right, not what it caused.
    """

    def __init__(self) -> None:
        self._served: dict[str, tuple[str, int, dict[str, int]]] = {}
        self._lock = threading.Lock()

    def served(self, user_id: str, request_id: str, time: int, items: Sequence[str]) -> None:
        """A recommendation came: `request_id` is its event_id, `time` its event_time. From any thread."""
        places = {item: place for place, item in enumerate(items)}
        with self._lock:
            self._served[user_id] = (request_id, time, places)

    def answer(self, event: Timed) -> None:
        """Fills request_id and position into a click that answers one."""
        record = event.record
        if event.topic != "clicks" or record["item_id"] is None:
            return
        with self._lock:
            request_id, time, places = self._served.get(record["user_id"], ("", 0, {}))
        place = places.get(record["item_id"])
        if place is not None and time < event.time <= time + ATTRIBUTION_MS:
            record["request_id"], record["position"] = request_id, place


def publish_catalog(catalog: tuple[list[Record], list[Record]], publisher: Publisher) -> int:
    """Items and ads, acknowledged when it returns; how many."""
    for setting, entries in zip(("items", "ads"), catalog, strict=True):
        for record in entries:
            publisher.send(publisher.encode_record(setting, record))
    publisher.flush()
    return sum(map(len, catalog))


def simulate(
    world: World,
    publisher: Publisher,
    pace: Pace | None = None,
    *,
    start: str | int | None = None,
    end: str | int | None = None,
    truth: Path | None = None,
    attribution: Attribution | None = None,
    stop: threading.Event | None = None,
    on_event: Callable[[Timed], None] | None = None,
) -> Counts:
    """Publishes the catalogue, then the events of [start, end); what came before is told, but not published.

    `truth` is written as the events go, and is complete also after a stop.
    """
    publish_catalog(world.catalog(), publisher)
    low = world.start if start is None else start
    events = world.history_records(low, 1 << 62 if end is None else end)
    file = TruthFile(truth) if truth else None

    def before_sending(event: Timed) -> None:
        if attribution:
            attribution.answer(event)
        if file and event.topic in ("orders", "impressions"):
            file.add(world.truth(event.record["event_id"]))
        if on_event:
            on_event(event)

    if file is None:
        return replay(events, publisher, pace, stop=stop, on_event=before_sending)
    with file:
        return replay(events, publisher, pace, stop=stop, on_event=before_sending)
