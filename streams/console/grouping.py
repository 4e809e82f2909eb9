"""Which alerts belong together: those that share a card, a device or an address, directly or through others.
What too many users share (an office, a hotel, a family of test cards) links nothing.

A group is named by the smallest alert_id in it, so that it has the same name however its alerts came.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator

LINKING = ("card", "device", "address")
MOST_USERS = 20


def linking(tokens: Iterable[str]) -> set[str]:
    """Of "type:token", those of a type that links; without its token a type says nothing."""
    return {token for token in tokens if token.partition(":")[0] in LINKING and token.partition(":")[2]}


class Forest:
    """Union-find whose roots are the smallest names."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        above = self._above
        while (parent := above.setdefault(name, name)) != name:
            above[name] = above[parent]  # halving keeps the paths short
            name = above[name]
        return name

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._above[high] = low


def link(connection: sqlite3.Connection, alert_id: str, user_id: str, tokens: Collection[str]) -> None:
    """Writes what an alert names, and puts it into its group. Its row in `alerts` is there already."""
    before = {row[0] for row in connection.execute("SELECT token FROM entities WHERE alert_id = ?", (alert_id,))}
    if before == set(tokens):
        return
    old_members = _members(connection, [alert_id]) if before else set[str]()
    connection.execute("DELETE FROM entities WHERE alert_id = ?", (alert_id,))
    connection.executemany(
        "INSERT INTO entities (token, alert_id, user_id) VALUES (?, ?, ?)", [(t, alert_id, user_id) for t in tokens]
    )
    concerned = linking({*tokens, *before})
    if before or any(_crossed(connection, token, user_id) for token in concerned):
        shared = {one for token in concerned for one in _sharing(connection, token, MOST_USERS + 1)}
        regroup(connection, {alert_id, *old_members, *shared})
    else:
        _merge(connection, alert_id, concerned)


def _merge(connection: sqlite3.Connection, alert_id: str, tokens: Iterable[str]) -> None:
    """The usual case: an alert comes to others, and parts none."""
    found = {alert_id} | {one for token in tokens for one in _sharing(connection, token, MOST_USERS)}
    groups = {
        grp for chunk in _chunks(found) for (grp,) in _among(connection, "SELECT grp FROM alerts WHERE alert_id", chunk)
    }
    if len(groups) > 1:
        connection.executemany("UPDATE alerts SET grp = ? WHERE grp = ?", [(min(groups), grp) for grp in groups])


def regroup(connection: sqlite3.Connection, seeds: Iterable[str]) -> None:
    """Makes the groups of these alerts, and of all that are in a group with them, anew."""
    members = _members(connection, seeds)
    forest, first = Forest(), dict[str, str]()
    crowded: dict[str, bool] = {}
    for alert_id, token in _tokens(connection, members):
        if token not in crowded:
            crowded[token] = _users(connection, token) > MOST_USERS
        if not crowded[token]:
            forest.join(alert_id, first.setdefault(token, alert_id))
    moved = [(forest.root(alert_id), alert_id) for alert_id in members]
    connection.executemany("UPDATE alerts SET grp = ?1 WHERE alert_id = ?2 AND grp <> ?1", moved)


def tokens_of(connection: sqlite3.Connection, alert_ids: Iterable[str]) -> set[str]:
    return {token for _, token in _tokens(connection, alert_ids)}


def _users(connection: sqlite3.Connection, token: str) -> int:
    return int(
        connection.execute("SELECT count(DISTINCT user_id) FROM entities WHERE token = ?", (token,)).fetchone()[0]
    )


def _crossed(connection: sqlite3.Connection, token: str, user_id: str) -> bool:
    """Whether it was this user who made the token one of too many."""
    uses = connection.execute(
        "SELECT count(*) FROM entities WHERE token = ? AND user_id = ?", (token, user_id)
    ).fetchone()
    return uses[0] == 1 and _users(connection, token) == MOST_USERS + 1


def _sharing(connection: sqlite3.Connection, token: str, most: int) -> list[str]:
    """One alert of each group that a token leads to; of a token of more than `most` users, none."""
    if _users(connection, token) > most:
        return []
    query = "SELECT min(e.alert_id) FROM entities e JOIN alerts a USING (alert_id) WHERE e.token = ? GROUP BY a.grp"
    return [row[0] for row in connection.execute(query, (token,))]


def _members(connection: sqlite3.Connection, seeds: Iterable[str]) -> set[str]:
    groups = {
        grp for chunk in _chunks(seeds) for (grp,) in _among(connection, "SELECT grp FROM alerts WHERE alert_id", chunk)
    }
    return {
        name
        for chunk in _chunks(groups)
        for (name,) in _among(connection, "SELECT alert_id FROM alerts WHERE grp", chunk)
    }


def _tokens(connection: sqlite3.Connection, alert_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    for chunk in _chunks(alert_ids):
        for alert_id, token in _among(connection, "SELECT alert_id, token FROM entities WHERE alert_id", chunk):
            if linking((token,)):
                yield alert_id, token


def _among(connection: sqlite3.Connection, query: str, values: list[str]) -> sqlite3.Cursor:
    return connection.execute(f"{query} IN ({','.join('?' * len(values))})", values)


def _chunks(values: Iterable[str], size: int = 500) -> Iterator[list[str]]:
    found = list(values)
    return (found[start : start + size] for start in range(0, len(found), size))


def linked_by(connection: sqlite3.Connection, tokens: Iterable[str]) -> set[str]:
    """One alert of each group that these tokens lead to."""
    return {one for token in tokens for one in _sharing(connection, token, MOST_USERS)}
