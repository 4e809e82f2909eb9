"""The formulas of capacity: a Load to a Plan, pure. More load never needs less, which a property test holds it to.
`deploy/site/calculator.js` says the same in JavaScript; a test compares the two number by number.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from schemas.errors import SettingsError
from streams.capacity.measured import constants

DAY_S = 86_400
TASKS = ("fraud", "recommendations", "ctr")
MOST = 1e12


@dataclass(frozen=True, slots=True)
class Load:
    """What a shop has. Shares are of 1; days are what topics keep. SettingsError if a value cannot be meant."""

    events_per_s: float = 1_000.0
    users: float = 1_000_000.0
    items: float = 5_000.0
    orders: float = 0.05
    impressions: float = 0.15
    peak: float = 3.0
    headroom: float = 0.5
    growth: float = 2.0
    active: float = 0.05
    slate: float = 8.0
    ad_clicks: float = 0.02
    answers: float = 0.1
    replication: float = 3.0
    retention_days: float = 30.0
    scores_days: float = 7.0
    served_days: float = 90.0
    labels_days: float = 90.0
    examples_days: float = 365.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _, low, high = MEANINGS[field.name]
            value = getattr(self, field.name)
            if not low <= value <= high:  # a NaN is not
                raise SettingsError(f"{value:g} is no {field.name}", where=field.name, expected=f"{low:g} to {high:g}")
        if self.orders + self.impressions > 1:
            raise SettingsError(
                "orders and impressions are more than all events", where="orders, impressions", expected="1 at most"
            )


MEANINGS: Mapping[str, tuple[str, float, float]] = {
    "events_per_s": ("Events a second, on average.", 0, 1e7),
    "users": ("Users who are known.", 0, 1e10),
    "items": ("Items and ads of the catalogue.", 0, 1e8),
    "orders": ("Share of the events that are orders.", 0, 1),
    "impressions": ("Share that are ad impressions; the rest are clicks.", 0, 1),
    "peak": ("Busiest second over the average one.", 1, 1000),
    "headroom": ("Share of a worker that the peak leaves free, to catch up with.", 0, 0.9),
    "growth": ("Partitions for so many times the workers: their number cannot be changed later.", 1, 100),
    "active": ("Share of the users who are active within an hour: their state should be in memory.", 0, 1),
    "slate": ("Ads of an impression.", 1, 64),
    "ad_clicks": ("Share of the shown ads that are clicked.", 0, 1),
    "answers": ("Share of the clicks that answer a recommendation.", 0, 1),
    "replication": ("Replicas of each topic.", 1, 32),
    "retention_days": ("Days that the event topics keep.", 0, 36_500),
    "scores_days": ("Days that the score topics keep.", 0, 36_500),
    "served_days": ("Days that the served topics keep.", 0, 36_500),
    "labels_days": ("Days that labels are kept.", 0, 36_500),
    "examples_days": ("Days that training examples are kept.", 0, 36_500),
}
"""Of each field of a Load: what it is, and its bounds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the load takes, by part: cores at the peak, memory in MB, disk in GB with all replicas; and counts."""

    workers: int
    partitions: int
    slots: int
    cores: Mapping[str, float]
    memory_mb: Mapping[str, float]
    disk_gb: Mapping[str, float]


def plan(load: Load) -> Plan:
    """What the load takes."""
    k = constants()
    clicks = max(0.0, 1 - load.orders - load.impressions)
    shares = dict(zip(TASKS, (load.orders, clicks, load.impressions), strict=True))
    peak = load.events_per_s * load.peak
    engine_us = sum(shares[task] * k[f"{task}_us"] for task in TASKS)
    full_us = k["worker_us"] + engine_us
    workers = max(1, math.ceil(peak / ((1 - load.headroom) * 1e6 / full_us)))
    partitions = max(4, math.ceil(math.ceil(workers * load.growth) / 4) * 4)
    slots = max(int(k["slots"]), math.ceil(load.users * load.active / workers))
    return Plan(
        workers,
        partitions,
        slots,
        _cores(load, k, shares, workers, engine_us),
        _memory(load, k, workers, slots),
        _disk(load, k, shares, partitions),
    )


def _labels(load: Load, shares: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """(labels an event, examples an event by task)."""
    answered = shares["recommendations"] * load.answers
    ads = shares["ctr"] * load.slate
    labels = shares["fraud"] + answered + ads * load.ad_clicks
    drawn = load.ad_clicks + (1 - load.ad_clicks) * constants()["negatives"]
    return labels, {"fraud": shares["fraud"], "recommendations": answered, "ctr": ads * drawn}


def _cores(
    load: Load, k: Mapping[str, float], shares: Mapping[str, float], workers: int, engine_us: float
) -> dict[str, float]:
    """A worker takes `quiet_cores` for its first 1,000 events/s, and the CPU of full speed for each one above.

    Both ends are measured; between them micro-batches grow and an event gets cheaper, so this is what it takes at most.
    """
    peak = load.events_per_s * load.peak
    each, full_us = peak / workers, k["worker_us"] + engine_us
    worker = k["quiet_cores"] * min(each, 1000) / 1000 + max(0.0, each - 1000) * full_us / 1e6
    engines = min(peak * engine_us / 1e6, workers * worker)
    labels, examples = _labels(load, shares)
    join_us = k["served_us"] + labels * k["label_us"] + sum(examples.values()) * k["example_us"]
    return {
        "engines": engines,
        "workers, besides": workers * worker - engines,
        "label join": load.events_per_s * join_us / 1e6,
        "fine-tune": k["fine_tune_cores"],
    }


def _memory(load: Load, k: Mapping[str, float], workers: int, slots: int) -> dict[str, float]:
    rows = load.items * k["catalogue_row_bytes"] * k["releases_kept"]
    return {
        "workers": workers * k["worker_mb"],
        "users above 65,536 a worker": workers * (slots - k["slots"]) * k["slot_bytes"] / 1e6,
        "catalogue": workers * rows / 1e6,
        "fine-tune": k["learner_mb"],
        "label join": k["join_mb"],
    }


def _disk(load: Load, k: Mapping[str, float], shares: Mapping[str, float], partitions: int) -> dict[str, float]:
    """Topics, then the folders of the processes, which have no replicas."""
    a_day = load.events_per_s * DAY_S * load.replication / 1e9
    labels, examples = _labels(load, shares)
    kinds = {"fraud": ("orders", "order"), "recommendations": ("clicks", "click"), "ctr": ("impressions", "impression")}
    found = dict[str, float]()
    for task in TASKS:
        events = shares[task] * a_day
        topic, record = kinds[task]
        found[f"events.{topic}"] = events * k[f"{record}_bytes"] * load.retention_days
        found[f"scores.{task}"] = events * k[f"{task}_score_bytes"] * load.scores_days
        found[f"served.{task}"] = events * k[f"{task}_served_bytes"] * load.served_days
    found["events.labels"] = a_day * labels * k["label_bytes"] * load.labels_days
    made = sum(examples[task] * k[f"{task}_example_bytes"] for task in TASKS)
    found["training.examples"] = a_day * made * load.examples_days
    rows = load.users * k["row_bytes"] / 1e9
    waiting = _waiting(load, k, shares) * k["waiting_bytes"] / 1e9
    newest = partitions * k["segment_mb"] / 1e3
    touches = load.users * k["entities"] * k["touch_bytes"] / 1e9
    found["state.users"] = (rows * k["dirty"] + newest) * load.replication
    found["state.labels"] = (waiting * k["dirty"] + newest) * load.replication
    found["entities.events"] = touches * 2 * load.replication
    return found | {"workers' folders": rows * k["dirty"], "learner's folder": waiting * k["dirty"]}


def _waiting(load: Load, k: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """Served records that wait for labels."""
    answered, clicked = load.answers, min(1.0, load.slate * load.ad_clicks)
    days = (
        shares["fraud"] * k["fraud_days"]
        + shares["recommendations"] * (k["recommendations_days"] + answered * k["recommendations_answered_days"])
        + shares["ctr"] * (k["ctr_days"] + clicked * k["ctr_answered_days"])
    )
    return load.events_per_s * DAY_S * days


def largest(parts: Mapping[str, float]) -> str:
    """The part that dominates."""
    return max(parts, key=lambda name: parts[name])


def total(parts: Mapping[str, float]) -> float:
    return sum(parts.values())
