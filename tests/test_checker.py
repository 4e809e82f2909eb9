"""The checker of the crash tests finds what it is there to find: a whole run passes, each harm to it does not."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streams.state import Shape
from streams.tasks import make_task
from tests.checker import Report, judge_alerts, judge_counts, judge_scores, judge_served
from tests.checker_join import expected_examples, judge_join, judge_letters
from tests.records import click, impression

Records = list[dict[str, Any]]
By = dict[str, Records]


def faults(judge: Callable[..., None], *what: Any) -> list[str]:
    report = Report()
    judge(report, *what)
    return report.faults


def score(ident: str = "o1", **fields: Any) -> dict[str, Any]:
    return {
        "event_id": ident, "order_id": f"order-{ident}", "probability": 0.25, "decision": "approve",
        "scored_at": 1, "cut": {"clicks": 0, "orders": 0, "impressions": -1}, "release": "fraud/1", "timings": None,
        "decided_by": "model", "rules": [], "reasons": [], "policy_version": "", "late": False, "fallback": None,
        "expected_loss": None, "propensity": 1.0, "otherwise": None,
    } | fields  # fmt: skip


def served_of(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    said = make_task("fraud").said(record)
    features = np.zeros(1, make_task("fraud").features).tobytes()
    return {
        "event_id": record["event_id"], "prediction": said.prediction, "decision": said.decision,
        "cut": record["cut"], "features": features, "served_at": 5,
    } | fields  # fmt: skip


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"o1": [score()], "o2": [score("o2")]}, ""),
        ({"o1": [score(), score(scored_at=9)], "o2": [score("o2")]}, ""),
        ({"o1": [score()]}, "1 events without a score"),
        ({"o1": [score()], "o2": [score("o2")], "o3": [score("o3")]}, "1 scores of unknown events"),
        ({"o1": [score(), score(probability=0.26)], "o2": [score("o2")]}, "differ: probability: 0.25 and 0.26"),
    ],
    ids=["whole", "said again as it was", "lost", "of nothing", "said again differently"],
)
def test_scores(said: By, fault: str) -> None:
    found = faults(judge_scores, "fraud", {"o1", "o2"}, said)
    assert (fault in found[0] and len(found) == 1) if fault else not found


@pytest.mark.parametrize(
    ("served", "fault"),
    [
        ({"o1": [served_of(score())]}, ""),
        ({"o1": [served_of(score()), served_of(score(), served_at=7)]}, ""),
        ({}, "1 scores without served"),
        ({"o1": [served_of(score())], "o2": [served_of(score("o2"))]}, "o2 is served and has no score"),
        ({"o1": [served_of(score(), decision="block")]}, "is not what its score says"),
        ({"o1": [served_of(score(), cut={"clicks": 1, "orders": 0, "impressions": -1})]}, "the cut of o1 differs"),
        ({"o1": [served_of(score()), served_of(score(), features=served_of(score())["features"][:-1] + b"\1")]},
         "served of o1 differs"),
    ],
    ids=["whole", "again", "lost", "of nothing", "another decision", "another cut", "other features"],
)  # fmt: skip
def test_served(served: By, fault: str) -> None:
    found = faults(judge_served, "fraud", {"o1": [score()]}, served)
    assert (fault in found[0] and len(found) == 1) if fault else not found


def alert(order: str = "order-o1", **fields: Any) -> dict[str, Any]:
    return {"order_id": order, "alert_id": f"a-{order}", "decision": "review", "raised_at": 1, "links": []} | fields


@pytest.mark.parametrize(
    ("alerts", "fault"),
    [
        ([alert()], ""),
        ([alert(), alert(raised_at=8, links=["card:1"])], ""),
        ([], "1 orders are wrongly alerted, or wrongly not"),
        ([alert(), alert("order-o2")], "1 orders are wrongly alerted, or wrongly not"),
        ([alert(), alert(alert_id="other")], "the alerts of order-o1 differ: alert_id"),
        ([alert(), alert(decision="block")], "the alerts of order-o1 differ: decision"),
    ],
    ids=["whole", "explained anew", "lost", "of another order", "twice under two ids", "said again differently"],
)
def test_alerts(alerts: Records, fault: str) -> None:
    found = faults(judge_alerts, alerts, {"o1": [score(decision="review")], "o2": [score("o2")]})
    assert (fault in found[0] and len(found) == 1) if fault else not found


SENT = [("clicks", {"user_id": "ann", "event_id": f"c{n}"}) for n in (1, 2, 2, 3)]


def packed(counted: tuple[int, int, int]) -> bytes:
    """An empty user's row whose counts are these."""
    head = struct.pack("<BBHHi3I", 1, 0, 0, Shape().ids, 0, 0, 0, 0)
    sums = (*(0,) * 5, *counted, 0, 0)
    ids = b"".join(bytes(12) * min(count, places) for count, (_, places) in zip(counted, Shape().id_rings, strict=True))
    return head + struct.pack("<10q6q", *sums, *(-1,) * 6) + ids


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ({b"ann": packed((3, 0, 0))}, 0),
        ({b"ann": packed((4, 0, 0))}, 1),
        ({b"ann": packed((2, 0, 0))}, 1),
        ({}, 1),
        ({b"ann": packed((3, 0, 0)), b"bob": packed((1, 0, 0))}, 1),
    ],
    ids=["whole", "counted twice", "not counted", "forgotten", "of nobody"],
)
def test_counts(rows: dict[bytes, bytes], wrong: int) -> None:
    assert len(faults(judge_counts, SENT, rows)) == wrong


SHOWN = impression(event_id="i1", user_id="ann")  # ad-0, ad-1, ad-2
CLICKED = click(event_id="c1", user_id="ann", impression_id="i1", ad_id="ad-1")
BANK = {"target_id": "o1", "value": 1.0}
PUBLISHED = [("impressions", SHOWN), ("clicks", CLICKED), ("labels", BANK)]
ROW = {task: np.zeros(1, make_task(task).features).tobytes() for task in ("ctr", "fraud")}
SERVED = [
    {"task": "ctr", "target_id": "i1", "features": ROW["ctr"]},
    {"task": "fraud", "target_id": "o1", "features": ROW["fraud"]},
]


def example(key: tuple[str, str, str | None, str], label: float, revision: int = 0, **fields: Any) -> dict[str, Any]:
    task, target, candidate, name = key
    return {
        "example_id": f"{key}{revision}", "task": task, "target_id": target, "candidate_id": candidate, "name": name,
        "label": label, "revision": revision, "features": ROW[task],
    } | fields  # fmt: skip


def joined() -> Records:
    return [example(key, label) for key, label in expected_examples(PUBLISHED, "closing-").items()]


def test_what_is_expected_follows_from_what_was_published() -> None:
    expected = expected_examples(PUBLISHED, "closing-")
    assert expected["fraud", "o1", None, "fraud"] == 1.0
    assert expected["ctr", "i1", "ad-1", "click"] == 1.0
    assert set(expected.values()) <= {0.0, 1.0}
    assert not expected_examples([("impressions", SHOWN | {"user_id": "closing-1"})], "closing-")


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda found: found, ""),
        (lambda found: [*found, example(("ctr", "i1", "ad-1", "click"), 1.0, revision=1)], ""),
        (lambda found: found[:-1], "1 labels without an example"),
        (lambda found: [*found, found[0]], "1 examples are there more than once"),
        (lambda found: [*found, example(("ctr", "i9", "ad-1", "click"), 0.0, features=b"")], "nothing was said of"),
        (lambda found: [one | {"label": 1 - one["label"]} for one in found], "examples are wrong"),
        (lambda found: [found[0] | {"revision": 1}, *found[1:]], "1 examples are wrong"),
        (lambda found: [found[0] | {"features": b"\1" + found[0]["features"][1:]}, *found[1:]], "other features"),
    ],
    ids=["whole", "revised", "lost", "twice", "of nothing", "wrong labels", "a revision of nothing", "other features"],
)
def test_the_join(harm: Callable[[Records], Records], fault: str) -> None:
    served = [*SERVED, {"task": "ctr", "target_id": "i9", "features": ROW["ctr"]}]
    examples = [one if one["features"] else one | {"features": ROW["ctr"]} for one in harm(joined())]
    found = faults(judge_join, examples, served, expected_examples(PUBLISHED, "closing-"))
    assert any(fault in one for one in found) if fault else not found


def letter(value: bytes, **fields: Any) -> dict[str, Any]:
    made = {"topic": "events.clicks", "partition": 0, "offset": value[0], "code": "undecodable", "message": ""}
    return made | {"value": value} | fields


@pytest.mark.parametrize(
    ("letters", "fault"),
    [
        ([letter(b"a"), letter(b"b")], ""),
        ([letter(b"a"), letter(b"b"), letter(b"b")], ""),
        ([letter(b"a")], "1 bad messages are nowhere"),
        ([letter(b"a"), letter(b"b"), letter(b"good")], "1 dead letters of good messages"),
        ([letter(b"a"), letter(b"b"), letter(b"b", code="truncated")], "said again differently"),
    ],
    ids=["whole", "again", "lost", "of a good message", "for another reason"],
)
def test_letters(letters: Records, fault: str) -> None:
    found = faults(judge_letters, letters, [b"a", b"b"])
    assert (fault in found[0] and len(found) == 1) if fault else not found
