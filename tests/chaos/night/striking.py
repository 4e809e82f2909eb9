"""Carries a plan out: each fault at its time, in a thread of its own, healed at its end, whatever else goes on.
A fault waits for what it touches to be whole again; one that waited until the night was over is left out.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

from tests.chaos.night.faults import FAULTS
from tests.chaos.night.scene import Scene
from tests.chaos.night.schedule import Strike

# Who was struck is struck again while it is still starting, or only when it is ready (or cannot be, in READY_S).
AT_ONCE, READY_S = 0.3, 90.0


class Striking:
    """`struck` counts by kind; `broken` are faults that could not be applied or healed: a failure of the run itself."""

    def __init__(self, scene: Scene, plan: Sequence[Strike], seconds: float) -> None:
        self._scene, self._plan, self._seconds = scene, plan, seconds
        self._whole = threading.Condition()
        self._touched: set[str] = set()
        self.struck: Counter[str] = Counter()
        self.left_out = 0
        self.broken: list[str] = []

    def run(self) -> None:
        """Returns when all are healed."""
        self._began = time.monotonic()
        threads = [threading.Thread(target=self._one, args=(strike,), name=str(strike)) for strike in self._plan]
        for thread, strike in zip(threads, self._plan, strict=True):
            time.sleep(max(0.0, strike.start_s - self._now()))
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(max(0.0, self._seconds - self._now()))

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _one(self, strike: Strike) -> None:
        with self._whole:
            self._whole.wait_for(lambda: not self._touched & strike.touches)
            self._touched |= strike.touches
        try:
            if self._now() > self._seconds:
                self.left_out += 1
                self._scene.say(f"left out: {strike}")
            else:
                self._strike(strike)
        except Exception as error:  # noqa: BLE001  the night goes on, and fails at its end
            self.broken.append(f"{strike}: {type(error).__name__}: {error}")
            self._scene.say(f"could not: {self.broken[-1]}")
        finally:
            with self._whole:
                self._touched -= strike.touches
                self._whole.notify_all()

    def _strike(self, strike: Strike) -> None:
        self._scene.say(str(strike))
        self.struck[strike.kind] += 1
        lasts_s = strike.end_s - strike.start_s
        began = time.monotonic()
        luck = random.Random(strike.luck)
        heal = FAULTS[strike.kind].apply(self._scene, strike.target, luck, lasts_s)
        try:
            time.sleep(max(0.0, began + lasts_s - time.monotonic()))
        finally:
            heal()
        self._scene.say(f"over: {strike.kind}, {strike.target}")
        if luck.random() >= AT_ONCE:
            ours = strike.touches & self._scene.staff.members.keys()
            self._scene.staff.wait_ready(ours, min(READY_S, max(0.0, self._seconds - self._now())))
