"""Past answered alerts that look like this one: the nearest by what the model saw, each column in its own spread.
A distance over facts, not over the model: what the model has not learned yet is as near as it looks.
"""

import sqlite3
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.tasks.fraud import FIELDS

NEWEST = 5_000
WANTED = 5
FARTHEST = 3.0  # spreads a column, on average, past which nothing is alike
LEAST_SPREAD = 1e-3


class Similar(NamedTuple):
    """`alike`: 1 for the same facts, 0 for what is as far as it may be."""

    alert: sqlite3.Row
    alike: float
    differs: tuple[str, ...]


def nearest(connection: sqlite3.Connection, alert_id: str, fields: bytes) -> list[Similar]:
    """Among the newest answered alerts, those of its own case left out, as its page lists them; the nearest first."""
    query = (
        "SELECT a.alert_id, f.fields FROM alerts a JOIN features f USING (alert_id) "
        "WHERE a.answered = 1 AND a.grp <> (SELECT grp FROM alerts WHERE alert_id = ?) AND length(f.fields) = ? "
        "ORDER BY a.raised_at DESC LIMIT ?"
    )
    found = connection.execute(query, (alert_id, 4 * len(FIELDS), NEWEST)).fetchall()
    if not found or len(fields) != 4 * len(FIELDS):
        return []
    rows = np.frombuffer(b"".join(row["fields"] for row in found), "<f4").reshape(len(found), len(FIELDS))
    chosen, distance, differing = ranked(rows, np.frombuffer(fields, "<f4"))
    out = []
    for place in chosen.tolist():
        alert = connection.execute("SELECT * FROM alerts WHERE alert_id = ?", (found[place]["alert_id"],)).fetchone()
        names = tuple(FIELDS[column] for column in differing[place].tolist() if column >= 0)
        out.append(Similar(alert, 1 - float(distance[place]) / FARTHEST, names))
    return out


def ranked(
    rows: NDArray[np.float32], row: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """(the nearest rows, the distance of each, the columns in which each differs most; -1: in none).

    A column is measured in its standard deviation among the rows, so that what all share weighs nothing and a rare
    flag much; no column counts for more than four of them.
    """
    spread = rows.std(axis=0)
    usable = spread > LEAST_SPREAD
    apart = np.abs(rows - row)
    scaled = np.where(usable, apart / np.where(usable, spread, 1), np.where(apart > LEAST_SPREAD, 1, 0))
    np.minimum(scaled, 4, out=scaled)
    distance = np.sqrt((scaled**2).mean(axis=1, dtype=np.float32))
    order = distance.argsort(kind="stable")
    near = order[: WANTED * 2]
    near = near[distance[near] < FARTHEST][:WANTED]
    most = np.argsort(-scaled, axis=1, kind="stable")[:, :2]
    differing = np.where(np.take_along_axis(scaled, most, axis=1) > 0.5, most, -1)
    return near, distance.astype(np.float32), differing
