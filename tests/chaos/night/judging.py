"""The morning after: waits until all is said, saved and joined, then asks the checker what the night has done.
It reads topics only, as any client could, and knows nothing of which faults there were.
"""

import time
from collections.abc import Callable
from typing import Any

from schemas.errors import HeadraceError
from streams.config import Settings
from tests import checker, shop
from tests.chaos.night.published import Published
from tests.chaos.night.scene import Scene
from tests.checker_join import expected_examples, judge_join, judge_letters, missing

CLOSING = "closing-"
LOOK_S = 1.0


def morning(scene: Scene, patience_s: float) -> checker.Report:
    """All that was published has been; the report's faults say what does not hold, and what did not come to its end."""
    scene.load.end()
    stuck = [] if _comes(lambda: checker.finished(scene.settings), patience_s) else ["not all is scored and saved"]
    scene.load.close_windows()
    if not stuck and not _comes(lambda: checker.finished(scene.settings), patience_s):
        stuck.append("not all is scored and saved after the windows were closed")
    published = Published(scene.load.sent, scene.load.poison)
    published.write(scene.folder)
    if not stuck:
        expected = expected_examples(published.sent, CLOSING)
        _comes(lambda: not missing(examples(scene.settings), expected), patience_s)
    scene.say("what was said is judged")
    report = judged(scene.settings, published)
    report.faults = [f"in {patience_s:.0f} s {fault}" for fault in stuck] + scene.load.refused + report.faults
    return report


def judged(settings: Settings, published: Published) -> checker.Report:
    """All promises, of topics as they are now."""
    events = [pair for pair in published.sent if pair[0] != "labels"]
    report = checker.check(settings, events)
    served = [
        record for task in settings.tasks for record in shop.read(settings, settings.topics.served(task), "served")
    ]
    judge_join(report, examples(settings), served, expected_examples(published.sent, CLOSING))
    judge_letters(report, checker.dead_letters(settings), published.poison)
    return report


def examples(settings: Settings) -> list[dict[str, Any]]:
    return shop.read(settings, settings.topics.examples, "training_example")


def _comes(holds: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if holds():
                return True
        except HeadraceError:  # a broker that only just came back
            pass
        time.sleep(LOOK_S)
    return False
