"""Answers requests: who waits is scored together, in the engine's next turn, on the state as it is, which stays so.
The event goes to the broker with its answer before the answer goes out; who misses the deadline gets the fallback.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from engines.turns import Turns
from schemas.errors import EngineError, Fenced, HeadraceError
from schemas.wire import Encoder
from streams.asking.answers import Answers, Given, Key, digest
from streams.asking.header import Answer
from streams.asking.outbox import Outbox
from streams.asking.problems import (
    ALREADY_SCORED,
    BUSY,
    FAILED,
    TOO_LARGE,
    Problem,
    already_scored,
    another_event,
    not_ready,
)
from streams.events import Record
from streams.features import pack
from streams.lease import Lease
from streams.notices import Notices
from streams.outputs import score_record
from streams.raw import RawRecord
from streams.scoring import Scorer
from streams.state.peek import Peek
from streams.tasks.base import Result, Task
from streams.telemetry.context import Headers
from streams.work import Job, Work

log = logging.getLogger(__name__)

TOGETHER = 16
"""Most requests of one engine call: the stream waits for one such call at most."""


@dataclass(slots=True, eq=False)
class Request:
    """An event that was asked about. value: as its message; trace: the headers by which it belongs to the trace of who
    asked; scored: resolves to its answer, or raises Problem.
    """

    task: Task
    event: Record
    key: Key
    partition: int
    value: bytes
    trace: Headers
    asked_ms: int
    scored: "asyncio.Future[Given]"
    deadline: asyncio.TimerHandle | None = None

    @property
    def raw(self) -> RawRecord:
        """As if it had come then. Its offset is not known, and nothing goes by it before it is absorbed."""
        return RawRecord("", self.partition, 0, self.asked_ms, None, self.value)


@dataclass(slots=True, eq=False)
class Asker:
    """All on the loop's thread. `owned`: partitions that may be answered for now; while a restore is on, none, as the
    state is being changed from another thread. `failed` hears of work in which an engine failed.
    """

    scorer: Scorer
    answers: Answers
    outbox: Outbox
    engines: Turns
    lease: Lease
    encoders: Mapping[int, Encoder]
    max_in_flight: int
    failed: Callable[[Work], None]
    owned: Collection[int] = frozenset()
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ingest: Callable[[Record], Record] = lambda event: event  # as the stream reads it
    _peek: Peek = field(init=False)
    _asked: dict[Key, Request] = field(default_factory=dict)
    _waiting: list[Request] = field(default_factory=list)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _notices: Notices = field(default_factory=lambda: Notices(log))

    def __post_init__(self) -> None:
        self._peek = Peek(self.scorer.state, TOGETHER)

    async def ask(
        self,
        task: Task,
        event: Record,
        partition: int,
        deadline_s: float,
        *,
        durable: bool,
        trace: Headers | None = None,
    ) -> Record:
        """The score's record, its cut as of before the event. Raises Problem.

        durable: returns when the event is on its topic. trace: headers of the event that is published. The same event
        again gets its answer again, and nothing is published again.
        """
        given = await self._given(task, event, partition, deadline_s, trace or [])
        if durable:
            await self.outbox.published(given)
        return self.answers.score(given.answer)

    def own(self, partitions: Collection[int]) -> None:
        """Only these may be answered for from now on; whoever waits for others is told so at once."""
        self.owned = frozenset(partitions)
        for request in list(self._asked.values()):
            if not request.scored.done():
                self._owns(request)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                due, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
                await self._score(due)

    # -- take up ---------------------------------------------------------------------------------------------

    async def _given(self, task: Task, event: Record, partition: int, deadline_s: float, trace: Headers) -> Given:
        key, value = Key.of(task.topic, event), self.encoders[task.topic](event)
        given = self.answers.known(key)
        if given is None:
            request = self._asked.get(key) or self._take_up(task, event, key, partition, value, deadline_s, trace)
            if digest(request.value) != digest(value):
                raise another_event(key.event_id)
            given = await asyncio.shield(request.scored)
        elif given.digest != digest(value):
            raise another_event(key.event_id)
        if given.answer.task != task.name:
            raise Problem(ALREADY_SCORED, f"it was asked about for {given.answer.task}", "event_id")
        return given

    def _take_up(
        self, task: Task, event: Record, key: Key, partition: int, value: bytes, deadline_s: float, trace: Headers
    ) -> Request:
        if len(self._asked) >= self.max_in_flight:
            raise Problem(BUSY, f"{len(self._asked)} requests wait", todo="ask again, or raise ask.max_in_flight")
        loop = asyncio.get_running_loop()
        event = self.ingest(event)
        request = Request(task, event, key, partition, value, trace, self.now_ms(), loop.create_future())
        self._asked[key] = request
        self.answers.asking.add(key)
        request.scored.add_done_callback(lambda _: self._done(request))
        if deadline_s <= 0:
            self._fall_back(request)
        else:
            request.deadline = loop.call_later(deadline_s, self._fall_back, request)
            self._waiting.append(request)
            self._woken.set()
        return request

    def _done(self, request: Request) -> None:
        """Also where nobody waits any more: whose client hung up is published all the same."""
        if request.deadline is not None:
            request.deadline.cancel()
        del self._asked[request.key]
        self.answers.asking.discard(request.key)
        self.answers.overtaken.discard(request.key)
        if not request.scored.cancelled():
            request.scored.exception()  # it is seen, also where nobody waits

    # -- score -----------------------------------------------------------------------------------------------

    async def _score(self, requests: Sequence[Request]) -> None:
        """All of them in one call of the engine for each task. Whatever goes wrong is theirs, not the worker's."""
        try:
            open_, work = self._peeked(requests)
            await self.engines.run(self.scorer.infer, work, events=len(open_))
            self._answer(work, open_)
            if any(job.failures for job in work.jobs):
                self.failed(work)
        except EngineError as error:
            self._notices.say("requests get the fallback", str(error))
            for request in requests:
                self._fall_back(request)
        except Exception as error:  # noqa: BLE001  what a request brings along must not end a worker
            if len(requests) == 1:
                self._fail(requests, error)
                return
            for request in requests:  # one of them was the cause
                await self._score([request])

    def _fall_back(self, request: Request) -> None:
        """The deadline is over: what the task states for that, without the engine."""
        try:
            open_, work = self._peeked([request])
            for job in work.jobs:
                job.fallback[:] = True
            self.scorer.infer(work)
            self._answer(work, open_)
        except Exception as error:  # noqa: BLE001  as above
            self._fail([request], error)

    def _peeked(self, requests: Sequence[Request]) -> tuple[list[Request], Work]:
        """Those that can be answered, and what is known of them now; the others are told why not."""
        open_ = [request for request in requests if not request.scored.done() and self._owns(request)]
        work = peeked(self.scorer, self._peek, open_, self.now_ms())
        for request, fresh in zip(open_, work.absorbed.fresh.tolist(), strict=True):
            if not fresh:
                self._refuse(request, self._scored_already(request))
        for job in work.jobs:  # the deadline here is the request's own
            job.late[:] = job.fallback[:] = False
        return open_, work

    def _answer(self, work: Work, requests: Sequence[Request]) -> None:
        for job in work.jobs:
            features = pack(job.rows)
            for number, (at, result) in enumerate(zip(job.index.tolist(), job.results, strict=True)):
                if requests[at].task is job.task and result is not None:
                    self._tell(requests[at], work, job, number, result, features[number])

    def _tell(self, request: Request, work: Work, job: Job, number: int, result: Result, features: bytes) -> None:
        """Unless it was told before: then that is the answer."""
        if request.key in self.answers.overtaken:
            self._refuse(request, self._scored_already(request))
        if request.scored.done() or not self._owns(request):
            return
        score = self.scorer.codecs.scores[job.task.name](score_record(work, job, number, result))
        answer = Answer(job.task.name, score, features, *job.buckets[number])
        headers = [self.answers.seal.header(answer, request.value), *request.trace]
        if len(request.value) + sum(len(content) for _, content in headers) > self.scorer.max_message_bytes:
            self._refuse(request, Problem(TOO_LARGE, "with its answer it is larger than max_message_bytes"))
            return
        given = Given(request.partition, digest(request.value), answer)
        self.answers.give(request.key, given)
        self.outbox.publish(request.key, request.value, given, headers)
        request.scored.set_result(given)

    # -- refuse ----------------------------------------------------------------------------------------------

    def _owns(self, request: Request) -> bool:
        """Whether anything may be said for its partition; if not, the request is told."""
        try:
            held = self.lease.held()
        except Fenced:
            held = False
        if held and request.partition in self.owned:
            return True
        self._refuse(request, not_ready(request.partition))
        return False

    def _scored_already(self, request: Request) -> Problem:
        return already_scored(self.scorer.names.scores[request.task.name])

    def _fail(self, requests: Sequence[Request], error: Exception) -> None:
        unexpected = None if isinstance(error, HeadraceError) else error
        log.error("requests are not answered: %s", error, exc_info=unexpected)
        for request in requests:
            self._refuse(request, Problem(FAILED, "the event could not be scored", todo="the worker's log says more"))

    def _refuse(self, request: Request, problem: Problem) -> None:
        if not request.scored.done():
            request.scored.set_exception(problem)


def peeked(scorer: Scorer, peek: Peek, requests: Sequence[Request], now_ms: int) -> Work:
    """As Scorer.prepare, of events that have not come: each as if it alone came now."""
    raw, events = [request.raw for request in requests], [request.event for request in requests]
    topics = [request.task.topic for request in requests]
    batch = scorer.batch(topics, raw, events)
    work = Work(events, raw, batch, peek.look(batch), [], [], now_ms)
    work.jobs += scorer.jobs(work, set(topics), {}, peek.gather)
    return work
