"""A canary: a release serves a share of the users before the others, always the same ones, and goes if it fails."""

from collections.abc import Iterator

import pytest

from engines.slot import Canary
from streams.work import Work
from tests.swap_shop import SwapShop


@pytest.fixture
def place() -> Iterator[SwapShop]:
    """A shop whose v2 serves half of the users, and v1 the others."""
    made = SwapShop(shadow_events=8, shadow_wait_s=60, canary_share=0.5, canary_s=100, sample=1)
    made.point("v2")
    made.settle()
    made.serve(8)
    made.asked()
    made.settle()
    yield made
    made.close()


def served(work: Work) -> dict[str, set[str]]:
    """Users by the release that answered them."""
    found: dict[str, set[str]] = {}
    for job in work.jobs:
        found.setdefault(job.release, set()).update(event["user_id"] for event in job.events)
    return found


def canary(place: SwapShop) -> Canary | None:
    return place.swaps.slots["fraud"].canary


def test_a_share_of_the_users_is_served_by_it_and_always_the_same_ones(place: SwapShop) -> None:
    assert place.live == "v1"
    first, second = served(place.serve(40)), served(place.serve(40))
    assert set(first) == set(second) == {"fraud/v1", "fraud/v2"}
    assert not (first["fraud/v1"] | second["fraud/v1"]) & (first["fraud/v2"] | second["fraud/v2"])


def test_every_event_is_answered_once_by_one_of_them(place: SwapShop) -> None:
    work = place.serve(40)
    assert sorted(number for job in work.jobs for number in job.index.tolist()) == list(range(40))
    assert all(result is not None for job in work.jobs for result in job.results)


def test_the_release_that_serves_the_others_is_asked_of_its_users(place: SwapShop) -> None:
    users = served(place.serve(40))["fraud/v2"]
    found = place.asked()
    assert found
    assert {(each["live"], each["shadow"]) for each in found} == {("fraud/v2", "fraud/v1")}
    assert {each["user_id"] for each in found} <= users


def test_after_its_time_it_serves_all(place: SwapShop) -> None:
    place.now += 99
    place.settle()
    assert (place.live, canary(place) is None) == ("v1", False)
    place.now += 1
    place.settle()
    assert (place.live, place.shadow, canary(place)) == ("v2", "v1", None)
    assert set(served(place.serve(40))) == {"fraud/v2"}


def test_one_that_fails_is_dropped_at_once_and_its_users_are_answered_by_the_live_one(place: SwapShop) -> None:
    place.made["v2"].fails = "no answer"
    work = place.serve(40)
    assert set(served(work)) == {"fraud/v1"}
    assert all(result is not None for job in work.jobs for result in job.results)
    place.settle()
    assert (place.live, canary(place)) == ("v1", None)
    assert place.total("swaps")["fraud", "kept"] == 1
    failures = [each for each in place.asked() if each["failure"]]
    assert {(each["live"], each["shadow"]) for each in failures} == {("fraud/v2", "fraud/v1")}


def test_a_pointer_that_goes_back_ends_it(place: SwapShop) -> None:
    place.point("v1")
    place.settle()
    assert (place.live, canary(place)) == ("v1", None)
    assert set(served(place.serve(40))) == {"fraud/v1"}
    assert place.total("swaps")["fraud", "superseded"] == 1


def test_a_newer_release_takes_its_place(place: SwapShop) -> None:
    place.point("v3")
    place.settle()
    assert canary(place) is None
    place.serve(8)
    place.asked()
    place.settle()
    found = canary(place)
    assert found is not None
    assert found.loaded.release == "v3"


def test_about_the_share_that_was_asked_for_is_served(place: SwapShop) -> None:
    found = canary(place)
    assert found is not None
    few = Canary(found.loaded, 0.1)
    assert 800 < sum(few.serves(f"user-{n}") for n in range(10_000)) < 1200
    assert not any(Canary(found.loaded, 0.0).serves(f"user-{n}") for n in range(100))
