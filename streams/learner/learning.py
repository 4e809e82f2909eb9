"""The loop that learns: follows examples, shadow scores and releases, and does what is due, one fine-tune at a time.
Its own thread; blocking. Killed at any moment, the next one goes on where this one was.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from confluent_kafka import Message

from engines.manifest import Manifest
from schemas.confluent import ConfluentRegistry
from schemas.errors import HeadraceError, ReleaseError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.catalog import Catalogue
from streams.config import Settings
from streams.events import Record
from streams.learner.champion import BAD, LIVE, Champions
from streams.learner.child import Standby
from streams.learner.control import Control, Speaker
from streams.learner.cycle import Bench
from streams.learner.feed import Feed, back_to, read_examples
from streams.learner.first_score import Awaited
from streams.learner.forgetting import Forgetting
from streams.learner.metrics import LearnerMetrics
from streams.learner.starting import Starting, start
from streams.learner.taking_back import TakingBack
from streams.learner.task import TaskLearning
from streams.learner.telling import Teller
from streams.learner.watching import Pair
from streams.live import CatalogueFeed
from streams.patience import until_it_works
from streams.privacy.ledger import Ledger
from streams.tasks import make_task

log = logging.getLogger(__name__)

T = TypeVar("T")

SERVED = 10_000

ROUND_S, LOOK_S, READ_S = 0.2, 1.0, 60.0
EARLY_MS = 60_000
SWAP_S = 60.0
"""So long after a fine-tune no process loads the libraries for the next: the workers build, warm and shadow its release
at the lowest priority there is.
"""
"""By how much a label may come before the comparison of its event."""


class Learning:
    """`run` until `stop`, which any thread may call."""

    def __init__(self, settings: Settings, metrics: LearnerMetrics, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._metrics, self._clock = settings, metrics, clock
        self._stopping = threading.Event()
        self._tasks = {
            name: TaskLearning(settings, make_task(name), partial(self._precedes, name)) for name in settings.tasks
        }
        folder = settings.data_dir / "learner" / settings.app_id
        self._standby = Standby(settings.learning.niceness, folder / "standby.txt")
        self._benches = {name: Bench(settings, name, folder / name, self._standby) for name in settings.tasks}
        self._catalog = Catalogue()
        self._granted: dict[str, int] = {}
        self._unusable: dict[str, str] = {}
        self._awaited = {name: Awaited(bench.folder) for name, bench in self._benches.items()}
        self._served = deque[Record](maxlen=SERVED)
        self._looked = self._settled_at = 0.0
        self.rounds = 0

    def served(self, record: Record) -> None:
        """A served record, from any thread. Where they come faster than they are looked at, the oldest are dropped."""
        self._served.append(record)

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """Raises SettingsError, SchemaError, StateError; waits for what is away."""
        try:
            with closing(ConfluentRegistry(self._settings.registry())) as registry, self._followed(registry):
                self._until_it_works("what is live", self._begin)
                while not self._stopping.is_set():
                    self._until_it_works("learning", self._round)
        except HeadraceError as error:
            if not (error.retriable and self._stopping.is_set()):
                raise

    @contextmanager
    def _followed(self, registry: Registry) -> Iterator[None]:
        """Everything that is followed from its topic, read to its end; let go of at the end."""
        settings = self._settings
        self._registry = registry
        made = partial(self._until_it_works, "the registry")
        self._champions = made(lambda: Champions(settings, registry))
        self._control = made(lambda: Control(settings, registry))
        self._taking_back = TakingBack(self._champions, self._metrics, self._follow, self._now)
        self._teller = Teller(made(lambda: Speaker(settings, registry)), self._metrics, self._clock)
        self._feed = made(lambda: CatalogueFeed(settings, registry, self._catalog))
        self._forgotten = made(lambda: Ledger(settings, registry))
        self._forgetting = Forgetting(settings, self._forgotten, settings.data_dir / "learner" / settings.app_id)
        self._starting = Starting(
            settings, registry, self._metrics, self._standby, self._forgetting, self._catalogue
        )  # fmt: skip
        decoders = made(lambda: (Decoder(registry, "training_example"), Decoder(registry, "shadow_score")))
        self._examples = Feed(settings, settings.topics.examples, decoders[0], self._on_example)
        self._shadows = Feed(settings, settings.topics.shadow, decoders[1], self._on_shadow)
        try:
            for what, reader in (
                ("the catalogue", self._feed), ("releases", self._champions), ("commands", self._control),
                ("who was forgotten", self._forgotten),
            ):  # fmt: skip
                self._until_it_works(what, partial(reader.wait_current, READ_S))
            yield
        finally:
            for reader in (self._feed, self._champions, self._control, self._forgotten):
                reader.stop()
            self._examples.close()
            self._shadows.close()
            for name, bench in self._benches.items():
                bench.stop()
                self._tasks[name].save_waits(bench.folder)
            self._standby.stop()

    # -- the beginning

    def _begin(self) -> None:
        """Reads back what the live releases have not learned, and compares anew since they are live."""
        starts = []
        self._granted = {name: said.detail.get("granted", 0) for name, said in self._control.statuses().items()}
        for name, task in self._tasks.items():
            task.load_waits(self._benches[name].folder)
            self._follow(name)
            starts += [task.standing.start, task.waits.next]
        self._shadows.open(back_to(self._settings, self._settings.topics.shadow, self._now() - self._horizon_ms()))
        while not self._shadows.current and not self._stopping.is_set():
            self._shadows.poll(ROUND_S)
        compared = [watching.since for task in self._tasks.values() for watching in task.pairs if watching.compared]
        if compared:  # the labels of what was compared come again
            starts.append(back_to(self._settings, self._settings.topics.examples, min(compared) - EARLY_MS))
        parts = {part for start in starts for part in start}
        self._examples.open({part: min(start.get(part, 0) for start in starts) for part in parts})
        for name, bench in self._benches.items():
            if bench.cycle is not None and not bench.running and start(self._tasks[name], bench):
                log.info("going on with the fine-tune of %s", name)

    def _horizon_ms(self) -> float:
        """How long ago an event may have been compared whose label comes now."""
        longest = max(task.window_ms for task in self._tasks.values())
        return longest + 1000 * self._settings.swap.watch_s

    def _follow(self, name: str) -> None:
        """Takes note of another live release."""
        task, live, pointer = self._tasks[name], self._champions.live(name), self._champions.pointer(name)
        if live is None or live == task.champion:
            return
        previous = pointer.previous if pointer else None
        if previous is not None and self._champions.state(name, previous) in BAD:
            previous = None  # it is known to be worse
        if (manifest := self._manifest(name, live)) is None:
            return
        first = task.champion is None
        if task.follow(live, manifest, previous) and not first:
            starts = task.standing.start
            ranges = {
                part: (starts.get(part, 0), at) for part, at in self._examples.next.items() if starts.get(part, 0) < at
            }
            for part, offset, record in read_examples(self._settings, self._registry, name, ranges):
                task.reread(part, offset, record)
        for part, at in self._examples.next.items():
            task.arrivals.read_to(part, at)

    def _manifest(self, name: str, version: str) -> Manifest | None:
        """None where the release is damaged: there is nothing to go on from, and that is said once."""
        try:
            return self._champions.store.open(name, version).manifest
        except ReleaseError as error:
            if self._unusable.get(name) != version:
                log.error("nothing is learned of %s: %s", name, error)
            self._unusable[name] = version
            return None

    # -- a round

    def _round(self) -> None:
        self.rounds += 1
        self._shadows.poll(0.0)
        self._examples.poll(ROUND_S)
        while self._served:
            record = self._served.popleft()
            self._tasks[record["task"]].served(record)
        for name, task in self._tasks.items():
            self._follow(name)
            for part, at in self._examples.next.items():
                task.arrivals.read_to(part, at)
            self._taking_back.look(task)
            self._end(task, self._benches[name])
        due = self._clock() - self._looked >= LOOK_S
        if due and self._examples.current and not any(bench.cycle for bench in self._benches.values()):
            self._looked = self._clock()
            self._forgetting.look(self._now())
            self._start_one()
        for task in self._tasks.values():
            self._say(task)

    def _on_example(self, record: Record, message: Message) -> None:
        task = self._tasks.get(record["task"])
        if task is not None and not self._forgetting.deleted(record["user_id"], message.timestamp()[1]):
            task.example(record, message)

    def _on_shadow(self, record: Record, message: Message) -> None:
        if (task := self._tasks.get(record["task"])) is not None:
            task.shadow(record)

    # -- fine-tunes

    def _start_one(self) -> None:
        """Of the tasks for which one is due, the first: one at a time."""
        for name, task in self._tasks.items():
            pointer = self._champions.pointer(name)
            if task.champion is None or (pointer is not None and pointer.pinned):
                continue
            seen = task.seen(asked=self._asked(name), paused=self._control.command(name).paused)
            if (reason := task.reason(seen, self._now())) is None:
                # Labels come in bursts, and the libraries take 10 s of a busy core.
                if not seen.paused and self._clock() >= self._settled_at:
                    self._starting.stand_by()
                continue
            self._starting.begin(task, self._benches[name], reason, task.kind(seen, self._now()), self._now())
            self._granted[name] = self._control.command(name).asked_at
            return

    def _asked(self, name: str) -> bool:
        return self._control.command(name).asked_at > self._granted.get(name, 0)

    def _catalogue(self) -> Catalogue:
        self._feed.drain()
        return self._catalog

    def _end(self, task: TaskLearning, bench: Bench) -> None:
        """What came of the fine-tune that has ended, if one has."""
        outcome, cycle = bench.outcome(), bench.cycle
        if outcome is None or cycle is None:
            return
        state = "failed"
        if outcome.made is not None:
            try:
                state = self._champions.settle(
                    task.name, outcome.made, cycle.champion, passed=outcome.passed, now_ms=self._now()
                )
            except ReleaseError as error:  # damaged since it was made; what is live stays
                outcome = replace(outcome, reason=str(error))
        bench.settle()
        self._settled_at = self._clock() + SWAP_S
        self._teller.ended(task, cycle, outcome, state)
        if state == LIVE:
            self._awaited[task.name].wait_for(str(outcome.made), cycle.newest_at)
            self._follow(task.name)
        else:
            task.attempts += 1

    # -- what is live

    def _precedes(self, name: str, pair: Pair) -> bool:
        return self._taking_back.precedes(name, pair)

    def _say(self, task: TaskLearning) -> None:
        name, pointer, awaited = task.name, self._champions.pointer(task.name), self._awaited[task.name]
        if awaited.release is not None and self._teller.scores(task, *awaited.release):
            awaited.heard()
        self._teller.status(
            task,
            running=self._benches[name].running,
            asked=self._asked(name),
            paused=self._control.command(name).paused,
            pinned=pointer is not None and pointer.pinned,
            granted=self._granted.get(name, 0),
        )

    def _until_it_works(self, what: str, attempt: Callable[[], T]) -> T:
        return until_it_works(what, attempt, self._stopping, log)

    def _now(self) -> int:
        return int(self._clock() * 1000)
