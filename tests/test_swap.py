"""Swaps: a new release is built beside the live one, shadows it, and then serves; what is wrong with one is said."""

import asyncio
import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import EngineError
from streams.config import Settings
from streams.ports import free_port
from streams.priority import NICENESS, step_back
from streams.worker import Worker
from tests import shop
from tests.records import NOON_MS, click, order
from tests.swap_shop import SwapShop

Make = Callable[..., SwapShop]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[SwapShop] = []

    def one(**over: Any) -> SwapShop:
        made.append(SwapShop(**over))
        return made[-1]

    yield one
    for each in made:
        each.close()


def shadowing(make: Make, **over: Any) -> SwapShop:
    """A shop whose v2 shadows the live v1."""
    place = make(**{"shadow_events": 20, "shadow_wait_s": 60, **over})
    place.point("v2")
    place.settle()
    assert (place.live, place.shadow) == ("v1", "v2")
    return place


def test_the_first_release_of_a_task_serves_at_once(make: Make) -> None:
    place = make(stagger=30)
    assert (place.live, place.shadow) == ("v1", None)
    assert place.total("swaps") == {("fraud", "live"): 1}


def test_of_the_pointers_read_at_the_start_only_the_newest_is_built() -> None:
    place = SwapShop(first=None)
    place.swaps._started = False
    for version in ("v1", "v2", "v3"):
        place.point(version)
    place.settle()
    assert place.opened == []
    place.swaps.start()
    place.swaps.start()
    place.settle()
    assert (place.opened, place.live) == (["v3"], "v3")
    assert place.total("swaps") == {("fraud", "live"): 1}
    place.close()


def test_a_release_serves_after_it_has_shadowed_enough_events(make: Make) -> None:
    place = shadowing(make)
    for _ in range(2):
        assert {job.release for job in place.serve(8).jobs} == {"fraud/v1"}
        place.asked()
        place.settle()
        assert place.live == "v1"
    place.serve(8)
    said = place.asked()
    assert [(each["live"], each["shadow"], each["failure"]) for each in said] == [("fraud/v1", "fraud/v2", None)] * 4
    place.settle()
    assert (place.live, place.shadow) == ("v2", "v1")
    assert {job.release for job in place.serve(8).jobs} == {"fraud/v2"}
    assert place.total("swaps") == {("fraud", "live"): 2}
    assert place.total("shadow_compared") == {("fraud",): 20}


def test_in_a_quiet_shop_it_serves_after_the_wait(make: Make) -> None:
    place = shadowing(make, shadow_wait_s=20)
    place.now += 19
    place.settle()
    assert place.live == "v1"
    place.now += 1
    place.settle()
    assert place.live == "v2"


def test_without_shadow_events_it_serves_when_it_is_ready(make: Make) -> None:
    place = make(shadow_events=0)
    place.point("v2")
    place.settle()
    assert place.live == "v2"


def test_what_falls_out_of_a_slot_is_freed_by_who_builds_and_not_in_the_engines_turn(make: Make) -> None:
    place = make(shadow_events=0, sample=0)
    oldest = weakref.ref(place.swaps.slots["fraud"].live)
    for version in ("v2", "v3"):
        place.point(version)
        place.settle()
    place.point("v4")
    place.swaps.tick(place.now)
    place.builds.go()
    place.engines.submit(int).result()
    assert place.live == "v4"
    assert oldest() is not None
    place.builds.go()
    gc.collect()
    assert oldest() is None


def test_workers_begin_one_after_another(make: Make) -> None:
    place = make(stagger=5, shadow_events=0)
    place.point("v2")
    place.settle()
    assert place.opened == ["v1"]
    place.now += 5
    place.settle()
    assert place.live == "v2"


def test_after_the_flip_the_champion_before_is_asked_for_a_while(make: Make) -> None:
    place = make(shadow_events=0, sample=1, watch_s=100)
    place.point("v2")
    place.settle()
    place.serve(8)
    assert [(each["live"], each["shadow"]) for each in place.asked()] == [("fraud/v2", "fraud/v1")] * 8
    place.now += 100
    place.settle()
    place.serve(8)
    assert place.shadow is None
    assert place.asked() == []


@pytest.mark.parametrize("off", [{"sample": 0}, {"watch_s": 0}])
def test_nobody_watches_where_that_is_off(make: Make, off: dict[str, float]) -> None:
    place = make(shadow_events=0, **off)
    place.point("v2")
    place.settle()
    assert (place.live, place.shadow, place.shadows.pairs) == ("v2", None, {})


def test_a_newer_pointer_supersedes_what_shadows(make: Make) -> None:
    place = shadowing(make)
    place.serve(8)
    place.point("v3")
    place.settle()
    assert (place.live, place.shadow) == ("v1", "v3")
    place.now += 60
    place.settle()
    assert (place.live, place.opened) == ("v3", ["v1", "v2", "v3"])
    assert place.total("swaps") == {("fraud", "live"): 2, ("fraud", "superseded"): 1}


def test_a_pointer_to_what_is_live_ends_a_swap_under_way(make: Make) -> None:
    place = shadowing(make)
    place.point("v1")
    place.now += 60
    place.settle()
    assert (place.live, place.shadow, place.shadows.pairs) == ("v1", None, {})


def test_the_watch_that_a_shadow_interrupted_goes_on_if_that_one_is_not_taken(make: Make) -> None:
    place = shadowing(make)
    place.now += 60
    place.settle()
    assert (place.live, place.shadow) == ("v2", "v1")
    place.point("v3")
    place.settle()
    assert (place.live, place.shadow) == ("v2", "v3")
    place.point("v2")
    place.settle()
    assert (place.live, place.shadow) == ("v2", "v1")
    assert place.shadows.pairs["fraud"].shadow.release == "v1"


def test_an_older_epoch_and_the_same_version_again_change_nothing(make: Make) -> None:
    place = shadowing(make)
    pair = place.shadows.pairs["fraud"]
    place.point("v3", epoch=1)
    place.point("v2", epoch=5)  # a pin: the same version, the next epoch
    place.settle()
    assert place.shadows.pairs["fraud"] is pair
    place.now += 60
    place.settle()
    place.point("v2", epoch=6)
    place.settle()
    assert (place.live, place.opened) == ("v2", ["v1", "v2"])


def test_a_release_that_is_kept_is_live_again_at_once(make: Make) -> None:
    place = shadowing(make)
    place.stagger = 1000
    place.now += 60
    place.settle()
    assert (place.live, place.shadow) == ("v2", "v1")
    place.point("v1")
    place.engines.submit(int).result()
    assert (place.live, place.shadow, place.shadows.pairs) == ("v1", None, {})
    assert place.opened == ["v1", "v2"]
    assert place.total("swaps")["fraud", "rolled_back"] == 1


def test_a_release_that_cannot_be_loaded_is_said_and_the_live_one_stays(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    place = make()
    place.broken.add("v2")
    place.point("v2")
    place.settle()
    assert (place.live, place.failures) == ("v1", [])
    assert place.total("swaps")["fraud", "kept"] == 1
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "release fraud/v2 is not taken: no release fraud/v2; at the test"
    ]


def test_a_task_without_any_release_waits_for_a_store_that_is_away(make: Make) -> None:
    place = make(first=None)
    place.away = True
    place.point("v1")
    place.settle()
    assert "the store does not answer" in place.swaps.waits["fraud"]
    place.away = False
    place.settle()
    assert place.opened == ["v1"]  # not again and again: in a while
    place.now += 1.0
    place.settle()
    assert (place.live, place.swaps.waits, place.failures) == ("v1", {}, [])


def test_a_task_without_any_release_says_that_its_first_one_cannot_be_taken() -> None:
    place = SwapShop(first=None)
    place.broken.add("v1")
    place.point("v1")
    place.settle()
    [error] = place.failures
    assert "no release fraud/v1" in str(error)
    place.close()


def test_a_release_that_fails_its_certificate_is_not_taken(make: Make) -> None:
    place = make(shadow_events=0)
    place.uncertified.add("v2")
    place.point("v2")
    place.settle()
    assert place.live == "v1"
    assert "v2" in place.opened
    place.point("v3")
    place.settle()
    assert place.live == "v3"
    assert place.total("swaps") == {("fraud", "live"): 2, ("fraud", "kept"): 1}


@pytest.mark.parametrize("wrong", [{"fails": "out of memory"}, {"logit": float("nan")}, {"logit": float("-inf")}])
def test_a_shadow_that_fails_is_not_taken(make: Make, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    place = shadowing(make)
    for name, value in wrong.items():
        setattr(place.made["v2"], name, value)
    place.serve(8)
    assert place.asked() == []
    place.now += 60
    place.settle()
    assert (place.live, place.shadow, place.shadows.pairs) == ("v1", None, {})
    assert place.total("swaps")["fraud", "kept"] == 1
    assert "release fraud/v2 is not taken" in caplog.text


def test_a_watch_whose_shadow_fails_ends_and_serving_goes_on(make: Make) -> None:
    place = make(shadow_events=0, sample=1)
    place.point("v2")
    place.settle()
    place.made["v1"].fails = "gone"
    place.serve(8)
    assert place.asked() == []
    place.settle()
    assert (place.live, place.shadow, place.shadows.pairs) == ("v2", None, {})


@pytest.mark.parametrize("wrong", [{"fails": "out of memory"}, {"logit": float("nan")}])
def test_where_the_live_release_fails_the_one_before_answers_and_it_is_said(
    make: Make, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    place = make(shadow_events=0)
    place.point("v2")
    place.settle()
    for name, value in wrong.items():
        setattr(place.made["v2"], name, value)
    [job] = place.serve(8).jobs
    assert job.release == "fraud/v1"
    assert all(job.results)
    place.settle()
    assert (place.live, place.shadow) == ("v1", None)
    said = place.asked()
    assert [each["event_id"] for each in said] == [event["event_id"] for event in job.events]
    assert {(each["live"], each["shadow"]) for each in said} == {("fraud/v2", "fraud/v1")}
    assert all(each["failure"] and not each["live_prediction"] and each["shadow_prediction"] for each in said)
    assert place.total("engine_failures") == {("fraud",): 1}
    assert place.total("swaps")["fraud", "rolled_back"] == 1
    assert "release fraud/v2 failed while it served; fraud/v1 is live again" in caplog.text
    place.point("v2", epoch=place.epoch)
    place.settle()
    assert (place.live, place.opened) == ("v1", ["v1", "v2"])


def test_a_live_release_that_fails_with_none_before_it_raises(make: Make) -> None:
    place = make()
    place.made["v1"].fails = "out of memory"
    with pytest.raises(EngineError, match="out of memory"):
        place.serve(8)


def test_a_shadow_goes_on_beside_the_release_that_took_over_from_a_failing_one(make: Make) -> None:
    place = make(shadow_events=8)
    for version in ("v2", "v3"):
        place.point(version)
        place.settle()
        if version == "v2":
            place.now += 60
            place.settle()
    place.made["v2"].fails = "gone"
    place.serve(8)
    place.asked()
    place.settle()
    assert (place.live, place.shadow) == ("v1", "v3")
    place.serve(8)
    assert {each["live"] for each in place.asked()} == {"fraud/v1"}
    place.settle()
    assert place.live == "v3"


def add_item(place: SwapShop) -> int:
    """One more row of the catalogue; how many there are then."""
    catalog = place.scorer.catalog
    vector = np.ones(384, "<f4").tobytes()
    catalog.apply_vector({"kind": "item", "id": f"new-{len(catalog)}", "row": len(catalog), "vector": vector})
    return len(catalog)


def test_a_release_on_its_way_follows_the_catalogue_too(make: Make) -> None:
    place = make(shadow_events=20)
    slot = place.swaps.slots["fraud"]
    place.point("v2")
    place.swaps.tick(place.now)
    place.builds.go()
    rows = add_item(place)
    place.swaps.refresh().result()
    assert slot.shadow is not None
    assert {len(loaded.table) for loaded in slot.ready} == {rows}
    rows = add_item(place)
    place.swaps.refresh().result()
    assert {len(loaded.table) for loaded in slot.ready} == {rows}


def test_a_worker_lets_those_with_lower_partitions_go_first() -> None:
    worker = object.__new__(Worker)
    worker.settings, worker._ready = Settings(partitions=4, swap={"stagger_s": 8}), asyncio.Event()
    worker.flusher = SimpleNamespace(owned={3, 2})  # type: ignore[assignment]  # the one thing of it that is asked
    assert worker._stagger() == 0  # nothing is owned before it is ready
    worker._ready.set()
    assert worker._stagger() == 4
    worker.flusher.owned = {0, 3}
    assert worker._stagger() == 0


def test_who_builds_steps_back_and_nobody_else() -> None:
    found: list[int] = []

    def build() -> None:
        step_back()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    assert found == [max(before, NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


STEPS = st.one_of(
    st.tuples(st.just("point"), st.integers(0, 4)), st.sampled_from(["build", "turn", "tick", "later", "fails"])
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([False, True]), st.lists(STEPS, max_size=25))
def test_whatever_comes_in_between_the_newest_pointer_is_live_in_the_end(canaries: bool, steps: list[Any]) -> None:
    place = WITH_CANARIES if canaries else SHOP
    for step in steps:
        if isinstance(step, tuple):
            place.point(f"v{step[1]}")
        elif step == "build":
            place.builds.go()
        elif step == "turn":
            place.engines.submit(int).result()
        elif step == "fails":
            place.swaps.slots["fraud"].canary = None
        else:
            place.now += 50 if step == "later" else 0
            place.swaps.tick(place.now)
        slot = place.swaps.slots["fraud"]
        assert slot.live is slot.kept[0]
        assert slot.shadow is not slot.live
        assert slot.canary is None or slot.canary.loaded is not slot.live
    place.point("last" if len(steps) % 2 else "v1")
    for _ in range(4):
        place.settle()
        place.now += 50
    assert place.live == ("last" if len(steps) % 2 else "v1")
    assert not place.swaps._swaps
    pair = place.shadows.pairs.get("fraud")
    assert (pair.shadow.release if pair else None) == place.shadow


SHOP = SwapShop(shadow_wait_s=40, watch_s=120)
WITH_CANARIES = SwapShop(shadow_wait_s=40, watch_s=120, canary_share=0.5, canary_s=40)


# -- on a broker ---------------------------------------------------------------------------------------------


@pytest.fixture
def shop_settings(fresh_settings: Callable[..., Settings], registry: object) -> Settings:
    store, _ = shop.releases()
    made = fresh_settings(
        release_store=store,
        web={"port": free_port()},
        deadlines_ms={"fraud": 60_000, "recommendations": 60_000, "ctr": 60_000},
        swap={"shadow_events": 20, "shadow_wait_s": 60, "sample": 1.0, "stagger_s": 0},
    )
    shop.furnish(made)
    return made


def events(first: int, count: int) -> list[tuple[str, dict[str, Any]]]:
    out: list[tuple[str, dict[str, Any]]] = []
    for n in range(first, first + count):
        common = {"event_time": NOON_MS + 1000 * n, "user_id": f"user-{n % 12}"}
        out.append(("clicks", click(event_id=f"c{n}", item_id=f"item-{n % 40}", **common)))
        out.append(("orders", order(event_id=f"o{n}", order_id=f"order-{n}", **common)))
    return out


def test_a_worker_swaps_while_events_flow_and_none_is_lost_repeated_or_unscored(
    shop_settings: Settings, tmp_path: Any
) -> None:
    store, versions = shop.releases()
    again = shop.copy_release(store, "fraud", versions["fraud"], "second")
    sent: list[tuple[str, dict[str, Any]]] = []
    ended = threading.Event()

    def flow() -> None:
        while not ended.is_set():
            some = events(len(sent) // 2, 10)
            shop.publish(shop_settings, some)
            sent.extend(some)
            time.sleep(0.1)

    thread = threading.Thread(target=flow)
    with shop.worker(shop_settings, tmp_path / "worker.log") as worker:
        thread.start()
        try:
            shop.wait_for(lambda: len(shop.scores(shop_settings, "fraud")) > 20)
            shop.point(shop_settings, "fraud", again, epoch=2)
            shop.wait_for(lambda: shop.scores(shop_settings, "fraud")[-1]["release"] == "fraud/second")
            shop.wait_for(lambda: {r["live"] for r in compared(shop_settings)} >= {"fraud/second"})
        finally:
            ended.set()
            thread.join()
        for task, topic in (("fraud", "orders"), ("recommendations", "clicks")):
            ids = sorted(record["event_id"] for name, record in sent if name == topic)
            shop.wait_for(
                lambda task=task, ids=ids: sorted(s["event_id"] for s in shop.scores(shop_settings, task)) == ids
            )
        assert worker.end() == 0, (tmp_path / "worker.log").read_text()
    fell = [score["event_id"] for score in shop.scores(shop_settings, "fraud") if score["fallback"]]
    assert fell == []
    first, second = f"fraud/{versions['fraud']}", "fraud/second"
    found = compared(shop_settings)
    assert {(r["live"], r["shadow"]) for r in found} == {(first, second), (second, first)}
    assert sum(r["live"] == first for r in found) == 20
    assert len({r["event_id"] for r in found}) == len(found)
    assert all(r["live_prediction"] and r["failure"] is None for r in found)


def compared(settings: Settings) -> list[dict[str, Any]]:
    return shop.read(settings, settings.topics.shadow, "shadow_score")
