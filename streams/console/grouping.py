"""Which alerts are one case: those that share a card, a device, an address or an email, directly or through others.
What too many users share (an office, a hotel, a family of test cards) links nothing, and an ip never does.

A case is named by the smallest alert_id in it. Cases are a function of the set of alerts: the same ones, by the same
names, in whatever order they came, and again after a restart.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator

LINKING = ("card", "device", "address", "email")
"""Not an ip: behind one are strangers (a carrier, a campus), and each of them has several, so that cases would chain
through people who have nothing to do with one another. Who else had it is on the case's page all the same."""
MOST_USERS = 50
"""Of a token, with alerts, past which it links nothing: one that everybody has must not make one case of them all."""


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
        "INSERT INTO entities (token, user_id, alert_id) VALUES (?, ?, ?)", [(t, user_id, alert_id) for t in tokens]
    )
    concerned = linking({*tokens, *before})
    users = {token: _users(connection, token) for token in concerned}
    crossed = any(count == MOST_USERS + 1 and _once(connection, token, user_id) for token, count in users.items())
    if before or crossed:
        regroup(connection, {alert_id, *old_members, *linked_by(connection, concerned, MOST_USERS + 1)})
    else:
        _merge(connection, alert_id, [token for token, count in users.items() if count <= MOST_USERS])


def _merge(connection: sqlite3.Connection, alert_id: str, tokens: Iterable[str]) -> None:
    """The usual case: an alert comes to others, and parts none. All others of one token are in one group already."""
    query = "SELECT alert_id FROM entities WHERE token = ? AND alert_id <> ? LIMIT 1"
    near = {row[0] for token in tokens for row in connection.execute(query, (token, alert_id))}
    groups = _groups(connection, {alert_id, *near})
    name = min(groups)
    connection.executemany("UPDATE alerts SET grp = ? WHERE grp = ?", [(name, grp) for grp in groups - {name}])


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
    """How many users have it, counted to two past MOST_USERS: from user to user by the index, however many alerts."""
    return int(connection.execute(_COUNT, {"token": token, "most": MOST_USERS + 2}).fetchone()[0])


_NEXT = "SELECT min(user_id) FROM entities WHERE token = :token"
_COUNT = (
    f"WITH RECURSIVE found (user_id) AS ({_NEXT} UNION ALL SELECT ({_NEXT} AND user_id > found.user_id) FROM found "
    "WHERE found.user_id IS NOT NULL LIMIT :most) SELECT count(user_id) FROM found"
)


def _once(connection: sqlite3.Connection, token: str, user_id: str) -> bool:
    """Whether this is the user's only alert with it: then it is this user who made it one of too many."""
    query = "SELECT 1 FROM entities WHERE token = ? AND user_id = ? LIMIT 2"
    return len(connection.execute(query, (token, user_id)).fetchall()) == 1


def linked_by(connection: sqlite3.Connection, tokens: Iterable[str], most: int | None = None) -> set[str]:
    """One alert of each group that these tokens lead to; a token of more than `most` users leads nowhere."""
    most = MOST_USERS if most is None else most
    query = "SELECT min(e.alert_id) FROM entities e JOIN alerts a USING (alert_id) WHERE e.token = ? GROUP BY a.grp"
    led = [token for token in tokens if _users(connection, token) <= most]
    return {row[0] for token in led for row in connection.execute(query, (token,))}


def _groups(connection: sqlite3.Connection, alert_ids: Iterable[str]) -> set[str]:
    return {
        grp
        for chunk in _chunks(alert_ids)
        for (grp,) in _among(connection, "SELECT grp FROM alerts WHERE alert_id", chunk)
    }


def _members(connection: sqlite3.Connection, seeds: Iterable[str]) -> set[str]:
    return {
        name
        for chunk in _chunks(_groups(connection, seeds))
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
