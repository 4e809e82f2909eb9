"""Which facts of an order raised its score: each group of them set to an ordinary order's, through the same engine.
Ablation (Covert, Lundberg and Lee 2021, Explaining by removing): a contribution is by how much the log-odds fall.

It is faithful to the model and not a sum of its parts: where groups work together, what they do not explain is stated.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.features import SEQUENCE_FIELDS, Rows
from streams.tasks.fraud import COLUMN, FIELDS

HISTORY, ATTRIBUTES = "history", "attributes"
_NOW = ("now_item", "now_kind", "now_value", "now_quantity")


def _starting(*prefixes: str) -> tuple[str, ...]:
    return tuple(name for name in FIELDS if name.startswith(prefixes))


GROUPS: Mapping[str, tuple[str, ...]] = {
    "amount": ("amount", "top_line_share", "usual_amount", "amount_over_usual", "amount_24h"),
    "basket": ("lines", "quantity"),
    "pace": ("orders_1h", "orders_24h", "orders_7d", "clicks_30m", "clicks_1h", "hours_since_order"),
    "account": ("orders", "clicks", "account_hours", "hours_since_first_order", "is_first_event", "guest"),
    "card": (*_starting("card_"), "foreign_card"),
    "device": _starting("device_"),
    "address": (*_starting("address_"), "ships_elsewhere"),
    "email": _starting("email_"),
    "ip": _starting("ip_"),
    "payment": _starting("paid_by_"),
    "time": _starting("hour_", "weekday_"),
    ATTRIBUTES: (),
    HISTORY: (),
}
"""Each column of `fields` is in one group; the shop's own attributes and the history of events are one each."""

_COLUMNS = {name: np.array([COLUMN[field] for field in fields], np.intp) for name, fields in GROUPS.items()}
VARIANTS = len(GROUPS) + 2
"""Rows that one order becomes: itself, one for each group, and the baseline."""


class Contribution(NamedTuple):
    group: str
    logit: float


class Attribution(NamedTuple):
    """The largest contribution first. completeness_error: what they leave unexplained of the log-odds above the
    baseline's; 0 if the model were additive.
    """

    contributions: tuple[Contribution, ...]
    completeness_error: float


def variants(row: Rows, baseline: Sequence[float]) -> Rows:
    """(VARIANTS,) rows of one order's (1,). baseline: `fields` of an ordinary order; its history is empty, and
    no attributes are given.
    """
    ordinary = np.asarray(baseline, np.float32)
    rows = np.repeat(row, VARIANTS)
    for number, name in enumerate(GROUPS, 1):
        for at in (number, VARIANTS - 1):
            rows["fields"][at, _COLUMNS[name]] = ordinary[_COLUMNS[name]]
            if name == HISTORY:
                _forget(rows, at)
            elif name == ATTRIBUTES:
                rows["attribute_id"][at], rows["attribute_value"][at] = 0, 0
            elif name == "basket":
                rows["basket"][at] = 0
            elif name == "amount":
                rows["now_value"][at] = np.expm1(ordinary[COLUMN["amount"]])
    return rows


def _forget(rows: Rows, at: int) -> None:
    for field in SEQUENCE_FIELDS:
        if field[0] not in _NOW:
            rows[field[0]][at] = 0


def attribute(logit: NDArray[np.floating], slope: float) -> Attribution:
    """Of one order: logit (VARIANTS,) as `variants` orders them; slope: of the calibration, so that a contribution is
    in log-odds of the probability that was served.
    """
    scaled = slope * logit.astype(np.float64)
    fallen = scaled[0] - scaled[1:-1]
    found = [Contribution(name, float(value)) for name, value in zip(GROUPS, fallen, strict=True)]
    left = float(scaled[0] - scaled[-1] - fallen.sum())
    return Attribution(tuple(sorted(found, key=lambda each: -each.logit)), left)
