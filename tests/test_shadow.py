"""Shadows: sampled events are asked of another release after they were answered; nothing waits for it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ProduceFailed
from streams.producer import Acknowledged
from streams.shadow import CHUNK, MOST_WAITING, Pairing, difference
from streams.tasks import make_task
from streams.tasks.base import Result
from streams.work import Outgoing
from tests.swap_shop import SwapShop


@pytest.fixture
def place() -> Iterator[SwapShop]:
    """v1 is live and v2 shadows it, for as long as the test likes."""
    made = SwapShop(shadow_events=100_000, shadow_wait_s=1000)
    made.answers["v2"] = 4.0
    made.point("v2")
    made.settle()
    yield made
    made.close()


def test_a_comparison_says_what_both_releases_said(place: SwapShop) -> None:
    [job] = place.serve(3).jobs
    said = place.asked()
    assert [each["event_id"] for each in said] == [event["event_id"] for event in job.events]
    assert [each["target_id"] for each in said] == [event["order_id"] for event in job.events]
    for each in said:
        assert (each["task"], each["live"], each["shadow"]) == ("fraud", "fraud/v1", "fraud/v2")
        assert each["live_prediction"] == pytest.approx([0.5])
        assert each["shadow_prediction"] == pytest.approx([1 / (1 + np.exp(-4.0))], rel=1e-5)
        assert (each["live_decision"], each["shadow_decision"]) == ("review", "block")
        assert (each["live_us"], each["compared_at"]) == (job.infer_us, 77)
        assert each["shadow_us"] > 0
    page = place.metrics.page().decode()
    assert 'headrace_shadow_disagreement{task="fraud"} 1.0' in page


def test_what_was_served_is_untouched_by_the_shadow(place: SwapShop) -> None:
    [job] = place.serve(8).jobs
    before = list(job.results)
    place.asked()
    assert job.results == before
    assert {result.decision for result in before if result} == {"review"}


def test_many_events_are_asked_a_few_at_a_time(place: SwapShop) -> None:
    sizes: list[int] = []
    engine = place.made["v2"]
    answer = engine.answer

    def noted(rows: int, inputs: Any) -> Any:
        sizes.append(rows)
        return answer(rows, inputs)

    engine.answer = noted  # type: ignore[method-assign]  # to see the sizes
    place.serve(2 * CHUNK + 3)
    assert len(place.asked()) == 2 * CHUNK + 3
    assert sizes == [CHUNK, CHUNK, 3]


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(place: SwapShop) -> None:
    for _ in range(5):
        place.serve(64)
    assert len(place.asked()) == MOST_WAITING
    assert place.total("shadow_dropped") == {("fraud",): 5 * 64 - MOST_WAITING}
    assert place.total("shadow_compared") == {("fraud",): MOST_WAITING}


def test_what_a_fallback_or_a_predecessor_answered_is_not_compared(place: SwapShop) -> None:
    work = place.serve(8)
    place.asked()
    [job] = work.jobs
    job = replace(job, fallback=np.arange(8) == 2, said=[{} if number == 5 else None for number in range(8)])
    place.shadows.after(replace(work, jobs=[job]))
    rest = [event["event_id"] for number, event in enumerate(job.events) if number not in (2, 5)]
    assert [each["event_id"] for each in place.asked()] == rest


def test_what_another_release_answered_is_not_compared(place: SwapShop) -> None:
    work = place.serve(8)
    place.asked()
    place.shadows.after(replace(work, jobs=[replace(job, release="fraud/v0") for job in work.jobs]))
    assert place.asked() == []


def test_what_waits_for_a_pairing_that_is_over_is_not_asked(place: SwapShop) -> None:
    place.serve(8)
    place.point("v3")
    place.settle()
    assert place.asked() == []


def test_comparisons_are_sent_as_they_are_made_and_what_is_refused_ends_the_sending(place: SwapShop) -> None:
    lists: list[list[Outgoing]] = []

    class Broker:
        """Acknowledges two lists and refuses the third."""

        def send_all(self, records: list[Outgoing]) -> "asyncio.Future[Acknowledged]":
            lists.append(records)
            future: asyncio.Future[Acknowledged] = asyncio.get_running_loop().create_future()
            if len(lists) < 3:
                future.set_result({})
            else:
                future.set_exception(ProduceFailed("no such topic"))
            return future

    place.serve(60)
    with pytest.raises(ProduceFailed):
        asyncio.run(place.shadows.run(Broker()))  # type: ignore[arg-type]  # all that it is asked for
    assert [len(records) for records in lists] == [CHUNK] * 3


def test_where_nobody_shadows_nothing_is_kept() -> None:
    place = SwapShop()
    place.serve(8)
    assert place.asked() == []
    place.close()


def pairing(share: float, shadow: str = "v1") -> Pairing:
    place = SHOP
    live = place.swaps.slots["fraud"].live
    other = place._load("fraud", shadow)
    return Pairing(make_task("fraud"), live, other, share, float("inf"), float("inf"))


SHOP = SwapShop()


@given(st.text(max_size=20), st.floats(0, 1))
def test_the_sample_is_the_same_at_every_time_and_grows_with_the_share(event_id: str, share: float) -> None:
    drawn = pairing(share).draws(event_id)
    assert pairing(share).draws(event_id) == drawn
    assert not drawn or pairing(1.0).draws(event_id)
    assert not pairing(0.0).draws(event_id)
    if drawn:
        assert pairing(min(1.0, share * 1.5)).draws(event_id)


def test_each_pair_of_releases_has_a_draw_of_its_own() -> None:
    ids = [f"event-{n}" for n in range(4000)]
    one, other = ({ident for ident in ids if pair.draws(ident)} for pair in (pairing(0.2, "v1"), pairing(0.2, "v2")))
    assert len(one) == pytest.approx(800, abs=100)
    assert len(one & other) == pytest.approx(160, abs=60)


@pytest.mark.parametrize(
    ("task", "live", "shadow", "expected"),
    [
        ("fraud", Result({}, [], [0.4], "approve"), Result({}, [], [0.49], "approve"), 0.0),
        ("fraud", Result({}, [], [0.49], "approve"), Result({}, [], [0.51], "review"), 1.0),
        ("ctr", Result({}, ["a", "b"], [0.1, 0.5]), Result({}, ["a", "b"], [0.2, 0.2]), 0.2),
        ("recommendations", Result({}, list("abcd"), [4, 3, 2, 1]), Result({}, list("dxay"), [4, 3, 2, 1]), 0.5),
        ("recommendations", Result({}, [], []), Result({}, [], []), 0.0),
        ("recommendations", Result({}, [], []), Result({}, ["a"], [1]), 1.0),
    ],
)
def test_the_disagreement_is_of_what_the_task_is_used_for(
    task: str, live: Result, shadow: Result, expected: float
) -> None:
    assert difference(make_task(task), live, shadow) == pytest.approx(expected)
