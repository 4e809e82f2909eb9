"""What a case comes to: how many orders of how many users, what they amount to, what was said of them so far.
A case is all alerts of one `grp` (streams.console.grouping); one that is linked with nothing is a case by itself.
"""

import sqlite3
from collections.abc import Collection
from typing import Any, NamedTuple

from streams.console.store import SEEN

MOST_CURRENCIES = 3


class Figures(NamedTuple):
    """`shown` orders of `orders` are in the state that the queue was asked for: amounts (minor units by currency, the
    largest first), the highest loss and probability, the newest time and how many are to be blocked are of those. The
    rest is of the whole case.

    `seen` is another text whenever an order has come or gone, or somebody has spoken on one.
    """

    orders: int
    users: int
    open: int
    waiting: int
    fraud: int
    genuine: int
    seen: str
    shown: int
    loss: float
    probability: float
    newest: int
    block: int
    amounts: tuple[tuple[str, int], ...] = ()

    @property
    def main_amounts(self) -> tuple[tuple[str, int], ...]:
        return self.amounts[:MOST_CURRENCIES]


_STATES = {"open": "a.answered = 0", "waiting": "a.answered = 0", "answered": "a.answered = 1"}
_WHOLE = (
    "SELECT a.grp, count(*) AS orders, count(DISTINCT a.user_id) AS users, sum(a.answered = 0) AS open, "
    "sum(a.answered = 0 AND a.waiting) AS waiting, coalesce(sum(a.answer > 0), 0) AS fraud, "
    "coalesce(sum(a.answer <= 0), 0) AS genuine, count(*) || '-' || sum(a.id) || '-' || sum(seen) AS seen "
    f"FROM (SELECT a.*, {SEEN} FROM alerts a WHERE a.grp IN ({{marks}})) a GROUP BY a.grp"
)
_SHOWN = (
    "SELECT a.grp, count(*) AS shown, max(a.loss) AS loss, max(a.probability) AS probability, "
    "max(a.raised_at) AS newest, sum(a.decision = 'block') AS block FROM alerts a INDEXED BY alerts_group "
    "WHERE a.grp IN ({marks}) AND {state} GROUP BY a.grp"
)
_AMOUNTS = (
    "SELECT a.grp, a.currency, sum(a.amount) FROM alerts a INDEXED BY alerts_group WHERE a.grp IN ({marks}) "
    "AND a.amount IS NOT NULL AND {state} GROUP BY a.grp, a.currency ORDER BY a.grp, sum(a.amount) DESC, a.currency"
)


def figures(connection: sqlite3.Connection, groups: Collection[str], state: str = "all") -> dict[str, Figures]:
    """By group. A case without any order in that state is shown by all that it has."""
    wanted = sorted(set(groups))
    marks = ",".join("?" * len(wanted))
    whole = {row["grp"]: _without_name(row) for row in connection.execute(_WHOLE.format(marks=marks), wanted)}
    shown = _shown(connection, wanted, _STATES.get(state, "1"))
    shown |= _shown(connection, [name for name in wanted if name not in shown], "1")
    return {name: Figures(**whole[name], **shown[name]) for name in whole}


def _shown(connection: sqlite3.Connection, groups: list[str], state: str) -> dict[str, dict[str, Any]]:
    how = {"marks": ",".join("?" * len(groups)), "state": state}
    amounts: dict[str, list[tuple[str, int]]] = {}
    for name, currency, amount in connection.execute(_AMOUNTS.format(**how), groups):
        amounts.setdefault(name, []).append((currency, amount))
    return {
        row["grp"]: _without_name(row) | {"amounts": tuple(amounts.get(row["grp"], ()))}
        for row in connection.execute(_SHOWN.format(**how), groups)
    }


def _without_name(row: sqlite3.Row) -> dict[str, Any]:
    return {name: row[name] for name in row.keys() if name != "grp"}  # noqa: SIM118  # a Row iterates over values
