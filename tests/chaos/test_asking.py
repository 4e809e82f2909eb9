"""Answers to requests while workers come, go and die: the topics say what was answered, or nothing of it."""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from streams.asking.header import asked
from streams.local import LocalBroker
from tests import shop
from tests.askers import as_answered, checkout, post, published, said, until_answered
from tests.chaos.harness import PATIENT, Crew, Stream, crew, crowd, kill, seed

pytestmark = pytest.mark.slow


def test_requests_beside_the_stream_through_a_rebalance_say_what_the_topics_say(shop_settings, tmp_path):
    """A second worker joins and goes while clients ask: each answer is on the topics, once, and nothing else is."""
    settings = shop_settings(ask={"deadline_ms": 20_000, "without_token": True})
    users = [f"user-{n}" for n in range(12)]
    with crew(settings, tmp_path) as group:
        one = group.start("a")
        answers: dict[str, dict[str, Any]] = {}

        def ask(number: int) -> None:
            user = users[number % len(users)]
            event = checkout(user, f"n{number}", number)
            answers[event["event_id"]] = until_answered(group.workers[0], "fraud", event)

        with ThreadPoolExecutor(4) as clients:
            done = [clients.submit(ask, number) for number in range(60)]
            two = group.start("b")
            done += [clients.submit(ask, number) for number in range(60, 120)]
            time.sleep(2)
            assert two.end() == 0
            done += [clients.submit(ask, number) for number in range(120, 160)]
            for each in done:
                each.result()
        assert len(answers) == 160
        shop.wait_for(lambda: len({s["event_id"] for s in shop.scores(settings, "fraud")}) == 160, 60, group.logs)
        for score in shop.scores(settings, "fraud"):
            assert as_answered("fraud", score) == answers[score["event_id"]]
        assert one.end() == 0, group.logs()[-3000:]


def test_every_durable_answer_is_on_the_topics_whatever_kills_the_worker(shop_settings, tmp_path):
    """Clients that come back until they are answered, beside a stream of the same users; the worker dies thrice."""
    rng = random.Random(seed())
    settings, sent = shop_settings(ask={"deadline_ms": 20_000, "without_token": True}), crowd(rng, 2000)
    answers: dict[str, dict[str, Any]] = {}
    ended = threading.Event()
    with crew(settings, tmp_path) as group:
        group.start()

        def ask(client: int) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                time.sleep(0.02)
                event = checkout(f"user-{rng.randrange(40)}", f"{client}-{number}", 700 * number)
                if (answer := persistently(group, event)) is not None:
                    answers[event["event_id"]] = answer

        with ThreadPoolExecutor(3) as clients, Stream(settings, sent, rate=100) as stream:
            asking = [clients.submit(ask, client) for client in range(3)]
            for _ in range(3):
                time.sleep(rng.uniform(1.0, 4.0))
                kill(group.workers[-1])
                group.start()
            stream.join()
            ended.set()
            for each in asking:
                each.result()
        group.finish()
        scores = shop.scores(settings, "fraud")
        said_of: dict[str, list[dict[str, Any]]] = {}
        for score in scores:
            said_of.setdefault(score["event_id"], []).append(as_answered("fraud", score))
        print("answers:", len(answers), "scores:", len(scores), "half said:", group.half_said())
        assert len(answers) > 20
        wrong = [event for event, answer in answers.items() if any(one != answer for one in said_of.get(event, [{}]))]
        assert not wrong, wrong[:5]
        served_ids = {record["event_id"] for record in shop.read(settings, settings.topics.served_fraud, "served")}
        assert said_of.keys() == served_ids
        assert group.workers[-1].end() == 0


def persistently(group: Crew, event: dict[str, Any]) -> dict[str, Any] | None:
    """The answer, from whatever worker there is; None where the event has been scored and the answer was lost."""
    while True:
        try:
            status, body = post(group.workers[-1], "fraud", event, "?durable=true")
        except OSError:
            time.sleep(0.1)
            continue
        if status == 200:
            return body
        assert status in (409, 503, 504), body
        if status == 409:
            assert body["type"] == "urn:headrace:problem:already-scored", body
            return None
        time.sleep(0.05)


def test_an_answer_whose_worker_is_killed_is_on_the_topics_or_nothing_is(fresh_settings, registry, tmp_path):
    """The broker stands still, so the event cannot be acknowledged; the answer goes out, and the worker is killed."""
    broker = LocalBroker(tmp_path / "kafka", outlive=False)
    broker.start()
    try:
        store, _ = shop.releases()
        settings = fresh_settings(
            brokers=broker.address, release_store=store, deadlines_ms=PATIENT, session_timeout_s=10.0,
            ask={"deadline_ms": 20_000, "without_token": True}, state={"flush_interval_s": 0.5},
        )  # fmt: skip
        shop.furnish(settings)
        with crew(settings, tmp_path) as group:
            worker = group.start("a")
            sure = until_answered(worker, "fraud", checkout("user-1", "sure", 0), "?durable=true")
            pid = broker.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            try:
                answer = post(worker, "fraud", checkout("user-1", "lost", 10))
                kill(worker)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert answer.status == 200, answer
            successor = group.start("b")
            again = until_answered(successor, "fraud", checkout("user-1", "lost", 10))
            shop.wait_for(lambda: len(shop.scores(settings, "fraud")) >= 2, 60, group.logs)
            on_the_topic = [m for m in published(settings, "fraud") if asked(m.headers() or ())]
            lost = [m for m in on_the_topic if b"user-1-lost" in m.value()]
            print("the same answer:", again == answer.body)
            assert len(lost) == 1  # either it came through, and is answered as it was, or it is asked about anew
            scores = {event: said(settings, "fraud", f"user-1-{event}") for event in ("sure", "lost")}
            assert {as_answered("fraud", score)["probability"] for score in scores["sure"]} == {sure["probability"]}
            assert scores["lost"]
            assert all(as_answered("fraud", score) == again for score in scores["lost"])
            assert successor.end() == 0
    finally:
        broker.stop()
