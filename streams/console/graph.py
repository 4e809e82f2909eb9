"""The linked entities as a small drawing: the order, what it names, and at the right the other alerts that name it.
Three columns and no physics: the same case looks the same each time, and lines can be followed.
"""

import sqlite3
from typing import NamedTuple

from streams.console.cases import Case, Tie

WIDTH = 440
ORDER_X, TIE_X, KIN_X = 16, 128, 330
TOP, ROW = 22, 40


class Node(NamedTuple):
    x: int
    y: float


class TieNode(NamedTuple):
    x: int
    y: float
    tie: Tie


class KinNode(NamedTuple):
    x: int
    y: float
    alert: sqlite3.Row


class Edge(NamedTuple):
    """A curve; `strong` where the token links."""

    path: str
    strong: bool


class Drawing(NamedTuple):
    height: float
    order: Node
    ties: list[TieNode]
    kin: list[KinNode]
    edges: list[Edge]


def drawing(case: Case) -> Drawing:
    """Kin are placed as near to what leads to them as they can be, so that few lines cross."""
    rows = max(len(case.ties), len(case.kin), 1)
    height = TOP * 2 + ROW * (rows - 1)
    ties = [TieNode(TIE_X, _place(number, len(case.ties), height), tie) for number, tie in enumerate(case.ties)]
    led = {one: [node.y for node in ties if one in node.tie.alerts] for one in case.kin}
    ordered = sorted(case.kin, key=lambda one: (sum(led[one]) / max(len(led[one]), 1), one))
    kin = [KinNode(KIN_X, _place(n, len(ordered), height), case.kin[one]) for n, one in enumerate(ordered)]
    order = Node(ORDER_X, height / 2)
    edges = [Edge(_curve(order.x + 64, order.y, node.x, node.y), node.tie.links) for node in ties]
    edges += [
        Edge(_curve(node.x + 108, node.y, other.x, other.y), node.tie.links)
        for node in ties
        for other in kin
        if other.alert["alert_id"] in node.tie.alerts
    ]
    return Drawing(height, order, ties, kin, edges)


def _place(number: int, count: int, height: float) -> float:
    return height / 2 + (number - (count - 1) / 2) * ROW


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (x + to_x) / 2
    return f"M{x:.0f} {y:.1f}C{middle:.0f} {y:.1f} {middle:.0f} {to_y:.1f} {to_x:.0f} {to_y:.1f}"
