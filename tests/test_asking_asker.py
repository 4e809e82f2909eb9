"""Answers to requests: equal to the stream's, said once, published with the event, and said again to who asks again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from schemas.errors import EngineError, ProduceFailed
from schemas.wire import Decoder
from streams.asking.asker import TOGETHER
from streams.asking.header import ASKED, Seal
from streams.asking.problems import (
    ALREADY_SCORED,
    ANOTHER_EVENT,
    BUSY,
    FAILED,
    NOT_PUBLISHED,
    NOT_READY,
    TOO_LARGE,
    Kind,
    Problem,
)
from streams.work import Work
from tests.asking_shop import Desk, desk
from tests.records import NOON_MS, click, impression, order

EVENTS = {"fraud": order, "recommendations": click, "ctr": impression}
OF_THE_MOMENT = {"scored_at", "served_at", "timings", "cut", "bucket", "row"}


def run(story: Callable[[Desk], Awaitable[None]], **over: Any) -> Desk:
    """The story, beside an asker that runs."""
    at = desk(**over)

    async def main() -> None:
        running = asyncio.ensure_future(at.asker.run())
        try:
            await story(at)
        finally:
            running.cancel()
            await asyncio.wait([running])

    try:
        asyncio.run(main())
    finally:
        at.asker.engines.close()
    return at


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in OF_THE_MOMENT}


async def refused(asked: Awaitable[Any]) -> Kind:
    with pytest.raises(Problem) as caught:
        await asked
    return caught.value.kind


def visits(user: str = "user-1") -> list[tuple[str, dict[str, Any]]]:
    """What is known of a user before."""
    common = {"user_id": user}
    clicks = [
        click(event_id=f"c{n}", item_id=f"item-00000{n}", event_time=NOON_MS - 9_000 + n, **common) for n in range(3)
    ]
    return [
        *(("recommendations", each) for each in clicks),
        ("fraud", order(event_id="o0", order_id="before", event_time=NOON_MS - 100, **common)),
        ("ctr", impression(event_id="i0", event_time=NOON_MS - 50, **common)),
    ]  # fmt: skip


def known(at: Desk) -> None:
    at.loop(*[at.published(name, event) for name, event in visits()])


@pytest.mark.parametrize("name", EVENTS)
def test_an_answer_is_what_the_stream_says_of_the_same_event_in_the_same_state(name: str) -> None:
    event = EVENTS[name](event_id="now", event_time=NOON_MS + 5)
    twin = desk()
    known(twin)
    streamed = twin.said(twin.loop(twin.published(name, event)))

    async def story(at: Desk) -> None:
        known(at)
        score = await at.ask(name, event)
        said = at.said(at.loop(at.record(at.post.sent[0])))
        topics = at.scorer.names.scores[name], at.scorer.names.served[name]
        for topic in topics:
            assert [lasting(record) for record in said[topic]] == [lasting(record) for record in streamed[topic]]
        assert lasting(said[topics[0]][0]) == lasting(dict(score))
        assert said[topics[1]][0]["features"] == streamed[topics[1]][0]["features"]
        assert (said[topics[1]][0]["bucket"], said[topics[1]][0]["row"]) == (1, 0)

    run(story)


def test_asking_absorbs_nothing() -> None:
    async def story(at: Desk) -> None:
        known(at)
        state, parts = at.scorer.state, range(4)
        before = dict(state.snapshot(parts).records())
        await at.ask("fraud", order(event_id="now", event_time=NOON_MS + 5))
        await at.ask("recommendations", click(event_id="new", user_id="nobody-yet"))
        assert sum(state.dirty(partition) for partition in parts) == 0
        place = at.scorer.batch([1], [at.published("fraud", order())], [order()]).partition
        assert state.packed(["user-1"], place) == [before[b"user-1"]]

    run(story)


def test_what_was_answered_is_absorbed_once_and_not_scored_again() -> None:
    async def story(at: Desk) -> None:
        await at.ask("fraud", order(event_id="now"))
        sent = at.record(at.post.sent[0])
        calls = counted(at)
        work = at.loop(sent)
        assert work.absorbed.fresh.tolist() == [True]
        assert calls == []
        assert at.said(work)[at.scorer.names.scores["fraud"]][0]["cut"]["orders"] == sent.offset
        again = at.loop(at.record(at.post.sent[0]))
        assert (again.absorbed.fresh.tolist(), again.jobs) == ([False], [])

    run(story)


def counted(at: Desk) -> list[int]:
    """How many rows each call of an engine has, from now on."""
    calls: list[int] = []
    for slot in at.scorer.slots.values():
        engine = slot.live.engine
        plain = engine.answer

        def answer(rows: int, inputs: Any, plain: Any = plain) -> Any:
            calls.append(rows)
            return plain(rows, inputs)

        engine.answer = answer  # type: ignore[method-assign]  # only here
    return calls


def test_the_cut_on_the_topics_is_what_was_seen_and_the_events_own_offset() -> None:
    async def story(at: Desk) -> None:
        known(at)
        score = await at.ask("fraud", order(event_id="now", event_time=NOON_MS + 5))
        at.loop(at.published("recommendations", click(event_id="between", event_time=NOON_MS + 6)))
        sent = at.record(at.post.sent[0])
        work = at.loop(sent)
        for topic in (at.scorer.names.scores["fraud"], at.scorer.names.served["fraud"]):
            assert at.said(work)[topic][0]["cut"] == {**score["cut"], "orders": sent.offset}
        assert work.absorbed.cut[0].tolist()[0] > score["cut"]["clicks"]

    run(story)


def test_requests_that_wait_go_into_one_call_of_the_engine() -> None:
    async def story(at: Desk) -> None:
        calls = counted(at)
        asked = [
            at.ask("fraud", order(event_id=f"o{n}", order_id=f"{n}", user_id=f"u{n}")) for n in range(TOGETHER + 2)
        ]
        await asyncio.gather(*asked)
        assert sum(calls) == TOGETHER + 2
        assert max(calls) == 8  # the engine's largest bucket
        assert len(calls) <= 4

    run(story)


def test_the_same_event_gets_the_same_answer_and_is_published_once() -> None:
    async def story(at: Desk) -> None:
        event = order(event_id="now")
        first, second = await asyncio.gather(at.ask("fraud", event), at.ask("fraud", event))
        third = await at.ask("fraud", event)
        at.loop(at.record(at.post.sent[0]))
        fourth = await at.ask("fraud", event)
        assert first == second == third == fourth
        assert len(at.post.sent) == 1

    run(story)


def test_another_event_of_the_same_id_is_refused() -> None:
    async def story(at: Desk) -> None:
        both = await asyncio.gather(
            at.ask("fraud", order(event_id="now")),
            refused(at.ask("fraud", order(event_id="now", order_id="another"))),
        )
        assert both[1] is ANOTHER_EVENT
        assert await refused(at.ask("fraud", order(event_id="now", order_id="third"))) is ANOTHER_EVENT
        await at.ask("fraud", order(event_id="now", user_id="another-user"))

    run(story)


def test_an_event_that_came_by_kafka_before_is_not_answered_otherwise() -> None:
    async def story(at: Desk) -> None:
        event = order(event_id="now")
        at.loop(at.published("fraud", event))
        assert await refused(at.ask("fraud", event)) is ALREADY_SCORED
        assert at.post.sent == []

    run(story)


def test_an_event_that_comes_by_kafka_while_it_is_scored_is_not_answered_otherwise() -> None:
    async def story(at: Desk) -> None:
        event = order(event_id="now")
        plain = at.scorer.infer

        def infer(work: Work) -> None:
            plain(work)
            at.scorer.infer = plain  # type: ignore[method-assign]  # only here
            at.loop(at.published("fraud", event))

        at.scorer.infer = infer  # type: ignore[method-assign]  # only here
        assert await refused(at.ask("fraud", event)) is ALREADY_SCORED
        assert at.post.sent == []

    run(story)


def test_an_event_that_also_comes_by_kafka_is_said_as_it_was_answered() -> None:
    async def story(at: Desk) -> None:
        event = order(event_id="now")
        score = await at.ask("fraud", event)
        at.loop(at.published("recommendations", click(event_id="between", event_time=NOON_MS - 1)))
        work = at.loop(at.published("fraud", event))
        [said] = at.said(work)[at.scorer.names.scores["fraud"]]
        assert lasting(said) == lasting(dict(score))
        assert [said["cut"][name] for name in ("clicks", "orders", "impressions")] == work.absorbed.cut[0].tolist()
        assert at.loop(at.record(at.post.sent[0])).jobs == []

    run(story)


def test_another_worker_says_what_this_one_answered() -> None:
    async def story(at: Desk) -> None:
        known(at)
        event = order(event_id="now", event_time=NOON_MS + 5)
        score = await at.ask("fraud", event)
        other = desk()
        other.answers.seal = at.seal
        [said] = other.said(other.loop(other.record(at.post.sent[0])))[at.scorer.names.scores["fraud"]]
        assert lasting(said) == lasting(dict(score))
        other.asker.owned = frozenset(range(4))
        assert lasting(dict(await other.ask("fraud", event))) == lasting(dict(score))
        assert other.post.sent == []
        other.asker.engines.close()

    run(story)


@pytest.mark.parametrize("secret", [b"", b"guess", b"the workers' token"])
def test_a_header_that_no_worker_wrote_is_no_score(secret: bytes) -> None:
    async def story(at: Desk) -> None:
        await at.ask("fraud", order(event_id="now"))

    stranger = run(story, seal=Seal(secret))
    at = desk(seal=Seal(b"the workers' token"))
    calls = counted(at)
    work = at.loop(at.record(stranger.post.sent[0]))
    assert work.absorbed.fresh.tolist() == [True]
    assert calls == ([] if secret == b"the workers' token" else [1])
    at.asker.engines.close()


def test_the_event_is_published_in_the_trace_of_who_asked_and_a_repeat_publishes_nothing_in_another() -> None:
    trace = [("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), ("tracestate", b"shop=1")]

    async def story(at: Desk) -> None:
        await at.ask("fraud", order(event_id="now"), trace=trace)
        await at.ask("fraud", order(event_id="now"), trace=[("traceparent", b"another")])
        [sent] = at.post.sent
        assert sent.headers is not None
        assert sent.headers[1:] == trace
        assert at.seal.read(sent.headers, sent.value) is not None

    run(story)


def test_who_misses_the_deadline_gets_the_fallback_and_the_topics_say_so_too() -> None:
    async def story(at: Desk) -> None:
        loop = asyncio.get_running_loop()
        gate = asyncio.Event()
        turn = loop.run_in_executor(None, at.asker.engines.submit(lambda: loop_wait(gate, loop)).result)
        score = await at.ask("fraud", order(event_id="now"), 0.05)
        assert (score["decision"], score["fallback"], score["reasons"]) == (
            "review",
            "deadline",
            ["not scored in time"],
        )
        gate.set()
        await turn
        await asyncio.sleep(0.05)
        assert len(at.post.sent) == 1
        work = at.loop(at.record(at.post.sent[0]))
        [said] = at.said(work)[at.scorer.names.scores["fraud"]]
        [served] = at.said(work)[at.scorer.names.served["fraud"]]
        assert lasting(said) == lasting(dict(score))
        assert served["fallback"] == "deadline"
        assert any(served["features"])
        assert dict(await at.ask("fraud", order(event_id="now"))) == dict(score)

    run(story)


def loop_wait(gate: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """On the engines' thread: its turn lasts until the gate opens."""
    asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)


def test_durable_waits_for_the_broker_and_other_answers_do_not() -> None:
    async def story(at: Desk) -> None:
        at.post.held = True
        durable = asyncio.ensure_future(at.ask("fraud", order(event_id="now"), durable=True))
        score = await at.ask("fraud", order(event_id="now"))
        await asyncio.sleep(0.02)
        assert not durable.done()
        at.post.acknowledge()
        assert await durable == score

    run(story)


def test_what_the_broker_refuses_is_said_to_who_waits_for_it_and_may_be_asked_again() -> None:
    async def story(at: Desk) -> None:
        at.post.fails = ProduceFailed("no room")
        assert await refused(at.ask("fraud", order(event_id="now"), durable=True)) is NOT_PUBLISHED
        await asyncio.sleep(0)
        at.post.fails = None
        await at.ask("fraud", order(event_id="now"), durable=True)
        assert len(at.post.sent) == 2
        assert at.metrics.total("asked_lost") == {("fraud",): 1.0}

    run(story)


def test_nothing_is_said_for_partitions_that_are_not_owned_or_no_longer() -> None:
    async def story(at: Desk) -> None:
        at.asker.own(())
        assert await refused(at.ask("fraud", order(event_id="now"))) is NOT_READY
        at.asker.own(range(4))
        at.lease.confirmed = False
        assert await refused(at.ask("fraud", order(event_id="now"))) is NOT_READY
        at.lease.confirmed = True
        asked = asyncio.ensure_future(at.ask("fraud", order(event_id="now")))
        await asyncio.sleep(0)
        at.asker.own(())
        assert await refused(asked) is NOT_READY
        assert at.post.sent == []

    run(story)


def test_more_requests_than_may_wait_are_told_to_come_back() -> None:
    async def story(at: Desk) -> None:
        asked = [at.ask("fraud", order(event_id=f"o{n}")) for n in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [each.kind for each in found if isinstance(each, Problem)] == [BUSY]
        await at.ask("fraud", order(event_id="o2"))

    run(story, max_in_flight=2)


def test_an_engine_that_fails_costs_the_request_its_model_and_the_worker_nothing() -> None:
    async def story(at: Desk) -> None:
        def broken(rows: int, inputs: Any) -> Any:
            raise EngineError("it broke")

        at.scorer.slots["fraud"].live.engine.answer = broken  # type: ignore[method-assign]  # only here
        score = await at.ask("fraud", order(event_id="now"))
        assert score["fallback"] == "deadline"
        recommended = await at.ask("recommendations", click(event_id="c"))
        assert recommended["fallback"] is None

    run(story)


def test_what_cannot_be_scored_at_all_is_the_requests_trouble_alone() -> None:
    async def story(at: Desk) -> None:
        plain = at.scorer.tasks[0].fill

        def broken(*_: Any) -> None:
            raise ZeroDivisionError("a task of somebody's")

        at.scorer.tasks[0].fill = broken  # type: ignore[method-assign, assignment]  # only here
        assert await refused(at.ask("fraud", order(event_id="now"))) is FAILED
        at.scorer.tasks[0].fill = plain  # type: ignore[method-assign]  # only here
        await at.ask("fraud", order(event_id="now"))

    run(story)


def test_a_request_that_cannot_be_scored_spoils_no_other() -> None:
    async def story(at: Desk) -> None:
        fraud = at.task("fraud")
        plain = fraud.fill

        def broken(rows: Any, events: Any, context: Any) -> None:
            if any(event["order_id"] == "bad" for event in events):
                raise ZeroDivisionError("a task of somebody's")
            plain(rows, events, context)

        fraud.fill = broken  # type: ignore[method-assign]  # only here
        asked = [at.ask("fraud", order(event_id=name, order_id=name)) for name in ("one", "bad", "two")]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [getattr(each, "kind", None) for each in found] == [None, FAILED, None]

    run(story)


def test_an_event_that_no_topic_would_take_with_its_answer_is_refused() -> None:
    async def story(at: Desk) -> None:
        event = order(event_id="now", order_id="x" * 600_000)
        assert await refused(at.ask("fraud", event)) is TOO_LARGE
        assert at.post.sent == []

    run(story)


def test_a_client_that_hangs_up_changes_nothing() -> None:
    async def story(at: Desk) -> None:
        asked = asyncio.ensure_future(at.ask("fraud", order(event_id="now")))
        await asyncio.sleep(0)
        asked.cancel()
        while not at.post.sent:
            await asyncio.sleep(0.01)
        score = await at.ask("fraud", order(event_id="now"))
        [said] = at.said(at.loop(at.record(at.post.sent[0])))[at.scorer.names.scores["fraud"]]
        assert lasting(said) == lasting(dict(score))

    run(story)


def test_the_header_holds_the_score_as_its_topic_does() -> None:
    async def story(at: Desk) -> None:
        score = await at.ask("ctr", impression(event_id="now"))
        [(name, content)] = at.post.sent[0].headers or []
        answer = at.seal.read([(name, content)], at.post.sent[0].value)
        assert name == ASKED
        assert answer is not None
        assert Decoder(at.registry, "ctr_score")(answer.score) == score
        assert at.seal.read([(name, content)], b"another value") is None
        for cut in range(len(content)):
            assert at.seal.read([(name, content[:cut])], at.post.sent[0].value) is None

    run(story)
