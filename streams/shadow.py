"""Shadows: releases that are asked, after the outputs are sent, what they would have said of the same events.
Each comparison is a record on scores.shadow; nothing of it is served, and nothing waits for it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import xxhash

from engines.slot import Loaded
from engines.turns import Turns
from streams.answering import answered
from streams.catalog import Catalogue
from streams.events import Record
from streams.features import Rows
from streams.lookups import Lookups
from streams.metrics import Metrics
from streams.policy.standing import Standing
from streams.producer import Acknowledged, Producer
from streams.tasks.base import Result, Serving, Task
from streams.tasks.selection import PLAIN, Selection
from streams.work import Failure, Job, Outgoing, Work

log = logging.getLogger(__name__)

MOST_WAITING = 256  # events of a task that wait to be asked about
CHUNK = 4  # rows of one turn with the engine: a live batch waits for one such call at most
REST = 3.0  # seconds of rest for each second of asking: of one core, shadows have a quarter at most
NEWEST = 256  # comparisons that the disagreement is of
UNACKNOWLEDGED = 16  # lists of records that may be on their way
TOP = 10


class Asked(NamedTuple):
    """An event as it was served: what the shadow needs to answer it too."""

    event: Record
    row: Rows  # (1,)
    result: Result
    live_us: int


@dataclass(slots=True, eq=False)
class Pairing:
    """A release that serves, the one that is asked too, and of which events.

    share: of all events, drawn by their id; wanted: events after which it is enough; until: monotonic seconds.
    `failed`: why the shadow is asked nothing more.
    """

    task: Task
    live: Loaded
    shadow: Loaded
    share: float
    wanted: float
    until: float
    taken: int = 0
    compared: int = 0
    failed: Exception | None = None
    waiting: deque[Asked] = field(default_factory=deque)
    differences: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))
    served: str = field(init=False)
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.served = f"{self.task.name}/{self.live.release}"
        self.seed = xxhash.xxh3_64_intdigest(f"{self.served}/{self.shadow.release}".encode())

    def draws(self, event_id: str) -> bool:
        """Whether this event is of the sample: always the same answer, and another draw for each pair of releases."""
        return self.share >= 1 or xxhash.xxh3_64_intdigest(event_id.encode(), self.seed) < self.share * 2**64


class Shadows:
    """`begin`, `resume` and `end` from any thread, one at a time; the rest on the loop's thread."""

    def __init__(
        self,
        tasks: Sequence[Task],
        catalog: Catalogue,
        encode: Callable[[dict[str, Any]], bytes],
        topic: str,
        engines: Turns,
        metrics: Metrics,
        policies: Standing,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        selections: Mapping[str, Selection] = MappingProxyType({}),
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._catalog, self._encode, self._topic = catalog, encode, topic
        self._engines, self._metrics, self._policies, self._now_ms = engines, metrics, policies, now_ms
        self._selections = selections
        self.pairs: Mapping[str, Pairing] = {}  # replaced, never changed: it is read from other threads
        self._failures: list[Outgoing] = []
        self._woken = asyncio.Event()
        self._rest = 0.0

    def begin(
        self,
        task: str,
        live: Loaded,
        shadow: Loaded,
        *,
        share: float = 1.0,
        wanted: float = float("inf"),
        until: float = float("inf"),
    ) -> Pairing:
        """From now on, in place of the task's pairing before; what of that still waits is not asked any more."""
        pair = Pairing(self._tasks[task], live, shadow, share, wanted, until)
        self.pairs = {**self.pairs, task: pair}
        return pair

    def resume(self, pair: Pairing) -> None:
        """Goes on with a pairing that another one took the place of."""
        self.pairs = {**self.pairs, pair.task.name: pair}

    def end(self, task: str) -> None:
        self.pairs = {name: pair for name, pair in self.pairs.items() if name != task}

    def after(self, work: Work) -> None:
        """Takes what is wanted of a micro-batch whose outputs are acknowledged. What does not fit is counted."""
        for job in work.jobs:
            for failure in job.failures:
                self._say(job, failure)
            if (pair := self.pairs.get(job.task.name)) is not None:
                self._take(pair, job)

    async def run(self, producer: Producer) -> None:
        """Asks and sends, until cancelled. Raises ProduceFailed and Fenced, after whatever was sent since."""
        sent: deque[asyncio.Future[Acknowledged]] = deque()
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while records := await self.step():
                    sent.append(producer.send_all(records))
                    while sent and (sent[0].done() or len(sent) > UNACKNOWLEDGED):
                        await sent.popleft()
                    await asyncio.sleep(self._rest)
        finally:
            for future in sent:
                future.cancel()

    async def step(self) -> list[Outgoing]:
        """The next records: of engines that failed, else of a few comparisons. Empty: nothing waits."""
        self._rest = 0.0
        if self._failures:
            records, self._failures = self._failures, []
            return records
        while (pair := max(self.pairs.values(), key=_waiting, default=None)) is not None and pair.waiting:
            asked = [pair.waiting.popleft() for _ in range(min(CHUNK, len(pair.waiting)))]
            started = time.perf_counter()
            results = await self._engines.run_aside(self._ask, pair, asked)
            self._rest = REST * (time.perf_counter() - started)
            if results:
                return self._compared(pair, asked, results)
        return []

    def _take(self, pair: Pairing, job: Job) -> None:
        """Of the events that the pairing's live release answered now: no fallback, nothing said before a crash."""
        if job.release != pair.served or pair.failed is not None or pair.taken >= pair.wanted:
            return
        fell = job.fallback.tolist()
        drawn = [
            number
            for number, event in enumerate(job.events)
            if not fell[number] and job.said[number] is None and pair.draws(event["event_id"])
        ]
        wanted = drawn[: int(min(len(drawn), pair.wanted - pair.taken))]
        taken = wanted[: MOST_WAITING - len(pair.waiting)]
        if len(taken) < len(wanted):
            self._metrics.shadow_dropped.labels(pair.task.name).inc(len(wanted) - len(taken))
        if taken:
            rows = job.rows[taken]  # a copy: a view would keep all of the micro-batch
            for place, number in enumerate(taken):
                result = job.results[number]
                assert result is not None
                pair.waiting.append(Asked(job.events[number], rows[place : place + 1], result, job.infer_us))
            pair.taken += len(taken)
            self._woken.set()

    def _ask(self, pair: Pairing, asked: Sequence[Asked]) -> list[tuple[Result, int]]:
        """In a turn of the engine's: results and their µs; none where the pairing is over or its shadow fails."""
        if self.pairs.get(pair.task.name) is not pair or pair.failed is not None:
            return []
        shadow, started = pair.shadow, time.perf_counter()
        try:
            rows = np.concatenate([each.row for each in asked])
            policy = self._policies.live if pair.task.raises_alerts else None
            selection = self._selections.get(pair.task.name, PLAIN)
            serving = Serving(self._catalog, shadow.calibration, shadow.settings, policy, selection)
            found: list[Result] = []
            for start in range(0, len(asked), shadow.max_batch):
                part = slice(start, start + shadow.max_batch)
                events, table = [each.event for each in asked[part]], Lookups(shadow.table)
                found += answered(pair.task, shadow, rows[part], events, serving, table)[0]
        except Exception as error:  # noqa: BLE001  whatever is wrong with a shadow, serving goes on
            pair.failed = error
            pair.waiting.clear()
            return []
        took = round((time.perf_counter() - started) * 1e6)
        return [(result, took) for result in found]

    def _compared(self, pair: Pairing, asked: Sequence[Asked], answers: Sequence[tuple[Result, int]]) -> list[Outgoing]:
        task, now, records = pair.task, self._now_ms(), []
        shadow = f"{task.name}/{pair.shadow.release}"
        for each, (result, took) in zip(asked, answers, strict=True):
            record = shadow_record(task, each.event, pair.served, shadow, now)
            record |= _side("live", each.result, each.live_us) | _side("shadow", result, took)
            records.append(self._outgoing(record))
            pair.differences.append(difference(task, each.result, result))
        pair.compared += len(asked)
        self._metrics.shadow_compared.labels(task.name).inc(len(asked))
        self._metrics.shadow_disagreement.labels(task.name).set(sum(pair.differences) / len(pair.differences))
        return records

    def _say(self, job: Job, failure: Failure) -> None:
        """A release that failed while it served: what was answered in its place, for each event that it had."""
        task, now = job.task, self._now_ms()
        self._metrics.engine_failures.labels(task.name).inc()
        self._metrics.swaps.labels(task.name, "rolled_back").inc()
        for number in failure.events:
            result = job.results[number]
            assert result is not None
            record = shadow_record(task, job.events[number], failure.release, job.release, now)
            record |= _side("live", NOTHING, 0) | _side("shadow", result, job.infer_us)
            self._failures.append(self._outgoing({**record, "failure": failure.reason}))
        self._woken.set()

    def _outgoing(self, record: dict[str, Any]) -> Outgoing:
        return Outgoing(self._topic, record["target_id"].encode(), self._encode(record))


NOTHING = Result({}, [], [])


def shadow_record(task: Task, event: Record, live: str, shadow: str, now_ms: int) -> dict[str, Any]:
    """A record of scores.shadow, but for what either side said."""
    return {
        "event_id": event["event_id"],
        "task": task.name,
        "target_id": task.target(event),
        "user_id": event["user_id"],
        "event_time": event["event_time"],
        "compared_at": now_ms,
        "live": live,
        "shadow": shadow,
        "failure": None,
    }


def _side(name: str, result: Result, took_us: int) -> dict[str, Any]:
    return {
        "candidates" if name == "live" else "shadow_candidates": result.candidates,
        f"{name}_prediction": result.prediction,
        f"{name}_decision": result.decision,
        f"{name}_us": took_us,
    }


def difference(task: Task, live: Result, shadow: Result) -> float:
    """How differently two releases answered one event, 0 to 1; its mean is the disagreement.

    A task that decides: 1 if it decided otherwise. One that ranks the catalogue: 1 less the share of the live top 10
    that the other one lists in its own. Else: the mean absolute difference of the probabilities.
    """
    if live.decision is not None:
        return float(live.decision != shadow.decision)
    if task.loss == "softmax":
        ours, theirs = live.candidates[:TOP], shadow.candidates[:TOP]
        return 1 - len(set(ours) & set(theirs)) / len(ours) if ours else float(bool(theirs))
    pairs = list(zip(live.prediction, shadow.prediction, strict=True))
    return sum(abs(a - b) for a, b in pairs) / len(pairs) if pairs else 0.0


def _waiting(pair: Pairing) -> int:
    return len(pair.waiting)
