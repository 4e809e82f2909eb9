"""Pictures of the operations pages, light and dark, wide and on a phone: `python -m tests.browser.ops_shots [FOLDER]`.
Half an hour of a made-up shop: a worker that answers, one that does not, a learner, and a release that was refused."""

import math
import random
import sys
import time
from collections.abc import Collection
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page

from streams.access.gate import COOKIE
from streams.console.ops.rates import Answer
from tests import console_ops
from tests.browser import ops_story
from tests.browser.driving import browser
from tests.browser.shots import FOLDER, SIZES, THEMES, reduced
from tests.console_ops import House, filled, house

BAD = "20260131T140000-cccccccc"
PAGES = {
    "live": "/live", "quality": "/quality?task=fraud", "learn": "/learn", "releases": "/releases?task=fraud",
    "release": f"/releases/fraud/at/{BAD}", "promote": f"/releases/fraud/promote?version={BAD}",
    "rollback": "/releases/fraud/rollback", "pin": "/releases/fraud/pin",
    "letters": "/letters", "letter": f"/letters/at/{ops_story.LETTER}", "replay": "/letters/replay?all=1",
    "policies": "/policies", "policy": "/policies/new", "policy-diff": "/policies/at/winter@2?against=spring@1",
    "backtest": "/policies/backtests/1", "lists": "/lists", "audit": "/audit",
}  # fmt: skip
REFUSED = {"refused": "/audit"}
"""To a viewer."""
EMPTY = {"live-empty": "/live", "releases-empty": "/releases", "audit-away": "/audit"}
"""Of a console that has only just begun, its broker away."""
NOBODY, WORKER, LEARNER = "10.0.0.8:6066", "127.0.0.1:6066", "127.0.0.1:6067"
TICKS, STEP_MS = 900, 2_000
RELEASES = ("fraud/20260131T130000-bbbbbbbb", "fraud/20260131T120000-aaaaaaaa")
Series = dict[str, dict[tuple[str, ...], float]]
SPOKEN = "The candidate predicts too much."


def take(folder: Path, names: Collection[str] = ()) -> list[Path]:
    """`names`: of these pages only."""
    folder.mkdir(parents=True, exist_ok=True)
    console_ops.EVIL = SPOKEN  # the tests put script there, to see it refused
    taken: list[Path] = []
    with TemporaryDirectory() as home, house(Path(home), workers=(), learners=()) as made, browser() as chrome:
        filled(made.shelf, made.shown.now)
        made.here.scraper.round = nothing  # type: ignore[method-assign, assignment]  # what is put in is what is shown
        made.shown.now = int(time.time() * 1000)
        half_an_hour(made)
        ops_story.knocks(made)
        with ops_story.told(made):
            taken += _rounds(chrome, made, folder, _of(PAGES, names))
            taken += _rounds(chrome, made, folder, _of(REFUSED, names), "viewer")
    with TemporaryDirectory() as home, house(Path(home), workers=(), learners=()) as made, browser() as chrome:
        made.here.scraper.round = nothing  # type: ignore[method-assign, assignment]  # nobody is there to be asked
        taken += _rounds(chrome, made, folder, _of(EMPTY, names))
    return taken


def _of(pages: dict[str, str], names: Collection[str]) -> dict[str, str]:
    return {name: path for name, path in pages.items() if name in names or not names}


def _rounds(chrome: Browser, made: House, folder: Path, pages: dict[str, str], role: str = "admin") -> list[Path]:
    cookie, taken = made.visitor(role).cookie, list[Path]()
    for size, theme in product(SIZES, THEMES):
        taken += _round(chrome, made, cookie, folder, size, theme, pages)
    return taken


async def nothing(*_: object) -> None:
    """No worker is asked."""


def _round(
    chrome: Browser, made: House, cookie: str, folder: Path, size: str, theme: str, pages: dict[str, str]
) -> list[Path]:
    width, height = SIZES[size]
    context = chrome.new_context(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]  # one of two words
    context.add_cookies([{"name": COOKIE, "value": cookie, "url": made.where}])
    page, taken = context.new_page(), []
    for name, path in pages.items():
        page.goto(made.where + path, wait_until="load")
        page.wait_for_timeout(300)
        taken.append(_shot(page, folder / f"ops-{name}-{size}-{theme}.png"))
        if name == "policy":
            taken += _forms(page, folder, f"{size}-{theme}")
    context.close()
    return taken


def _forms(page: Page, folder: Path, ending: str) -> list[Path]:
    """What a draft looks like that is wrong, and one that can be used."""
    taken = []
    for name, document in (("policy-wrong", ops_story.DOCUMENT.replace("order.amount < 5.0", "order.amuont < 5.0")),
                           ("policy-checked", ops_story.DOCUMENT)):  # fmt: skip
        page.get_by_label("Document").fill(document.strip() + "\n")
        page.get_by_role("button", name="Check").click()
        page.wait_for_load_state("load")
        page.wait_for_timeout(300)
        taken.append(_shot(page, folder / f"ops-{name}-{ending}.png"))
    return taken


def _shot(page: Page, path: Path) -> Path:
    page.screenshot(path=path, full_page=True)
    return reduced(path)


def half_an_hour(made: House) -> None:
    """Puts into memory what workers and a learner would have said."""
    draw, now = random.Random(3), made.shown.now
    workers, learners = made.here.scraper.workers, made.here.scraper.learners
    topics = dict.fromkeys(("events.clicks", "events.orders", "events.impressions"), 0.0)
    scores, alerts = dict.fromkeys(("fraud", "recommendations", "ctr"), 0.0), {"review": 0.0, "block": 0.0}
    dead = late = 0.0
    for tick in range(TICKS):
        at, pace = now - (TICKS - tick) * STEP_MS, 400 + 120 * math.sin(tick / 90)
        for topic, rate in zip(topics, (pace, 20.0, 90.0), strict=True):
            topics[topic] += 2 * max(0.0, rate + draw.gauss(0, rate / 15))
        for task, rate in zip(scores, (20.0, pace, 700.0), strict=True):
            scores[task] += 2 * rate
        dead += draw.random() < 0.03
        late += draw.randint(0, 4) if tick % 97 < 3 else 0
        alerts["review"] += draw.random() < 0.08
        alerts["block"] += draw.random() < 0.02
        slow = 1 + 0.2 * math.sin(tick / 40) + 0.1 * draw.random()
        said: Series = {
            "headrace_events_total": _by(topics), "headrace_scores_total": _by(scores),
            "headrace_alerts_total": _by(alerts), "headrace_dead_letters_total": {("unknown_schema",): dead},
            "headrace_late_total": {("fraud",): late},
            "headrace_lag": {(topic, "0"): max(0.0, draw.gauss(2, 3)) for topic in topics},
            "headrace_score_latency_recent_seconds": {
                (task, rank): base * slow for task in scores for rank, base in (("0.5", 0.009), ("0.99", 0.03))
            },
            "headrace_ready": {(): 1.0}, "headrace_release_info": {("fraud", RELEASES[0][6:], "openvino bf16"): 1.0},
            "headrace_shadow_disagreement": {("fraud",): 0.031}, **_process(now, 612e6),
        }  # fmt: skip
        away = {NOBODY: Answer(at, problem="no answer in 1.5 s")} if tick > TICKS // 2 else {}
        workers.add(at, {WORKER: Answer(at, said), **away})
        learners.add(at, {LEARNER: Answer(at, learned(tick) | _process(now, 340e6))})


def learned(tick: int) -> Series:
    live, before = (("fraud", release) for release in RELEASES)
    return {
        "headrace_live_roc_auc": {live: 0.91 + 0.01 * math.sin(tick / 120), before: 0.86 + 0.008 * math.sin(tick / 99)},
        "headrace_live_estimated_roc_auc": {live: 0.93},
        "headrace_live_calibration": {live: 1.08, before: 1.31},
        "headrace_live_labels": {live: 2_000.0 + tick, before: 4_000.0},
        "headrace_live_positives": {live: 60 + tick / 20, before: 120.0},
        "headrace_label_to_live_seconds": {("fraud",): 57.0, ("ctr",): 31.0},
        "headrace_watermark_lag_seconds": {(): 1.2},
    }


def _by(counts: dict[str, float]) -> dict[tuple[str, ...], float]:
    return {(name,): value for name, value in counts.items()}


def _process(now_ms: int, size: float) -> Series:
    return {"process_resident_memory_bytes": {(): size}, "process_start_time_seconds": {(): now_ms / 1000 - 7_300}}


if __name__ == "__main__":
    for path in take(Path(sys.argv[1]) if sys.argv[1:] else FOLDER, sys.argv[2:]):
        print(path)
