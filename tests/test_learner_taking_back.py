"""What follows from live evidence: which release goes back, where to, and which is only marked; without a broker."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.errors import ReleaseError
from streams.config import Settings
from streams.learner.champion import ROLLED_BACK, WORSE, Champions
from streams.learner.metrics import LearnerMetrics
from streams.learner.taking_back import TakingBack
from streams.learner.task import TaskLearning
from streams.learner.watching import Pair
from streams.tasks import make_task
from tests.finetune_examples import MINUTE, START, record

LINES = {"v4": "v3", "v3": "v2", "v2": "v1", "v1": None}
"""What each release was made from."""
FEW = 100


class Store:
    def list(self, task: str) -> list[str]:
        return sorted(LINES)

    def open(self, task: str, version: str) -> Any:
        if version not in LINES:
            raise ReleaseError(f"no release {task}/{version}")
        return SimpleNamespace(manifest=SimpleNamespace(trained={"champion": LINES[version]}))


class Shelf(Champions):
    """Moves nothing but what it says of itself."""

    def __init__(self, live: str) -> None:
        self.store = Store()  # type: ignore[assignment]  # of names alone
        self._lock, self._announced = threading.Lock(), {}
        self.live_now, self.moves = live, list[str]()

    def roll_back(self, task: str, version: str, verdict: dict[str, Any], now_ms: int, to: str) -> Any:
        self._announced[task, version] = ROLLED_BACK
        self.live_now = to
        self.moves.append(f"{version} to {to}")
        return SimpleNamespace(version=to)

    def mark_worse(self, task: str, version: str, verdict: dict[str, Any], now_ms: int) -> None:
        assert verdict["action"] == "rollback"
        self._announced[task, version] = WORSE
        self.moves.append(f"{version} is worse")


class Shop:
    """One task, of which v3 is live, made from v2, which was made from v1."""

    def __init__(self) -> None:
        self.shelf, self.metrics = Shelf("v3"), LearnerMetrics()
        self.taking_back = TakingBack(self.shelf, self.metrics, self._follow, lambda: 7)
        self.task = TaskLearning(
            Settings(), make_task("fraud"), lambda pair: self.taking_back.precedes("fraud", pair)
        )  # fmt: skip
        self.task.champion = "v2"
        self.task.pairs.follow(Pair("v2", "v1"))

    def _follow(self, name: str) -> None:
        self.task.champion = self.shelf.live_now
        self.task.pairs.follow(None)

    def live(self, version: str, previous: str | None) -> None:
        self.task.champion = self.shelf.live_now = version
        self.task.pairs.follow(None if previous is None else Pair(version, previous))

    def compare(self, live: str, previous: str, said: tuple[float, float], count: int = FEW, **changed: Any) -> None:
        for number in range(count):
            self.task.shadow({
                "target_id": f"{live}-{number}", "event_time": START + number * MINUTE, "compared_at": number,
                "live": f"fraud/{live}", "shadow": f"fraud/{previous}", "candidates": [], "shadow_candidates": [],
                "live_prediction": [said[0]], "shadow_prediction": [said[1]], "live_us": 500, "failure": None,
            } | changed)  # fmt: skip

    def innocent(self, live: str, count: int = FEW) -> None:
        """The windows of these orders close, and nothing came."""
        for number in range(count):
            each = record("fraud", f"{live}-{number}", 0.0, START + number * MINUTE, b"", release=f"fraud/{live}")
            message: Any = SimpleNamespace(
                partition=lambda: 0, offset=lambda number=number: number, timestamp=lambda: (1, 1)
            )
            self.task.example(each, message)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"headrace_{name}_total", {"task": "fraud", **labels}) or 0.0


def test_labels_that_refute_what_another_has_followed_mark_it_and_leave_what_is_live() -> None:
    shop = Shop()
    shop.compare("v2", "v1", (0.9, 0.02))
    shop.live("v3", "v2")
    shop.innocent("v2")
    shop.taking_back.look(shop.task)
    assert shop.shelf.moves == ["v2 is worse"]
    assert shop.task.last["result"] == "worse"
    assert "what is live, v3, was made from it" in shop.task.last["why"]
    assert (shop.counted("regrets", heir_live="yes"), shop.counted("rollbacks")) == (1, 0)
    shop.taking_back.look(shop.task)
    assert len(shop.shelf.moves) == 1, "it is said once"


def test_what_is_live_goes_back_past_a_release_that_is_known_to_be_bad() -> None:
    shop = Shop()
    shop.compare("v2", "v1", (0.9, 0.02))
    shop.live("v3", "v2")
    shop.innocent("v2")
    shop.taking_back.look(shop.task)
    shop.compare("v3", "v2", (0.9, 0.02), failure="not finite")
    shop.taking_back.look(shop.task)
    assert shop.shelf.moves == ["v2 is worse", "v3 to v1"]
    assert shop.counted("rollbacks") == 1


def test_a_release_that_is_live_again_is_taken_back_by_the_labels_of_what_it_served_before() -> None:
    shop = Shop()
    shop.compare("v2", "v1", (0.9, 0.02))
    shop.live("v3", "v2")
    shop.live("v2", None)  # v3 was taken back
    shop.innocent("v2")
    shop.taking_back.look(shop.task)
    assert shop.shelf.moves == ["v2 to v1"]


def test_where_what_is_live_was_not_made_from_the_bad_one_that_is_said() -> None:
    shop = Shop()
    shop.compare("v2", "v1", (0.9, 0.02))
    shop.live("v1", None)  # by hand
    shop.innocent("v2")
    shop.taking_back.look(shop.task)
    assert "v1 is live, which was not made from it" in shop.task.last["why"]
    assert shop.counted("regrets", heir_live="no") == 1


@pytest.mark.parametrize("known", [None, WORSE])
def test_a_learner_that_is_started_afterwards_takes_up_what_was_not_judged_yet(known: str | None) -> None:
    shop = Shop()
    shop.live("v4", "v3")
    if known:
        shop.shelf._announced["fraud", "v2"] = known
    shop.task.pairs.end(Pair("v2", "v1"))
    shop.task.pairs._ended.clear()
    shop.compare("v2", "v1", (0.9, 0.02))
    shop.compare("v3", "v1", (0.9, 0.02))  # a comparison that somebody asked for
    shop.innocent("v2")
    shop.innocent("v3")
    shop.taking_back.look(shop.task)
    assert shop.shelf.moves == ([] if known else ["v2 is worse"])


def test_good_releases_that_were_followed_are_let_go_of() -> None:
    shop = Shop()
    shop.compare("v2", "v1", (0.02, 0.05))
    shop.live("v3", "v2")
    shop.innocent("v2")
    for _ in range(2):
        shop.taking_back.look(shop.task)
    assert shop.shelf.moves == []
    assert [each.pair for each in shop.task.pairs] == [Pair("v3", "v2")]


def test_where_every_ancestor_is_bad_it_goes_back_to_what_was_better() -> None:
    shelf = Shelf("v3")
    shelf._announced |= {("fraud", "v2"): WORSE, ("fraud", "v1"): ROLLED_BACK}
    assert shelf.refuge("fraud", "v3", "v2") == "v2"
    assert list(shelf.lineage("fraud", "v4")) == ["v3", "v2", "v1"]
    assert list(shelf.lineage("fraud", "gone")) == []
