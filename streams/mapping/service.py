"""What `headrace mapping run` and `headrace backfill` do: carry a source over, for as long as the process lives.
It ends in order on SIGTERM, between two transactions; a broker or a registry that is away is waited for.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from schemas.errors import BadRecord, BrokerUnavailable, HeadraceError, RegistryUnavailable
from schemas.registry import Registry
from streams.config import Settings
from streams.mapping.carrying import Carried, Carrier, Map
from streams.mapping.checking import map_item
from streams.mapping.mapper import Mapper
from streams.mapping.reading import Item, Reader, Start, TopicReader

log = logging.getLogger(__name__)

REPORT_S = 10.0
HOLD_S = 0.2
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


class Stopped(Exception):
    """What was waited for is not wanted any more."""


Progress = Callable[[int, int, str], None]
"""Records read, all that there are, and what it waits for, in words, if it does."""
Hold = Callable[[float, int], str]
"""Why nothing is to be carried at this moment (seconds of a rising clock), after so many, in words; empty: go on."""
Told = Callable[[Carried, int | None, int], None]
"""Of a step: what became of what it read, the broker's time in UTC ms of the oldest of it, and how many still wait."""


class Follower:
    """Used from one thread; `stop` from any, and what it says of itself may be read from any."""

    def __init__(
        self, settings: Settings, registry: Registry, plan: Plan, told: Told = lambda *_: None,
        stopped: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """`stopped`: what `stop` sets, where somebody else does."""
        self._settings, self._registry, self._plan, self._told = settings, registry, plan, told
        self._stopped = stopped or threading.Event()
        self.carried = Carried()
        self.done = (0, 0)
        self.begun = False
        self.turned = time.monotonic()
        """When it last went round, or began to wait."""
        self.waits = ""
        """For what, in words; empty while it does not."""

    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def run(
        self, *, start: Start = "committed", until_end: bool = False, progress: Progress = lambda *_: None,
        rate: float = 0, hold: Hold = lambda *_: "",
    ) -> None:  # fmt: skip
        """Until `stop`; `until_end`: until what was there at the start is read. `rate`: at most so many a second.

        After a broker or registry that was away it goes on from the last whole transaction. Raises Fenced where another
        process carries the same, ProduceFailed, SettingsError, SchemaError, FrontierTooOld.
        """
        with suppress(Stopped):
            while not self._stopped.is_set():
                try:
                    return self._followed("committed" if self.begun else start, until_end, progress, rate, hold)
                except (BrokerUnavailable, RegistryUnavailable) as error:
                    progress(*self.done, str(error))
                    self._wait(error)

    def _wait(self, error: HeadraceError) -> None:
        """Until it may be tried again. Raises Stopped."""
        if str(error) != self.waits:
            log.warning("%s waits: %s", self._plan.name, error)
        self.waits, self.turned = str(error), time.monotonic()
        if self._stopped.wait(RETRY_S):
            raise Stopped

    def _followed(self, start: Start, until_end: bool, progress: Progress, rate: float, hold: Hold) -> None:
        plan = self._plan
        # Made first: it ends what a predecessor left open, and only then is known how far that one came.
        carrier = Carrier(
            self._settings, self._registry, plan.name, plan.topic, plan.map, self._wait,
            history=plan.history, letters=plan.letters, refused=plan.refused,
        )  # fmt: skip
        reader = plan.open(start)
        try:
            carrier.begin(reader)
            said = time.monotonic()
            self.done, self.begun, self.waits = reader.done, True, ""
            while not self._stopped.is_set() and not (until_end and reader.ended):
                self.turned = began = time.monotonic()
                if why := hold(began, self.carried.published):
                    self.waits = why
                    progress(*self.done, why)
                    self._stopped.wait(HOLD_S)
                    continue
                carried, oldest = carrier.step(reader)
                self.carried.add(carried)
                self.done, self.waits = reader.done, ""
                self._told(carried, oldest, reader.lag)
                progress(*self.done, "")
                if not until_end and time.monotonic() - said > REPORT_S:
                    said = time.monotonic()
                    log.info("%s: %s", plan.name, words(self.carried))
                if rate and carried.all:
                    self._stopped.wait(max(0.0, carried.all / rate - (time.monotonic() - began)))
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
