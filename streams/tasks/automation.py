"""Whether a user's clicks look automated, from the history that was served and the click itself: a score with reasons.
Each sign is from 0 to what it may say at most; together they are 1 - product of (1 - sign). Pure.

Only pace and rhythm can say it alone. The other two may follow from how a shop reports its events (no views after an
ad click; clocks that differ), so they count together or not at all.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.batch import KINDS
from streams.features import Rows

AUTOMATED: Final = 0.8
"""From this score on."""
WORTH_A_WORD: Final = 0.3

DAY_S, BREAK_S, MINUTE_S = 86_400, 30 * 60, 60
PACE: Final = 1.0, 30, 60  # actions in a minute: the most it says, where it begins, where it is certain
RHYTHM: Final = 0.9, 0.25, 0.1  # spread of the gaps over their mean
FEWEST_GAPS, SHORTEST_GAP_S = 10, 3.0
NO_PAGES: Final = 0.7, 5, 12  # clicks, with hardly any page looked at
PAGES_A_CLICK: Final = 1 / 20
HASTE: Final = 0.7, 0.5, 0.9  # share of clicks within a second of what they answer
FEWEST_CLICKS: Final = 8
SPEED: Final = 0.6, 900, 300  # ms from the impression to the click that is judged
ROUNDING: Final = 1 / 6  # variance of a gap between two times in whole seconds

CLICK, IMPRESSION = KINDS["click"], KINDS["impression"]
PAGES = np.array([KINDS[name] for name in ("view", "cart", "uncart", "wish", "search", "order")])
PACED = (CLICK, KINDS["view"])


class Look(NamedTuple):
    """`reasons`: what says so, the strongest first; empty below AUTOMATED."""

    score: float
    reasons: tuple[str, ...]

    @property
    def automated(self) -> bool:
        return self.score >= AUTOMATED


Signs = dict[str, float]


def signs(kind: NDArray[np.uint8], age: NDArray[np.uint32]) -> Signs:
    """Of one history, oldest first: numbers of KINDS, and whole seconds before now. The last day counts."""
    recent = (kind > 0) & (age <= DAY_S)
    kind, time = kind[recent], -age[recent].astype(np.int64)
    clicks, pages = kind == CLICK, np.isin(kind, PAGES)
    return {
        "pace": _ramp(_most_in_a_minute(time[clicks | pages]), *PACE),
        "rhythm": max(_ramp(_spread(time[kind == each]), *RHYTHM) for each in PACED),
        "no pages": _ramp(clicks.sum(), *NO_PAGES) if pages.sum() <= PAGES_A_CLICK * clicks.sum() else 0.0,
        "haste": _ramp(_share_in_haste(time, clicks, kind == IMPRESSION), *HASTE),
    }


def signs_of(rows: Rows) -> Iterator[Signs]:
    """Of each feature row of a task, as of its event."""
    return (signs(kind, age) for kind, age in zip(rows["kind"], rows["age"], strict=True))


def look(found: Signs, click_ms: int | None = None) -> Look:
    """click_ms: from what was served to the click that is judged, if one is. One before it says nothing: two clocks."""
    speed = _ramp(click_ms, *SPEED) if click_ms is not None and click_ms >= 0 else 0.0
    told = {**found, "haste": max(found["haste"], speed)}
    score = 1.0 - float(np.prod([1.0 - each for each in told.values()]))
    if score < AUTOMATED:
        return Look(score, ())
    strongest = sorted(told, key=lambda name: -told[name])
    return Look(score, tuple(f"{name} {told[name]:.2f}" for name in strongest if told[name] >= WORTH_A_WORD))


def _ramp(value: float, most: float, low: float, high: float) -> float:
    """0 at `low`, `most` at `high` (which may be below), between them in proportion, beyond them the same."""
    return most * min(1.0, max(0.0, (float(value) - low) / (high - low)))


def _most_in_a_minute(time: NDArray[np.int64]) -> int:
    first = np.searchsorted(time, time - MINUTE_S, side="right")
    return int((np.arange(len(time)) - first + 1).max(initial=0))


def _spread(time: NDArray[np.int64]) -> float:
    """Of the gaps within visits, over their mean, less what whole seconds add; infinite where too few can say."""
    gaps = np.diff(time)
    gaps = gaps[gaps <= BREAK_S]
    mean = float(gaps.mean()) if len(gaps) >= FEWEST_GAPS else 0.0
    return float(np.sqrt(max(float(gaps.var()) - ROUNDING, 0.0))) / mean if mean >= SHORTEST_GAP_S else float("inf")


def _share_in_haste(time: NDArray[np.int64], clicks: NDArray[np.bool_], shown: NDArray[np.bool_]) -> float:
    """Of the clicks, those within a second of the impression before them; 0 for few clicks."""
    places = np.flatnonzero(clicks)
    if len(places) < FEWEST_CLICKS:
        return 0.0
    impressions = np.flatnonzero(shown)
    before = np.searchsorted(impressions, places) - 1
    answered = before >= 0
    waited = time[places[answered]] - time[impressions[before[answered]]] if answered.any() else np.zeros(0, np.int64)
    return float((waited <= 1).sum()) / len(places)
