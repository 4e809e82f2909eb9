"""The pages over HTTP: who may ask, what is refused and how, and the way of a request to its user's worker."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has none

from schemas.values import to_json
from streams.access.roles import ROLES, Identity
from streams.asking.document import document
from streams.asking.door import FORWARDED, Door, is_loopback
from streams.asking.pages import Pages
from streams.asking.peers import Peers, own_url
from streams.asking.problems import MEDIA_TYPE, Problem, not_ready
from streams.config_sections import Web
from streams.events import Record
from streams.metrics import Metrics
from streams.partitioning import partition_for
from streams.ports import free_port
from streams.privacy.pseudonyms import Pseudonyms
from streams.tasks import TASKS, make_task
from streams.tasks.base import Task
from streams.telemetry.context import Headers
from streams.web import Server
from tests.records import NOON_MS, order

TASK_LIST = [make_task(name) for name in TASKS]
PARTITIONS = 2
ORDER = to_json("order", order())
SCORE: dict[str, Any] = {
    "event_id": "event-1", "user_id": "user-1", "event_time": NOON_MS, "scored_at": NOON_MS, "release": "fraud/1",
    "engine": "x", "late": False, "fallback": None, "timings": {"queue_us": 0, "infer_us": 9},
    "cut": {"clicks": 3, "orders": -1, "impressions": 2}, "order_id": "1", "probability": 0.25,
    "decision": "approve", "reasons": [], "policy_version": "", "decided_by": "", "rules": [], "expected_loss": None,
    "propensity": 1.0, "otherwise": None,
}  # fmt: skip


@dataclass
class Desk:
    """An asker of which only the pages' side is there."""

    owned: frozenset[int] = frozenset(range(PARTITIONS))
    asked: list[tuple[str, str, float, bool]] = field(default_factory=list)
    placed: list[tuple[str, int]] = field(default_factory=list)
    traces: list[Headers] = field(default_factory=list)
    waits_s: float = 0.0
    raises: Exception | None = None

    async def ask(
        self, task: Task, event: Record, partition: int, deadline_s: float, *, durable: bool, trace: Headers
    ) -> Record:
        self.traces.append(trace)
        self.asked.append((task.name, event["event_id"], deadline_s, durable))
        self.placed.append((event["user_id"], partition))
        await asyncio.sleep(self.waits_s)
        if self.raises is not None:
            raise self.raises
        return SCORE


KNOWN = {f"headrace_{role}": Identity(f"robot.{role}", role) for role in ROLES} | {
    "headrace_narrow": Identity("robot.admin", "admin", only=("score",)),
    "headrace_other": Identity("robot.admin", "admin", only=("see", "release")),
}
"""Who there is, by token."""


async def known(token: str) -> Identity | None:
    return KNOWN.get(token)


async def nobody(token: str) -> Identity | None:
    return None


@asynccontextmanager
async def serving(
    desk: Desk | None,
    *,
    door: Door | None = None,
    shares: Mapping[str, Any] | None = None,
    publishing: Callable[[dict[str, Any]], dict[str, Any]] = lambda event: event,
) -> AsyncIterator[str]:
    """Without a door of its own programs of this machine may ask."""
    peers = Peers("orders", lambda: shares or {})
    door = door or Door(nobody, "127.0.0.1", without_token=True)
    pages = Pages(TASK_LIST, door, peers, Metrics(), partitions=PARTITIONS, deadline_ms=250)
    pages.publishing = publishing
    pages.asker = desk  # type: ignore[assignment]  # a stand-in
    app = web.Application(client_max_size=10_000)
    pages.add_to(app)
    async with Server(app, Web(port=0)) as server:
        peers.own = f"http://127.0.0.1:{server.port}"
        try:
            yield peers.own
        finally:
            await peers.close()


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


CONTEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]


async def post(
    url: str, body: Any = ORDER, *, task: str = "fraud", query: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/score/{task}{query}", data=data, headers=sent) as answer,
    ):
        found = Answer(answer.status, answer.headers, json.loads(await answer.read()))
    held_to_the_document(found, task)
    return found


def held_to_the_document(answer: Answer, task: str) -> None:
    """Every answer is one that the document describes."""
    made = document(TASK_LIST, 250)
    name = task if task in TASKS else "fraud"
    described = made["paths"][f"/v1/score/{name}"]["post"]["responses"][str(answer.status)]["content"]
    kind = answer.headers["Content-Type"].partition(";")[0]
    schema = described[kind]["schema"]["$ref"].rpartition("/")[2]
    Draft202012Validator(made["components"]["schemas"][schema]).validate(answer.body)


def told(story: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await story()

    return asyncio.run(main())


def one(body: Any = ORDER, *, desk: Desk | None = None, door: Door | None = None, **over: Any) -> Answer:
    async def story() -> Answer:
        async with serving(desk or Desk(), door=door) as url:
            return await post(url, body, **over)

    found: Answer = told(story)
    return found


def test_a_score_is_the_answer_without_its_cut() -> None:
    desk = Desk()
    answer = one(desk=desk)
    assert answer.status == 200
    assert answer.body["probability"] == 0.25
    assert "cut" not in answer.body
    [(task, event_id, deadline_s, durable)] = desk.asked
    assert (task, event_id, durable) == ("fraud", "event-1", False)
    assert 0.2 < deadline_s <= 0.25


def test_who_is_asked_about_is_placed_by_the_name_that_is_published() -> None:
    desk, known = Desk(), Pseudonyms(("user_id",), {"1": b"k" * 32})

    async def story() -> None:
        async with serving(desk, publishing=known.published) as url:
            for number in range(8):
                assert (await post(url, ORDER | {"user_id": f"user-{number}"})).status == 200

    told(story)
    names = [known.user(f"user-{number}") for number in range(8)]
    assert desk.placed == [(name, partition_for(name.encode(), PARTITIONS)) for name in names]


def test_options_are_the_requests_own() -> None:
    desk = Desk()
    assert one(desk=desk, query="?deadline_ms=4000&durable=true").status == 200
    assert 3.5 < desk.asked[0][2] <= 4
    assert desk.asked[0][3]


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({}, []),
        ({"traceparent": CONTEXT}, [("traceparent", CONTEXT.encode())]),
        (
            {"Traceparent": CONTEXT, "tracestate": "shop=1, other=x:y"},
            [("traceparent", CONTEXT.encode()), ("tracestate", b"shop=1, other=x:y")],
        ),
        ({"traceparent": CONTEXT, "tracestate": "no state"}, [("traceparent", CONTEXT.encode())]),
        ({"traceparent": CONTEXT[:-1], "tracestate": "shop=1"}, []),
        ({"tracestate": "shop=1"}, []),
    ],
)
def test_a_request_belongs_to_the_trace_that_its_headers_name_and_a_bad_one_is_no_reason_to_refuse_it(
    headers: dict[str, str], trace: Headers
) -> None:
    desk = Desk()
    assert one(desk=desk, headers=headers).status == 200
    assert desk.traces == [trace]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("?deadline_ms=0", "deadline_ms"),
        ("?deadline_ms=-1", "deadline_ms"),
        ("?deadline_ms=60001", "deadline_ms"),
        ("?deadline_ms=1e3", "deadline_ms"),
        ("?deadline_ms=", "deadline_ms"),
        ("?deadline_ms=" + "9" * 100, "deadline_ms"),
        ("?deadline_ms=%D9%A3", "deadline_ms"),
        ("?durable=yes", "durable"),
        ("?dead_line_ms=5", "dead_line_ms"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(query: str, name: str) -> None:
    desk = Desk()
    answer = one(desk=desk, query=query)
    assert (answer.status, answer.body["field"]) == (400, name)
    assert desk.asked == []


@pytest.mark.parametrize(
    ("over", "status", "kind"),
    [
        ({"task": "weather"}, 404, "no-such-task"),
        ({"body": b"{"}, 400, "not-json"),
        ({"body": b" " * 20_000}, 413, "too-large"),
        ({"body": ORDER | {"amount": -1}}, 422, "bad-event"),
        ({"headers": {"Content-Type": "text/plain"}}, 415, "no-json-type"),
        ({"headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 415, "no-json-type"),
        ({"headers": {"Host": "shop.example"}}, 403, "closed"),
        ({"headers": {"Host": "127.0.0.1.shop.example:80"}}, 403, "closed"),
        ({"headers": {"Authorization": "Bearer wrong"}}, 401, "no-token"),
        ({"door": Door(known, "127.0.0.1")}, 401, "no-token"),
        ({"door": Door(known, "127.0.0.1"), "headers": bearing("wrong")}, 401, "no-token"),
        ({"door": Door(known, "127.0.0.1"), "headers": {"Authorization": "Basic headrace_admin"}}, 401, "no-token"),
        ({"door": Door(known, "127.0.0.1"), "headers": {"Authorization": "headrace_admin"}}, 401, "no-token"),
        ({"door": Door(known, "127.0.0.1"), "headers": {FORWARDED: "1"}}, 401, "no-token"),
        ({"door": Door(known, "127.0.0.1", key="k"), "headers": {FORWARDED: "1 00"}}, 401, "no-token"),
        ({"door": Door(known, "127.0.0.1"), "headers": bearing("headrace_viewer")}, 403, "not-yours"),
        ({"door": Door(known, "127.0.0.1"), "headers": bearing("headrace_other")}, 403, "not-yours"),
        ({"desk": Desk(raises=not_ready(1))}, 503, "not-ready"),
        ({"desk": Desk(raises=ZeroDivisionError("a fault"))}, 500, "failed"),
    ],
)
def test_what_is_refused_is_a_problem_of_its_kind(over: dict[str, Any], status: int, kind: str) -> None:
    desk = over.setdefault("desk", Desk())
    answer = one(**over)
    assert (answer.status, answer.body["type"]) == (status, f"urn:headrace:problem:{kind}")
    assert answer.headers["Content-Type"] == MEDIA_TYPE
    assert desk.asked == [] or desk.raises
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_another_method_is_refused_and_the_right_one_named() -> None:
    async def story() -> tuple[int, str | None, str]:
        async with serving(Desk()) as url, aiohttp.ClientSession() as http, http.get(f"{url}/v1/score/fraud") as answer:
            return answer.status, answer.headers.get("Allow"), answer.content_type

    assert told(story) == (405, "POST", MEDIA_TYPE)


def test_the_document_is_there() -> None:
    async def story() -> Any:
        async with serving(None) as url, aiohttp.ClientSession() as http, http.get(f"{url}/openapi.json") as answer:
            return await answer.json()

    assert told(story) == document(TASK_LIST, 250)


def test_a_worker_that_is_starting_says_so() -> None:
    async def story() -> Answer:
        async with serving(None) as url:
            return await post(url)

    answer = told(story)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


# -- from worker to worker -------------------------------------------------------------------------------------


def place_of(user: str = "user-1") -> int:
    return partition_for(user.encode(), PARTITIONS)


def forwarded(owner: Desk | None, *, query: str = "", shares: Any = None, **over: Any) -> Answer:
    """What a worker that owns nothing answers; `owner` answers for it, at the address that `shares` gets."""

    async def story() -> Answer:
        async with serving(owner, door=over.get("owners")) as there:
            found = shares(there) if shares else {there: {"orders": [place_of()]}}
            async with serving(Desk(owned=frozenset()), shares=found, door=over.get("door")) as here:
                found.setdefault(here, {"orders": []})
                return await post(here, query=query, headers=over.get("headers"))

    answer: Answer = told(story)
    return answer


def test_a_request_for_another_workers_user_is_answered_by_that_worker() -> None:
    owner = Desk()
    answer = forwarded(owner, query="?deadline_ms=2000&durable=true")
    assert (answer.status, answer.body["probability"]) == (200, 0.25)
    [(task, event_id, deadline_s, durable)] = owner.asked
    assert (task, event_id, durable) == ("fraud", "event-1", True)
    assert 1.5 < deadline_s <= 2


def test_a_request_that_is_sent_on_stays_in_its_trace() -> None:
    owner = Desk()
    assert forwarded(owner, headers={"traceparent": CONTEXT, "tracestate": "shop=1"}).status == 200
    assert owner.traces == [[("traceparent", CONTEXT.encode()), ("tracestate", b"shop=1")]]


def test_a_problem_of_the_owner_is_passed_on_as_it_is() -> None:
    answer = forwarded(Desk(raises=Problem(not_ready(1).kind, "of the owner")))
    assert (answer.status, answer.body["detail"], answer.headers["Retry-After"]) == (503, "of the owner", "1")


def test_without_a_key_the_token_is_passed_on() -> None:
    owner, door = Desk(), Door(known, "127.0.0.1")
    assert forwarded(owner, door=door, owners=door, headers=bearing("headrace_operator")).status == 200
    assert len(owner.asked) == 1


@pytest.mark.parametrize(("keys", "later_s", "status"), [("kk", 30, 200), ("kk", 90, 401), ("kx", 0, 401)])
def test_with_a_key_the_owner_believes_the_worker_and_not_the_token(keys: str, later_s: float, status: int) -> None:
    """Where the owner has no accounts."""
    door = Door(known, "0.0.0.0", key=keys[0], clock=lambda: 1_000.0)
    owners = Door(nobody, "0.0.0.0", key=keys[1], clock=lambda: 1_000.0 + later_s)
    assert forwarded(Desk(), door=door, owners=owners, headers=bearing("headrace_operator")).status == status


def test_a_request_is_forwarded_once_at_most() -> None:
    """Two workers that each take the other for the owner, as in the middle of a rebalance."""

    async def story() -> Answer:
        shares: dict[str, Any] = {}
        async with serving(Desk(owned=frozenset())) as there:
            shares[there] = {"orders": [place_of()]}
            async with serving(Desk(owned=frozenset()), shares=shares) as here:
                return await post(here, headers={FORWARDED: "1"})

    assert told(story).status == 503
    assert forwarded(Desk(owned=frozenset())).status == 503


@pytest.mark.parametrize(
    "shares",
    [
        lambda there: {},
        lambda there: {there: {"orders": [1 - place_of()]}},
        lambda there: {there: {"clicks": [place_of()]}},
        lambda there: {f"http://127.0.0.1:{free_port()}": {"orders": [place_of()]}},
    ],
    ids=["nobody", "another partition", "another topic", "an owner that is gone"],
)
def test_while_nobody_can_answer_the_client_is_told_to_come_back(shares: Any) -> None:
    answer = forwarded(Desk(), shares=shares)
    assert (answer.status, answer.body["type"], answer.headers["Retry-After"]) == (
        503, "urn:headrace:problem:not-ready", "1",
    )  # fmt: skip


def test_an_owner_that_does_not_answer_in_time_leaves_it_open_what_was_scored() -> None:
    answer = forwarded(Desk(waits_s=3), query="?deadline_ms=50")
    assert (answer.status, answer.body["type"]) == (504, "urn:headrace:problem:no-answer")


def test_the_address_of_a_worker_is_as_set_or_where_it_listens() -> None:
    assert own_url("", "127.0.0.1", 6066) == "http://127.0.0.1:6066"
    assert own_url("", "::1", 6066) == "http://[::1]:6066"
    assert own_url("", "10.1.2.3", 6066) == "http://10.1.2.3:6066"
    assert own_url("http://worker-3:80", "0.0.0.0", 6066) == "http://worker-3:80"
    assert "0.0.0.0" not in own_url("", "0.0.0.0", 6066)


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False),
     ("10.0.0.1", False), ("localhost.shop.example", False)],
)  # fmt: skip
def test_what_is_of_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_of_each_ad_the_document_says_that_an_order_after_a_click_may_be_unknown() -> None:
    ads = document(TASK_LIST, 250)["components"]["schemas"]["ctr_score"]["properties"]["ads"]
    conversion = ads["items"]["properties"]["conversion"]
    assert "null" in json.dumps(conversion)
    assert "number" in json.dumps(conversion)
