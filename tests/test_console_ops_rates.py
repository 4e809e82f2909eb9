"""Rates from Prometheus pages: sums of who answers, gaps where nobody does, and never a zero for a silence."""

import asyncio
import math
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from streams.console.ops import live_view
from streams.console.ops.charts import plot
from streams.console.ops.rates import LEARNER, WORKER, Answer, History, parsed, rate, tick
from streams.console.ops.scales import NOTHING
from streams.console.ops.scraping import PATIENCE_S, Scraper
from streams.learner.metrics import LearnerMetrics
from streams.metrics import Metrics

NOON_MS = 1_700_000_000_000
TASKS = ("fraud", "ctr")


def plainly(english: str, **values: object) -> str:
    return english.format(**values) if values else english


def answer(seconds: float, **values: dict[tuple[str, ...], float]) -> Answer:
    names = {
        "events": "headrace_events_total", "scores": "headrace_scores_total", "lag": "headrace_lag",
        "latency": "headrace_score_latency_recent_seconds", "ready": "headrace_ready",
        "start": "process_start_time_seconds",
    }  # fmt: skip
    return Answer(NOON_MS + int(1000 * seconds), {names[name]: found for name, found in values.items()})


def silent(seconds: float, why: str = "nobody listens") -> Answer:
    return Answer(NOON_MS + int(1000 * seconds), problem=why)


def history(*rounds: dict[str, Answer]) -> History:
    made = History()
    for each in rounds:
        made.add(next(iter(each.values())).at_ms, each)
    return made


def test_the_workers_own_page_is_understood() -> None:
    metrics = Metrics()
    metrics.events.labels("events.orders").inc(7)
    metrics.scores.labels("fraud").inc(5)
    metrics.fallbacks.labels("fraud", "deadline").inc(2)
    metrics.dead_letters.labels("truncated").inc()
    metrics.set_lag({("events.orders", 0): 3, ("events.orders", 1): 4})
    metrics.set_releases({"fraud": ("v1", "openvino bf16")})
    metrics.latency.observe("fraud", np.array([0.01, 0.02]))
    metrics.ready.set(1)
    found = parsed(metrics.page().decode(), WORKER)
    assert found["headrace_events_total"] == {("events.orders",): 7}
    assert found["headrace_fallbacks_total"] == {("fraud", "deadline"): 2}
    assert found["headrace_lag"] == {("events.orders", "0"): 3, ("events.orders", "1"): 4}
    assert found["headrace_release_info"] == {("fraud", "v1", "openvino bf16"): 1}
    assert found["headrace_score_latency_recent_seconds"]["fraud", "0.5"] == pytest.approx(0.015)
    assert found["process_resident_memory_bytes"][()] > 0
    made = tick(NOON_MS, {}, {"a": Answer(NOON_MS, found)})
    assert made.figures["lag", "events.orders"] == 7
    assert made.figures["p50", "fraud"] == pytest.approx(15)


def test_the_learners_own_page_is_understood() -> None:
    metrics = LearnerMetrics()
    metrics.roc_auc.labels("fraud", "fraud/v1").set(0.91)
    metrics.calibration.labels("fraud", "fraud/v1").set(float("nan"))
    metrics.seconds.labels("fraud", "train").set(12)
    found = parsed(metrics.page().decode(), LEARNER)
    made = tick(NOON_MS, {}, {"a": Answer(NOON_MS, found)})
    assert made.figures["auc", "fraud fraud/v1"] == pytest.approx(0.91)
    assert ("calibration", "fraud fraud/v1") not in made.figures


@pytest.mark.parametrize("text", ["<html>hello</html>", "{", 'a{b="', "headrace_events_total x"])
def test_what_is_no_metrics_page_is_no_figures(text: str) -> None:
    with suppress(ValueError):
        assert parsed(text, WORKER) == {}


def test_a_rate_is_what_came_by_how_long_it_took() -> None:
    before, now = answer(0, events={("clicks",): 10}), answer(2, events={("clicks",): 30, ("orders",): 4})
    assert rate(before, now, "headrace_events_total") == {("clicks",): 10, ("orders",): 2}


def test_a_counter_that_fell_began_anew_with_its_process() -> None:
    before, now = answer(0, events={("clicks",): 1_000_000}), answer(2, events={("clicks",): 6})
    assert rate(before, now, "headrace_events_total") == {("clicks",): 3}


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=2), st.floats(-5, 5))
def test_no_rate_is_below_zero_or_of_no_time(counts: list[float], seconds: float) -> None:
    before, now = answer(10, events={("clicks",): counts[0]}), answer(10 + seconds, events={("clicks",): counts[1]})
    found = rate(before, now, "headrace_events_total")
    assert all(value >= 0 and math.isfinite(value) for value in found.values())
    assert bool(found) == (now.at_ms > before.at_ms)


def test_workers_are_added_up_and_quantiles_are_the_slowest_ones() -> None:
    first = {"a": answer(0, scores={("fraud",): 0}), "b": answer(0, scores={("fraud",): 0})}
    second = {
        "a": answer(2, scores={("fraud",): 20}, latency={("fraud", "0.99"): 0.02}, lag={("orders", "0"): 1}),
        "b": answer(2, scores={("fraud",): 40}, latency={("fraud", "0.99"): 0.05}, lag={("orders", "1"): 2}),
    }
    made = history(first, second)
    assert made.now("scores") == {"fraud": 30}
    assert made.now("p99") == {"fraud": 50}
    assert made.now("lag") == {"orders": 3}


def test_a_worker_that_does_not_answer_is_said_to_be_silent_and_adds_no_zero() -> None:
    made = history(
        {"a": answer(0, scores={("fraud",): 0}), "b": answer(0, scores={("fraud",): 0})},
        {"a": answer(2, scores={("fraud",): 20}), "b": silent(2)},
    )
    assert made.now("scores") == {"fraud": 10}
    assert live_view.headline(made, plainly) == "1 of 2 workers does not answer: figures are of the others."
    a, b = live_view.processes(made, History(), NOON_MS + 62_000)
    assert (a.problem, a.tone) == ("", "good")
    assert b.problem == "nobody listens"
    assert b.tone == "bad"
    assert "last heard 62 s ago" in b.state or "last heard 1 min ago" in b.state


def test_where_nobody_answers_every_tile_is_a_dash_and_not_a_zero() -> None:
    made = history({"a": answer(0, scores={("fraud",): 3})}, {"a": silent(2)})
    assert {tile.value for tile in live_view.tiles(made, TASKS)} == {NOTHING}
    assert "No worker answers" in live_view.headline(made, plainly)
    chart = live_view.charts(made, TASKS, {}, 5, NOON_MS + 4_000, plainly)[1]
    assert "nothing is known" in plot(chart)


def test_what_never_happened_is_a_zero_where_somebody_answers() -> None:
    made = history({"a": answer(0, events={("clicks",): 0})}, {"a": answer(2, events={("clicks",): 8})})
    told = {tile.key: tile.value for tile in live_view.tiles(made, TASKS)}
    assert told["events"] == "4/s"
    assert told["alerts"] == told["dead"] == told["late"] == "0"
    assert told["p99"] == NOTHING


def test_what_is_rare_is_counted_over_five_minutes() -> None:
    made = History()
    for number in range(400):
        counted: dict[str, dict[tuple[str, ...], float]] = {
            "headrace_dead_letters_total": {("truncated",): float(number // 10)}
        }
        made.add(NOON_MS + 2_000 * number, {"a": Answer(NOON_MS + 2_000 * number, counted)})
    (tile,) = [tile for tile in live_view.tiles(made, TASKS) if tile.key == "dead"]
    assert (tile.value, tile.tone) == ("15", "warn")
    chart = next(c for c in live_view.charts(made, TASKS, {}, 5, NOON_MS + 800_000, plainly) if c.key == "dead")
    (series,) = chart.series
    assert sum(value or 0.0 for value in series.values) / len(series.values) == pytest.approx(3.0, abs=0.3)


def test_a_silence_between_two_answers_is_a_gap_in_the_line() -> None:
    rounds = [{"a": answer(5.0 * n, events={("clicks",): 10.0 * n})} for n in range(6)]
    rounds[3] = {"a": silent(15)}
    made = history(*rounds)
    _, ((*row,),) = made.series([("events", "clicks")], NOON_MS, NOON_MS + 25_000, 5)
    # At 15 s nobody answered; the answer at 20 s has none before it to be compared with.
    assert row == [2.0, 2.0, None, None, 2.0]


def test_a_point_is_the_mean_of_its_stretch() -> None:
    made = history(*({"a": answer(n, lag={("orders", "0"): float(n)})} for n in range(1, 11)))
    x, (row,) = made.series([("lag", "orders")], NOON_MS, NOON_MS + 10_000, 2)
    assert x == [NOON_MS + 5_000, NOON_MS + 10_000]
    assert row == [3.0, 8.0]


def test_only_half_an_hour_is_kept() -> None:
    made = history(*({"a": answer(60.0 * n, lag={("orders", "0"): 1.0})} for n in range(100)))
    _, (row,) = made.series([("lag", "orders")], NOON_MS, NOON_MS + 6_000_000, 100)
    assert sum(value is not None for value in row) == 31


def test_a_worker_that_is_not_ready_or_waits_is_not_called_ready() -> None:
    made = History()
    values: dict[str, dict[tuple[str, ...], float]] = {"headrace_ready": {(): 0.0}}
    made.add(NOON_MS, {"a": Answer(NOON_MS, values)})
    assert live_view.processes(made, History(), NOON_MS)[0].tone == "warn"
    parked: dict[str, dict[tuple[str, ...], float]] = {
        "headrace_ready": {(): 1.0},
        "headrace_parked": {("orders", "0"): 1.0},
    }
    made.add(NOON_MS + 1, {"a": Answer(NOON_MS, parked)})
    assert "Waits on 1 partitions" in live_view.processes(made, History(), NOON_MS)[0].state


# -- over http -----------------------------------------------------------------------------------------------


def test_every_kind_of_silence_is_told_from_the_others_and_holds_nobody_up() -> None:
    asyncio.run(_silences())


def server(what: str) -> TestServer:
    async def page(request: web.Request) -> web.StreamResponse:
        if what == "slow":
            await asyncio.sleep(3)
        if what == "sick":
            return web.Response(status=500)
        if what == "html":
            return web.Response(text="<html>x y</html>", content_type="text/html")
        return web.Response(text="# TYPE headrace_ready gauge\nheadrace_ready 1.0\n")

    app = web.Application()
    app.router.add_get("/metrics", page)
    return TestServer(app)


async def _silences() -> None:
    servers = {what: server(what) for what in ("good", "slow", "sick", "html")}
    for each in servers.values():
        await each.start_server()
    try:
        named = {what: f"127.0.0.1:{each.port}" for what, each in servers.items()}
        addresses = [*named.values(), "127.0.0.1:1", "no address"]
        scraper = Scraper(addresses, (), clock=lambda: NOON_MS / 1000)
        began = asyncio.get_running_loop().time()
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await scraper.round(session)
        assert asyncio.get_running_loop().time() - began < PATIENCE_S + 2
        told = {address: answer.problem for address, answer in scraper.workers.answers.items()}
        assert told[named["good"]] == ""
        assert "no answer in" in told[named["slow"]]
        assert "status 500" in told[named["sick"]]
        assert told[named["html"]]
        assert told["127.0.0.1:1"] == "nobody listens"
        assert told["no address"]
        assert scraper.workers.newest is not None
        assert (scraper.workers.newest.asked, scraper.workers.newest.answered) == (6, 1)
    finally:
        for each in servers.values():
            await each.close()


def test_who_waits_for_a_round_is_woken_by_it_and_let_go_at_the_end() -> None:
    async def waits() -> tuple[int, int, Any]:
        scraper = Scraper((), ())
        async with aiohttp.ClientSession() as session:
            waiting = asyncio.create_task(scraper.after(0, 30))
            await asyncio.sleep(0)
            await scraper.round(session)
            woken = await asyncio.wait_for(waiting, 5)
            in_vain = await scraper.after(1, 0.01)
            ending = asyncio.create_task(scraper.after(1, 30))
            await asyncio.sleep(0)
            await scraper.stop()
            return woken, in_vain, await asyncio.wait_for(ending, 5)

    assert asyncio.run(waits()) == (1, 1, 1)


def test_a_clock_that_was_set_back_hides_nothing_that_comes_after() -> None:
    made = History()
    made.add(NOON_MS + 60_000, {"a:1": answer(60, events={("events.clicks",): 900.0})})
    for second in (0, 2, 4):
        made.add(NOON_MS + 1000 * second, {"a:1": answer(second, events={("events.clicks",): 100.0 * second})})
    assert made.names("events") == ["events.clicks"]
    assert [each.at_ms for each in made._ticks] == [NOON_MS, NOON_MS + 2_000, NOON_MS + 4_000]
