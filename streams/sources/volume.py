"""How many events a planned world will bring, from the plan alone: for choosing a span before it is told.
The shares are those of `browsing`; a test holds this to what is told.
"""

import numpy as np
from numpy.typing import NDArray

from streams.sources.browsing import MOST_VIEWED
from streams.sources.plan import Plan

SHOWN_ADS = 6.7
CLICKS_PER_OWN, CLICKS_PER_STEP = 1.57, 1.0 + 0.06 * 1.6 + 0.04 + 0.07
RESULT_PAGES = 0.035
LABELS_PER_ORDER = 0.12


def expected_volume(plan: Plan, click_rate: float, conversion_rate: float = 0.0) -> dict[str, int]:
    """Month (2011-06) to about how many events of all topics start in it."""
    visits = plan.visits
    lines = np.diff(plan.orders.offsets)[visits.anchor] if len(visits) else np.zeros(0)
    own = np.where(visits.buys, np.minimum(visits.views * lines, MOST_VIEWED), 0.0)
    looks = own + visits.steps
    impressions: NDArray[np.float64] = (looks > 0) + (looks + 2) // 6 + RESULT_PAGES * looks
    events = CLICKS_PER_OWN * own + CLICKS_PER_STEP * visits.steps + visits.buys * (1 + LABELS_PER_ORDER)
    events += impressions * (1 + SHOWN_ADS * click_rate * (1 + conversion_rate * (1 + LABELS_PER_ORDER)))
    months = visits.start.astype("M8[ms]").astype("M8[M]")
    names, place = np.unique(months, return_inverse=True)
    totals = np.bincount(place, weights=events, minlength=len(names))
    return {str(name): round(float(total)) for name, total in zip(names, totals, strict=True)}
