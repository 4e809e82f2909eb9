"""A plan is carried out: every fault that begins is healed, those of one thing in turn, those of others at once."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.night import striking
from tests.chaos.night.faults import Fault
from tests.chaos.night.schedule import Bounds, Strike
from tests.chaos.night.striking import Striking


class Staff:
    """Nobody, who is ready."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {}

    def wait_ready(self, names: set[str], seconds: float) -> bool:
        return not names


class Night:
    """Runs a plan of faults that only take note of when they are on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on: set[str] = set()
        self.together, self.healed = set[frozenset[str]](), 0
        self._lock = threading.Lock()
        bounds = Bounds({"it": frozenset({"it"})}, 0, 1)
        faults = {"note": Fault(bounds, self._note), "break": Fault(bounds, self._broken)}
        monkeypatch.setattr(striking, "FAULTS", faults)

    def run(self, plan: list[Strike], seconds: float = 0.5) -> Striking:
        scene: Any = SimpleNamespace(say=lambda what: None, staff=Staff())
        made = Striking(scene, plan, seconds)
        made.run()
        return made

    def _note(self, scene: Any, target: str, rng: Any, lasts_s: float) -> Any:
        with self._lock:
            self.on.add(target)
            self.together.add(frozenset(self.on))

        def heal() -> None:
            with self._lock:
                self.on.discard(target)
                self.healed += 1

        return heal

    def _broken(self, scene: Any, target: str, rng: Any, lasts_s: float) -> Any:
        raise TimeoutError("the broker did not answer")


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch) -> Night:
    return Night(monkeypatch)


def strike(target: str, start: float, end: float, touches: str, kind: str = "note") -> Strike:
    return Strike(kind, target, start, end, frozenset({touches}), 1)


def test_faults_of_different_things_are_on_at_once(night: Night) -> None:
    done = night.run([strike("a", 0, 1.5, "one"), strike("b", 0.1, 0.4, "other")], seconds=1.6)
    assert frozenset({"a", "b"}) in night.together
    assert (done.struck["note"], night.healed, night.on) == (2, 2, set())


def test_faults_of_one_thing_wait_for_each_other_whatever_the_plan_says(night: Night) -> None:
    done = night.run([strike("a", 0, 0.2, "one"), strike("b", 0.05, 0.25, "one")], seconds=2)
    assert night.together == {frozenset({"a"}), frozenset({"b"})}
    assert (done.struck["note"], done.left_out) == (2, 0)


def test_what_waited_until_the_night_was_over_is_left_out_and_counted(night: Night) -> None:
    done = night.run([strike("a", 0, 1.5, "one"), strike("b", 0.05, 0.25, "one")], seconds=1)
    assert (done.struck["note"], done.left_out, night.healed) == (1, 1, 1)


def test_a_fault_that_cannot_be_applied_fails_the_run_and_not_the_others(night: Night) -> None:
    done = night.run([strike("a", 0, 0.1, "one", "break"), strike("b", 0.05, 0.1, "one")], seconds=2)
    assert done.broken == ["break: a, 0 s: TimeoutError: the broker did not answer"]
    assert night.healed == 1


def test_a_night_is_as_long_as_it_was_said_to_be(night: Night) -> None:
    began = time.monotonic()
    night.run([], seconds=0.3)
    assert time.monotonic() - began >= 0.3
