"""What `headrace mapping run` and `headrace backfill` do: carry a source over, for as long as the process lives.
It ends in order on SIGTERM, between two transactions; a broker that is away is waited for.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from schemas.errors import BadRecord, BrokerUnavailable
from schemas.registry import Registry
from streams.config import Settings
from streams.mapping.carrying import Carried, Carrier, Map
from streams.mapping.checking import map_item
from streams.mapping.mapper import Mapper
from streams.mapping.reading import Item, Reader, Start, TopicReader

log = logging.getLogger(__name__)

REPORT_S = 10.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is carried: `name` is its transactions', `topic` where to, `open` where from. The rest as of Carrier."""

    name: str
    topic: str
    open: Callable[[Start], Reader]
    map: Map
    history: bool = False
    letters: bool = True
    refused: Callable[[Item, BadRecord], None] | None = None


def mapped_topic(settings: Settings, mapper: Mapper, *, history: bool = False) -> Plan:
    """A mapping's own topic. History and what is live are read as one group: the one goes on behind the other."""
    document = mapper.compiled.document
    group = f"{settings.app_id}-mapping-{document.name}"
    return Plan(
        f"mapping-{document.name}",
        mapper.contract.name,
        lambda start: TopicReader(settings, document.source, group, start, history=history),
        lambda item, now_ms: map_item(mapper, item, now_ms),
        history=history,
    )


class Follower:
    """Used from one thread; `stop` from any."""

    def __init__(self, settings: Settings, registry: Registry, plan: Plan) -> None:
        self._settings, self._registry, self._plan = settings, registry, plan
        self._stopped = threading.Event()
        self.carried = Carried()
        self.done = (0, 0)

    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def run(
        self, *, start: Start = "committed", until_end: bool = False,
        progress: Callable[[int, int], None] = lambda done, all_: None, rate: float = 0,
    ) -> None:  # fmt: skip
        """Until `stop`; `until_end`: until what was there at the start is read. `rate`: at most so many a second.

        After a broker that was away it goes on from the last whole transaction. Raises Fenced where another process
        carries the same, ProduceFailed, SettingsError, FrontierTooOld.
        """
        while not self._stopped.is_set():
            try:
                return self._followed(start, until_end, progress, rate)
            except BrokerUnavailable as error:
                log.warning("%s waits: %s", self._plan.name, error)
                start = "committed"
                self._stopped.wait(RETRY_S)

    def _followed(self, start: Start, until_end: bool, progress: Callable[[int, int], None], rate: float) -> None:
        plan = self._plan
        # Made first: it ends what a predecessor left open, and only then is known how far that one came.
        carrier = Carrier(
            self._settings, self._registry, plan.name, plan.topic, plan.map,
            history=plan.history, letters=plan.letters, refused=plan.refused,
        )  # fmt: skip
        carrier.carried = self.carried
        reader = plan.open(start)
        try:
            carrier.begin(reader)
            said = time.monotonic()
            self.done = reader.done
            while not self._stopped.is_set() and not (until_end and reader.ended):
                began = time.monotonic()
                count = carrier.step(reader)
                self.done = reader.done
                progress(*self.done)
                if not until_end and time.monotonic() - said > REPORT_S:
                    said = time.monotonic()
                    log.info("%s: %s", plan.name, words(self.carried))
                if rate and count:
                    self._stopped.wait(max(0.0, count / rate - (time.monotonic() - began)))
        finally:
            reader.close()


def until_signalled(follower: Follower, run: Callable[[], None]) -> None:
    """Runs; SIGTERM and SIGINT end it after the transaction that it is in."""
    before = {each: signal.signal(each, lambda *_: follower.stop()) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        run()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def words(carried: Carried) -> str:
    bad = ", ".join(f"{count:,} {code}" for code, count in carried.bad.most_common())
    left = f", {carried.left_out:,} left out" if carried.left_out else ""
    return f"{carried.published:,} published{left}, {carried.bad.total():,} dead letters" + (f" ({bad})" if bad else "")
