"""Requests for scores on a real broker: two workers, one answer; what is answered is what the topics say."""

import json
import socket
import time
import urllib.request
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has none

from schemas.values import to_json
from streams.access.accounts import Accounts
from streams.asking.header import asked
from streams.partitioning import partition_for
from streams.ports import free_port
from streams.tasks.fraud import COLUMN, Fraud
from tests import shop
from tests.askers import (
    TASKS,
    as_answered,
    both_at_work,
    checkout,
    history,
    now_of,
    one_of_each_partition,
    post,
    published,
    said,
    served,
    total,
    until_answered,
)  # fmt: skip
from tests.chaos.harness import PATIENT, Crew, crew


@pytest.fixture
def settings(fresh_settings, registry):
    store, _ = shop.releases()
    made = fresh_settings(
        release_store=store,
        deadlines_ms=PATIENT,
        session_timeout_s=6.0,
        ask={"deadline_ms": 20_000, "without_token": True},
    )
    shop.furnish(made)
    return made


def test_two_workers_answer_for_each_others_users_as_the_stream_would(settings, tmp_path):
    users = one_of_each_partition()
    twins = [next(f"{user}x{n}" for n in range(99) if same_place(user, f"{user}x{n}")) for user in users]
    with crew(settings, tmp_path) as group:
        one, two = group.start("a"), group.start("b")
        both_at_work(group)
        shop.publish(settings, [event for name in (*users, *twins) for event in history(name)])
        shop.wait_for(lambda: len(shop.scores(settings, "recommendations")) == 16, 60, group.logs)
        shop.wait_for(lambda: len(shop.scores(settings, "ctr")) == 4, 60, group.logs)
        shop.wait_for(lambda: len(shop.scores(settings, "fraud")) == 4, 60, group.logs)
        document = described(one)
        for task in TASKS:  # one after the other: what came before is in the features of the next
            answers = {user: until_answered(one, task, now_of(task, user)) for user in users}
            for user in users:
                assert until_answered(two, task, now_of(task, user)) == answers[user]
                check(document, task, answers[user])
            shop.publish(settings, [(TASKS[task][0], now_of(task, twin)) for twin in twins])
            for user, twin in zip(users, twins, strict=True):
                same_on_the_topics(settings, group, task, user, twin, answers[user])
            sent = [message for message in published(settings, task) if asked(message.headers() or ())]
            assert sorted(m.key().decode() for m in sent) == sorted(users)
        assert min(total(worker, "headrace_ask_forwarded") for worker in (one, two)) >= 3
        alerts = {alert["order_id"] for alert in shop.read(settings, settings.topics.alerts, "fraud_alert")}
        held = {score["order_id"] for score in shop.scores(settings, "fraud") if score["decision"] != "approve"}
        shop.wait_for(
            lambda: {a["order_id"] for a in shop.read(settings, settings.topics.alerts, "fraud_alert")} == held
        )
        assert alerts <= held
        assert [worker.end() for worker in group.workers] == [0, 0], group.logs()[-3000:]


def same_place(user: str, other: str) -> bool:
    return partition_for(user.encode(), 2) == partition_for(other.encode(), 2)


def same_on_the_topics(settings, group: Crew, task: str, user: str, twin: str, answer: dict[str, Any]) -> None:
    """The score is the answer, once; what it was made from are the bytes that the twin's was, who was streamed."""
    event_id, other = f"{user}-now", f"{twin}-now"
    for name in (event_id, other):
        shop.wait_for(lambda name=name: served(settings, task, name), 30, group.logs)
    [score], [twins] = said(settings, task, event_id), said(settings, task, other)
    assert as_answered(task, score) == answer
    [record], [streamed] = served(settings, task, event_id), served(settings, task, other)
    assert record["features"] == streamed["features"]
    assert record["cut"] == score["cut"]
    assert record["prediction"] == pytest.approx(streamed["prediction"], abs=0.02)  # bf16, in another bucket
    for name in ("late", "fallback", "release", "engine"):
        assert score[name] == twins[name], name
    assert (record["bucket"], record["row"]) != (0, 0)


def described(worker: shop.WorkerProcess) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.settings.web.port}/openapi.json", timeout=5) as page:
        found: dict[str, Any] = json.load(page)
    return found


def check(document: dict[str, Any], task: str, body: dict[str, Any], status: int = 200) -> None:
    """A real answer against the document."""
    content = document["paths"][f"/v1/score/{task}"]["post"]["responses"][str(status)]["content"]
    [media] = content.values()
    schema = document["components"]["schemas"][media["schema"]["$ref"].rpartition("/")[2]]
    Draft202012Validator(schema).validate(body)


def test_what_was_asked_about_counts_once_and_repeats_are_told_apart(settings, tmp_path):
    user = "user-1"
    with crew(settings, tmp_path) as group:
        worker = group.start("a")
        document = described(worker)
        first = until_answered(worker, "fraud", checkout(user, "one", 0), "?durable=true")
        shop.wait_for(lambda: said(settings, "fraud", f"{user}-one"), 30, group.logs)
        assert post(worker, "fraud", checkout(user, "one", 0)) == (200, first)
        refused = post(worker, "fraud", checkout(user, "one", 1))
        assert (refused.status, refused.body["type"]) == (409, "urn:headrace:problem:another-event")
        check(document, "fraud", refused.body, 409)

        shop.publish(settings, [("orders", checkout(user, "one", 0)), ("orders", checkout(user, "two", 10))])
        shop.wait_for(lambda: said(settings, "fraud", f"{user}-two"), 30, group.logs)
        refused = post(worker, "fraud", checkout(user, "two", 10))
        assert (refused.status, refused.body["type"]) == (409, "urn:headrace:problem:already-scored")

        refused = post(worker, "fraud", checkout("", "three", 0))
        assert (refused.status, refused.body["field"]) == (422, "user_id")
        check(document, "fraud", refused.body, 422)

        until_answered(worker, "fraud", checkout(user, "four", 20))
        shop.wait_for(lambda: served(settings, "fraud", f"{user}-four"), 30, group.logs)
        assert orders_before(settings, f"{user}-four") == 2
        assert [len(said(settings, "fraud", f"{user}-{name}")) for name in ("one", "two", "four")] == [1, 1, 1]
        assert sum(bool(asked(m.headers() or ())) for m in published(settings, "fraud")) == 2
        assert worker.end() == 0


def orders_before(settings, event_id: str) -> int:
    """How many orders the features of a score had counted."""
    [record] = served(settings, "fraud", event_id)
    row = np.frombuffer(record["features"], Fraud.features)
    return round(float(np.expm1(row["fields"][0, COLUMN["orders"]])))


def test_who_misses_the_deadline_gets_the_fallback_and_so_do_the_topics(settings, tmp_path):
    with crew(settings, tmp_path) as group:
        worker = group.start("a")
        until_answered(worker, "fraud", checkout("user-1", "first", 0))
        answer = slowly(worker, "fraud", checkout("user-1", "late", 10), "?deadline_ms=20&durable=true")
        assert (answer["fallback"], answer["decision"]) == ("deadline", "review")
        shop.wait_for(lambda: served(settings, "fraud", "user-1-late"), 30, group.logs)
        [score], [record] = said(settings, "fraud", "user-1-late"), served(settings, "fraud", "user-1-late")
        assert as_answered("fraud", score) == answer
        assert (record["fallback"], record["decision"]) == ("deadline", "review")
        shop.wait_for(lambda: shop.read(settings, settings.topics.alerts, "fraud_alert"), 30, group.logs)
        assert total(worker, "headrace_ask_fallbacks") == 1


def slowly(worker: shop.WorkerProcess, task: str, event: dict[str, Any], query: str) -> dict[str, Any]:
    """The body comes in two pieces: when it is whole, the deadline is over."""
    body = json.dumps(to_json(TASKS[task][1], event)).encode()
    head = (
        f"POST /v1/score/{task}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", worker.settings.web.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:10])
        time.sleep(0.2)
        connection.sendall(body[10:])
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def test_a_worker_answers_who_has_a_token_and_nobody_else(settings, tmp_path):
    web = settings.web.model_copy(update={"host": "0.0.0.0", "port": free_port()})
    ask = settings.ask.model_copy(update={"without_token": False})
    made = settings.model_copy(update={"web": web, "ask": ask})
    with closing(Accounts(made)) as accounts:
        by: Any = {"by": "shell:root", "now_ms": time.time_ns() // 1_000_000}
        accounts.users.add("checkout", "operator", None, **by)
        _, token = accounts.tokens.make("checkout", "", days=1, only=["score"], **by)
    with shop.worker(made, tmp_path / "worker.log") as worker:
        refused = post(worker, "fraud", checkout("user-1", "now", 0))
        assert (refused.status, refused.body["type"]) == (401, "urn:headrace:problem:no-token")
        answer = until_answered(worker, "fraud", checkout("user-1", "now", 0), token=token)
        assert answer["order_id"] == "user-1-now"
