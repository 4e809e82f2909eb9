"""The pages: POST /v1/score/{task}, and /openapi.json, which describes it.
Whoever gets a request checks it whole, and answers it or sends it on to the worker that owns the user.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from aiohttp import web

from streams.asking.asker import Asker
from streams.asking.document import MOST_DEADLINE_MS, document
from streams.asking.door import FORWARDED, Door
from streams.asking.events import answer_of, event_of
from streams.asking.peers import Peers
from streams.asking.problems import (
    BAD_OPTION,
    FAILED,
    MEDIA_TYPE,
    NO_JSON_TYPE,
    NO_SUCH_TASK,
    NOT_JSON,
    SLOW_BODY,
    TOO_LARGE,
    WRONG_METHOD,
    Problem,
    not_ready,
)
from streams.metrics import Metrics
from streams.partitioning import partition_for
from streams.tasks.base import Task
from streams.telemetry.context import TRACEPARENT, TRACESTATE, Headers, parent_of_request

if TYPE_CHECKING:
    from streams.telemetry.spans import Traces

log = logging.getLogger(__name__)

PATH = "/v1/score/{task}"
BODY_S = 10.0
DURABLE_S = 30.0  # how much longer who wants to see the event on its topic waits for another worker's answer


class Options(NamedTuple):
    """Of the query."""

    deadline_ms: int
    durable: bool

    @classmethod
    def of(cls, query: Mapping[str, str], deadline_ms: int) -> Self:
        """`deadline_ms`: where none is given. Raises Problem."""
        for name in query:
            if name not in cls._fields:
                raise Problem(BAD_OPTION, "there is no such option", name, f"one of {', '.join(cls._fields)}")
        given, durable = query.get("deadline_ms", str(deadline_ms)), query.get("durable", "false")
        if not (given.isascii() and given.isdecimal() and len(given) < 9 and 1 <= int(given) <= MOST_DEADLINE_MS):
            raise Problem(
                BAD_OPTION, f"it is {given[:60]!r}", "deadline_ms", f"a whole number, 1 to {MOST_DEADLINE_MS}"
            )
        if durable not in ("true", "false"):
            raise Problem(BAD_OPTION, f"it is {durable[:60]!r}", "durable", "true or false")
        return cls(int(given), durable == "true")

    def query(self, passed_s: float) -> dict[str, str]:
        """What is left of them, for the worker that they are sent on to."""
        left = max(1, round(self.deadline_ms - 1000 * passed_s))
        return {"deadline_ms": str(left), "durable": "true" if self.durable else "false"}


class Pages:
    """`asker` comes when the worker has something to score with; until then nobody is answered."""

    def __init__(
        self,
        tasks: Sequence[Task],
        door: Door,
        peers: Peers,
        metrics: Metrics,
        *,
        partitions: int,
        deadline_ms: int,
        clock: Callable[[], float] = time.perf_counter,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._door, self._peers, self._metrics = door, peers, metrics
        self._partitions, self._deadline_ms, self._clock = partitions, deadline_ms, clock
        self._now_ms = now_ms
        self._document = json.dumps(document(tasks, deadline_ms)).encode()
        self.asker: Asker | None = None
        self.traces: Traces | None = None
        self.publishing: Callable[[dict[str, Any]], dict[str, Any]] = lambda event: event  # as what we publish is to be

    def add_to(self, app: web.Application) -> None:
        app.router.add_post(PATH, self.score)
        app.router.add_route("*", PATH, self.other_method)
        app.router.add_get("/openapi.json", self.openapi)

    async def openapi(self, _: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    async def other_method(self, request: web.Request) -> web.Response:
        problem = Problem(WRONG_METHOD, f"it is {request.method}", expected="POST")
        return _refusal(problem, {"Allow": "POST"})

    async def score(self, request: web.Request) -> web.Response:
        started, task = self._clock(), request.match_info["task"]
        result = "answered"
        try:
            await self._door.admit(request)
            return await self._traced(request, task, started)
        except Problem as problem:
            result = problem.kind.name
            return _refusal(problem)
        except Exception:
            log.exception("a request has failed")
            result = FAILED.name
            return _refusal(Problem(FAILED, "the worker's log says more"))
        finally:
            name = task if task in self._tasks else ""
            self._metrics.asked.labels(name, result).inc()
            self._metrics.ask_seconds.labels(name).observe(self._clock() - started)

    async def _traced(self, request: web.Request, name: str, started: float) -> web.Response:
        """As `_answered`, as a part of the trace of who asks; nobody who was not let in makes a span."""
        parent = parent_of_request(request.headers.getall(TRACEPARENT, []), request.headers.getall(TRACESTATE, []))
        if parent is None:
            return await self._answered(request, name, started, [])
        span = None if self.traces is None else self.traces.asked(parent, name)
        if span is None:
            return await self._answered(request, name, started, parent.carried())
        status = 500
        try:
            answer = await self._answered(request, name, started, span.headers)
            status = answer.status
            return answer
        except Problem as problem:
            status = problem.kind.status
            raise
        finally:
            span.end(status)

    async def _answered(self, request: web.Request, name: str, started: float, trace: Headers) -> web.Response:
        task = self._tasks.get(name)
        if task is None:
            raise Problem(NO_SUCH_TASK, f"no task {name[:60]!r}", expected=f"one of {', '.join(self._tasks)}")
        options = Options.of(request.query, self._deadline_ms)
        body = await _body(request)
        event = self.publishing(event_of(task, body, self._now_ms()))
        partition = partition_for(event["user_id"].encode(), self._partitions)
        passed = self._clock() - started
        if self.asker is not None and partition in self.asker.owned:
            left = options.deadline_ms / 1000 - passed
            score = await self.asker.ask(task, event, partition, left, durable=options.durable, trace=trace)
            if score["fallback"] is not None:
                self._metrics.ask_fallbacks.labels(name).inc()
            return web.Response(body=json.dumps(answer_of(task, score)).encode(), content_type="application/json")
        if FORWARDED in request.headers:
            raise not_ready(partition)
        self._metrics.ask_forwarded.labels(name).inc()
        wait = options.deadline_ms / 1000 - passed + (DURABLE_S if options.durable else 0.0)
        passed_on = self._door.passed_on(request) | {key: value.decode("latin-1") for key, value in trace}
        return await self._peers.forward(
            partition, request.path, body, options.query(passed), passed_on, max(0.0, wait)
        )


async def _body(request: web.Request) -> bytes:
    """Raises Problem. A type that a page's form can send is none: a page of another site must not ask."""
    if request.content_type != "application/json":
        raise Problem(NO_JSON_TYPE, f"it is {request.content_type[:60]}", expected="Content-Type: application/json")
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise Problem(SLOW_BODY, f"the body has not come in {BODY_S:.0f} s") from None
    except web.RequestPayloadError:  # chunks or a compression that are none
        raise Problem(
            NOT_JSON, "the body is not in the encoding that its headers name", expected="a JSON object"
        ) from None
    except web.HTTPRequestEntityTooLarge as error:
        raise Problem(TOO_LARGE, error.text or "it is too large", todo="see max_message_bytes") from None


def _refusal(problem: Problem, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=problem.kind.status, body=problem.text().encode(), content_type=MEDIA_TYPE,
        headers={**problem.headers(), **(headers or {})},
    )  # fmt: skip
