"""The queue: which cases a page shows, or which alerts each by itself, in which order, and where the next page begins.
Pages go by key, not by number: what arrives meanwhile moves nothing that is being read.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

from streams.console.figures import Figures, figures
from streams.console.store import SEEN
from streams.events import ENTITY_FIELDS

PAGE = 50
MOST_COUNTED = 2_000
SORTS = {"loss": "loss", "probability": "probability", "newest": "raised_at"}
STATES = ("open", "waiting", "answered", "all")
DECISIONS = ("block", "review", "approve")
MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """What a person asks the queue for. Empty: no wish."""

    state: str = "open"
    sort: str = "loss"
    decision: str = ""
    country: str = ""
    release: str = ""
    rule: str = ""
    least: str = ""
    most: str = ""
    mine: str = ""
    text: str = ""
    case: str = ""
    """An alert_id: what is in one case with it."""
    each: str = ""
    """Each alert in a row of its own; without it the alerts of a case share one."""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "tuple[Filter, dict[str, str]]":
        """The filter of a query string, and by field what of it cannot be used: that is kept, and shown, as typed."""
        asked = {one.name: query.get(one.name, str(one.default)).strip()[:MOST_CHARACTERS] for one in fields(cls)}
        problems: dict[str, str] = {}
        for name, known in (("state", STATES), ("sort", tuple(SORTS)), ("decision", ("", *DECISIONS))):
            if asked[name] not in known:
                asked[name] = known[0]
        for name in ("least", "most"):
            if asked[name] and _units(asked[name]) is None:
                problems[name] = "an amount like 250 or 99.50"
        return cls(**asked), problems

    def query(self, **changed: str) -> str:
        """The query string of this filter with some fields replaced; what is as by default is left out."""
        told = replace(self, **changed)
        standard = {one.name: one.default for one in fields(self)}
        return urlencode({name: getattr(told, name) for name in standard if getattr(told, name) != standard[name]})

    @property
    def narrowed(self) -> bool:
        """Whether anything but state and order was asked for."""
        return self != Filter(self.state, self.sort, each=self.each)

    def conditions(self, reader: "Reader", of: str = "a") -> tuple[list[str], list[Any]]:
        """As SQL over alerts by the name `of`, and its values."""
        found: list[tuple[str, list[Any]]] = []
        if self.state in ("open", "answered"):
            found.append((f"{of}.answered = ?", [int(self.state == "answered")]))
        elif self.state == "waiting":
            found.append((f"{of}.answered = 0 AND {of}.waiting = 1", []))
        wishes = {name: getattr(self, name) for name in ("decision", "country", "release")}
        found += [(f"{of}.{name} = ?", [wish]) for name, wish in wishes.items() if wish]
        if self.rule:
            found.append(
                (f"EXISTS (SELECT 1 FROM rules r WHERE r.rule = ? AND r.alert_id = {of}.alert_id)", [self.rule])
            )
        for name, sign in (("least", ">="), ("most", "<=")):
            if (units := _units(getattr(self, name))) is not None:
                found.append((f"{of}.amount {sign} ?", [round(units * 10_000)]))
        if self.case:
            found.append((f"{of}.grp = (SELECT grp FROM alerts WHERE alert_id = ?)", [self.case]))
        if self.mine and reader.who:
            found.append((f"{of}.assignee = ?", [reader.who]))
        if self.text:
            found.append(_naming(self.text, of, reader.reveals))
        return [condition for condition, _ in found], [value for _, values in found for value in values]


def _naming(text: str, of: str, reveals: bool) -> tuple[str, list[Any]]:
    """Part of an order's id; for who may see them also part of a user's, or the whole of a token: a search must not
    tell what the page masks."""
    part = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    if not reveals:
        return f"{of}.order_id LIKE ? ESCAPE '\\'", [part]
    tokens = [text, *(f"{kind}:{text}" for kind in ENTITY_FIELDS)]
    like = f"{of}.order_id LIKE ? ESCAPE '\\' OR {of}.user_id LIKE ? ESCAPE '\\'"
    named = f"{of}.alert_id IN (SELECT alert_id FROM entities WHERE token IN ({','.join('?' * len(tokens))}))"
    return f"({like} OR {named})", [part, part, *tokens]


class Reader(NamedTuple):
    """Who asks, as the audit log calls them, and whether they see personal values."""

    who: str = ""
    reveals: bool = False


NOBODY = Reader()


class Listed(NamedTuple):
    """A page of the queue. after: where the next one begins, empty on the last; total: how many rows there are in all,
    MOST_COUNTED + 1 if there are more, None where the filter is not narrow and the counts of all alerts say it.
    cases: by `grp` what is known of the whole case; an alert that is one by itself has them too. Empty, where each
    alert has a row of its own."""

    alerts: list[sqlite3.Row]
    after: str
    total: int | None = None
    cases: Mapping[str, Figures] = MappingProxyType({})


def queue(
    connection: sqlite3.Connection, asked: Filter, after: str = "", reader: Reader = NOBODY, size: int = PAGE
) -> Listed:
    """A narrow filter looks at each alert once, and then knows them all; a wide one goes by the index of the order."""
    column, place, total = SORTS[asked.sort], _place(after), None
    conditions, values = _wanted(asked, reader)
    if asked.narrowed:
        scan = "" if asked.case else "NOT INDEXED"
        query = f"SELECT a.{column}, a.alert_id FROM alerts a {scan} {_where(conditions)} LIMIT ?"
        keys = [tuple(row) for row in connection.execute(query, [*values, MOST_COUNTED + 1])]
        total = len(keys)
        if total <= MOST_COUNTED:
            keys = sorted((key for key in keys if place is None or key < place), reverse=True)[: size + 1]
            conditions, values = [f"a.alert_id IN ({','.join('?' * len(keys))})"], [key[1] for key in keys]
            place = None
    if place is not None:
        conditions, values = [*conditions, f"(a.{column}, a.alert_id) < (?, ?)"], [*values, *place]
    order = f"ORDER BY a.{column} DESC, a.alert_id DESC LIMIT ?"
    found = connection.execute(f"{_SELECT} {_where(conditions)} {order}", [*values, size + 1]).fetchall()
    more, found = found[size - 1] if len(found) > size else None, found[:size]
    known = {} if asked.each else figures(connection, [row["grp"] for row in found], asked.state)
    return Listed(found, f"{more[column]!r}~{more['alert_id']}" if more else "", total, known)


def _wanted(asked: Filter, reader: Reader) -> tuple[list[str], list[Any]]:
    """The filter's conditions; the first alert of each case, as far as the filter sees it, speaks for the case."""
    conditions, values = asked.conditions(reader)
    if not asked.each:
        column = SORTS[asked.sort]
        same, same_values = asked.conditions(reader, "b")
        rival = " AND ".join(["b.grp = a.grp", f"(b.{column}, b.alert_id) > (a.{column}, a.alert_id)", *same])
        conditions.append(f"NOT EXISTS (SELECT 1 FROM alerts b INDEXED BY alerts_group WHERE {rival})")
        values += same_values
    return conditions, values


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


_SELECT = f"SELECT a.*, {SEEN} FROM alerts a"


def one(connection: sqlite3.Connection, alert_id: str, asked: Filter) -> Listed:
    """A page of this alert alone, or of none, as a row of what was asked for."""
    found = connection.execute(f"{_SELECT} WHERE a.alert_id = ?", (alert_id,)).fetchall()
    known = {} if asked.each else figures(connection, [row["grp"] for row in found], asked.state)
    return Listed(found, "", cases=known)


def neighbours(
    connection: sqlite3.Connection, asked: Filter, alert: sqlite3.Row, reader: Reader = NOBODY
) -> tuple[str, str]:
    """The alert_ids before and after this one in the queue, where cases have one row of other cases; empty where there
    is none."""
    column = SORTS[asked.sort]
    conditions, values = _wanted(asked, reader)
    place = (alert[column], alert["alert_id"])
    if not asked.each:
        conditions, values = [*conditions, "a.grp <> ?"], [*values, alert["grp"]]
        place = _spokesman(connection, asked, alert, reader) or place
    found = []
    for sign, order in ((">", "ASC"), ("<", "DESC")):
        where = " AND ".join([*conditions, f"(a.{column}, a.alert_id) {sign} (?, ?)"])
        row = connection.execute(
            f"SELECT a.alert_id FROM alerts a WHERE {where} ORDER BY a.{column} {order}, a.alert_id {order} LIMIT 1",
            [*values, *place],
        ).fetchone()
        found.append(row[0] if row else "")
    return found[0], found[1]


def _spokesman(
    connection: sqlite3.Connection, asked: Filter, alert: sqlite3.Row, reader: Reader
) -> tuple[Any, str] | None:
    """The place of the row that the alert's case has in the queue; None where it has none any more."""
    column = SORTS[asked.sort]
    conditions, values = asked.conditions(reader)
    where = " AND ".join(["a.grp = ?", *conditions])
    order = f"ORDER BY a.{column} DESC, a.alert_id DESC LIMIT 1"
    query = f"SELECT a.{column}, a.alert_id FROM alerts a INDEXED BY alerts_group WHERE {where} {order}"
    row = connection.execute(query, [alert["grp"], *values]).fetchone()
    return (row[0], row[1]) if row else None


def cases_of(connection: sqlite3.Connection, orders: Sequence[str]) -> list[str]:
    """The names of the cases that these orders are in."""
    marks = ",".join("?" * len(orders))
    found = connection.execute(f"SELECT DISTINCT grp FROM alerts WHERE order_id IN ({marks}) ORDER BY grp", orders)
    return [row[0] for row in found]


class Counts(NamedTuple):
    """Of all alerts. `stake`: expected loss of those that are open, in the policy's currency; `cases`: how many cases
    those are."""

    open: int
    waiting: int
    answered: int
    block: int
    review: int
    stake: float
    cases: int


def counts(connection: sqlite3.Connection) -> Counts:
    row = connection.execute(
        "SELECT coalesce(sum(answered = 0), 0) AS open, coalesce(sum(answered = 0 AND waiting), 0) AS waiting, "
        "coalesce(sum(answered), 0) AS answered, coalesce(sum(answered = 0 AND decision = 'block'), 0) AS block, "
        "coalesce(sum(answered = 0 AND decision = 'review'), 0) AS review FROM alerts"
    ).fetchone()
    stake = connection.execute("SELECT coalesce(sum(loss), 0.0) FROM alerts WHERE answered = 0").fetchone()[0]
    cases = connection.execute("SELECT count(DISTINCT grp) FROM alerts WHERE answered = 0").fetchone()[0]
    return Counts(**dict(row), stake=stake, cases=cases)


def facets(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """What may be chosen: the countries, releases and rules that there are."""
    queries = {
        "country": "SELECT DISTINCT country FROM alerts WHERE country <> '' ORDER BY 1",
        "release": "SELECT DISTINCT release FROM alerts ORDER BY 1 DESC",
        "rule": "SELECT DISTINCT rule FROM rules ORDER BY 1",
    }
    return {name: [row[0] for row in connection.execute(query)] for name, query in queries.items()}


def _units(text: str) -> float | None:
    try:
        units = float(text.replace(",", ""))
    except ValueError:
        return None
    return units if 0 <= units < 1e11 else None


def _place(after: str) -> tuple[float, str] | None:
    """What `Listed.after` says; None for what is no such thing: the first page then."""
    key, _, alert_id = after.partition("~")
    try:
        return (float(key), alert_id) if alert_id else None
    except ValueError:
        return None
