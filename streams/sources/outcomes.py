"""How the shop learns what an order was: an analyst's verdict on one in ten within the hour, and chargebacks
weeks later. An innocent order is never labelled otherwise: that it was innocent shows only when the window
for chargebacks is over, and their source was alive all along.
"""

from streams.labels import derive
from streams.sources.draws import Draws
from streams.sources.records import Record, label
from streams.sources.shop import DAY_MS

VERDICT_SHARE = 0.10
VERDICT_MISSES = 0.08
"""Of the frauds that an analyst sees, how many pass; the chargeback then revises the verdict."""
CHARGEBACK_MEDIAN_MS = 7 * DAY_MS
REFUND_MEDIAN_MS = 10 * DAY_MS
SIGMA = 0.8
MINUTE_MS = 60_000
BEAT_MS = 60 * MINUTE_MS
"""Between two signs of life of the chargebacks' source, of event time."""


def fraud_labels(order_id: str, time: int, kind: str, draws: Draws) -> list[Record]:
    """The labels that an order of that time gets, if any; `kind` is "" for an innocent one."""
    labels: list[Record] = []
    if draws.chance(VERDICT_SHARE):
        caught = bool(kind) and not draws.chance(VERDICT_MISSES)
        seen = time + int(draws.between(3, 60) * MINUTE_MS)
        labels.append(label(order_id, float(caught), "analyst", seen, 0))
        if caught:
            return labels
    if kind:
        refund = kind == "refund_abuse"
        delay = draws.log_normal(REFUND_MEDIAN_MS if refund else CHARGEBACK_MEDIAN_MS, SIGMA)
        known = time + max(int(delay), 61 * MINUTE_MS)
        labels.append(label(order_id, 1.0, "refund" if refund else "chargeback", known, len(labels)))
    return labels


def heartbeat(time: int) -> Record:
    """All chargebacks up to `time` (UTC ms) have been told."""
    return derive.heartbeat("fraud", "chargeback", time)
