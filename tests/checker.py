"""Judges a run by its topics: every input has its outcome, repeats say the same, and state is what the inputs make it.
It looks from outside, at records only, so that it fits any order of crashes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.replay import TASK_OF_TOPIC, comparable, read_topic, replayed
from streams.changelog import Frontier
from streams.config import Settings
from streams.offsets import bounds, committed, read_range
from streams.state import Shape
from streams.tasks import make_task
from tests import shop
from tests.state_oracle import read

Record = Mapping[str, Any]
Sent = Sequence[tuple[str, dict[str, Any]]]

# When and how fast an answer was made may differ where it is made again; what was answered may not.
OF_THE_MOMENT = {"scored_at", "served_at", "timings", "bucket", "row"}
# Why an order was held is explained anew with what is known of its card and address by then; that it was held is not.
OF_THE_EXPLANATION = {
    "raised_at", "features", "links", "linked", "reasons", "contributions", "completeness_error", "sentences",
}  # fmt: skip


@dataclass(slots=True)
class Report:
    """What was counted; `faults` is empty if all holds."""

    events: int = 0
    scores: int = 0
    repeated_scores: int = 0
    repeated_served: int = 0
    alerts: int = 0
    users: int = 0
    features_replayed: int = 0
    examples: int = 0
    revised_examples: int = 0
    dead_letters: int = 0
    faults: list[str] = field(default_factory=list)

    def expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)


def events_by_task(sent: Sent) -> dict[str, set[str]]:
    """Ids that must have a score, by task; `sent` names topics by their setting."""
    ids: dict[str, set[str]] = {task: set() for task in TASK_OF_TOPIC.values()}
    for topic, event in sent:
        ids[TASK_OF_TOPIC[topic]].add(event["event_id"])
    return ids


def finished(settings: Settings) -> bool:
    """Whether every input is committed, and saved state stands at what is committed."""
    inputs = settings.topics.inputs
    places = [(topic, partition) for topic in inputs for partition in range(settings.partitions)]
    ends = {place: high for place, (_, high) in bounds(settings, places).items()}
    read = {place: 0 for place in places} | committed(settings, settings.app_id, places)
    if any(_left(settings, place, read[place], end) for place, end in ends.items()):
        return False
    return all(
        frontier_of(settings, partition) == [read[topic, partition] for topic in inputs]
        for partition in range(settings.partitions)
        if any(ends[topic, partition] for topic in inputs)
    )


def _left(settings: Settings, place: tuple[str, int], start: int, end: int) -> bool:
    """Whether records are left there: the marks of transactions have offsets too, and are none."""
    return start < end and any(any(True for _ in batch) for batch in read_range(settings, *place, start, end))


def frontier_of(settings: Settings, partition: int) -> list[int] | None:
    frontier, _ = _changelog(settings, partition)
    return list(frontier.inputs) if frontier else None


def check(settings: Settings, sent: Sent, *, replay: bool = True) -> Report:
    """Judges the topics of `settings` after all of `sent` was published and `finished`."""
    report = Report(events=len({event["event_id"] for _, event in sent}))
    scores = {task: _by_event(shop.scores(settings, task)) for task in TASK_OF_TOPIC.values()}
    for task, ids in events_by_task(sent).items():
        judge_scores(report, task, ids, scores[task])
        served = _by_event(shop.read(settings, settings.topics.served(task), "served"))
        judge_served(report, task, scores[task], served)
    judge_alerts(report, shop.read(settings, settings.topics.alerts, "fraud_alert"), scores["fraud"])
    judge_counts(report, sent, state_rows(settings))
    if replay:
        _check_against_replay(report, settings)
    return report


def state_rows(settings: Settings) -> dict[bytes, bytes]:
    """Packed rows of all users by user id, as the changelog has them."""
    rows: dict[bytes, bytes] = {}
    for partition in range(settings.partitions):
        rows |= _changelog(settings, partition)[1]
    return rows


def differing_users(one: Mapping[bytes, bytes], other: Mapping[bytes, bytes]) -> list[str]:
    """Users whose rows are not byte-equal: a packed row holds what is valid and nothing else."""
    return sorted(user.decode() for user in one.keys() | other.keys() if one.get(user) != other.get(user))


def judge_scores(report: Report, task: str, ids: set[str], scores: Mapping[str, Sequence[Record]]) -> None:
    """Each of `ids` has a score, nothing else has, and what is said again is the same. `scores` by event id."""
    report.scores += len(scores)
    lost, strange = ids - scores.keys(), scores.keys() - ids
    report.expect(not lost, f"{task}: {len(lost)} events without a score, such as {sorted(lost)[:3]}")
    report.expect(not strange, f"{task}: {len(strange)} scores of unknown events, such as {sorted(strange)[:3]}")
    for event_id, said in scores.items():
        report.repeated_scores += len(said) - 1
        report.expect(_equal(said), f"{task}: the scores of {event_id} differ: {_difference(said)}")


def judge_served(
    report: Report, task: str, scores: Mapping[str, Sequence[Record]], served: Mapping[str, Sequence[Record]]
) -> None:
    """Each score has its `served` record, which says what the score says. Both by event id."""
    unserved = scores.keys() - served.keys()
    report.expect(not unserved, f"{task}: {len(unserved)} scores without served, such as {sorted(unserved)[:3]}")
    known = make_task(task)
    for event_id, records in served.items():
        report.repeated_served += len(records) - 1
        alike = [{**record, "features": comparable(known, record["features"])} for record in records]
        report.expect(_equal(alike), f"{task}: served of {event_id} differs: {_difference(alike)}")
        if event_id not in scores:
            report.expect(False, f"{task}: {event_id} is served and has no score")
            continue
        said = known.said(scores[event_id][0])
        for record in records:
            same = record["prediction"] == said.prediction and record["decision"] == said.decision
            report.expect(same, f"{task}: served of {event_id} is not what its score says")
            report.expect(record["cut"] == scores[event_id][0]["cut"], f"{task}: the cut of {event_id} differs")


def judge_alerts(report: Report, alerts: Iterable[Record], scores: Mapping[str, Sequence[Record]]) -> None:
    """An order that is held has one alert, said again at most with another explanation; no other order has one."""
    raised: dict[str, list[Record]] = defaultdict(list)
    for alert in alerts:
        raised[alert["order_id"]].append(alert)
    report.alerts = len(raised)
    for order, found in raised.items():
        said = [{name: value for name, value in one.items() if name not in OF_THE_EXPLANATION} for one in found]
        report.expect(_equal(said), f"the alerts of {order} differ: {_difference(said)}")
    ids = Counter(alert_id for found in raised.values() for alert_id in {alert["alert_id"] for alert in found})
    report.expect(all(count == 1 for count in ids.values()), "an alert id of several orders")
    due = {said[0]["order_id"] for said in scores.values() if said[0]["decision"] in ("review", "block")}
    report.expect(due == raised.keys(), f"{len(due ^ raised.keys())} orders are wrongly alerted, or wrongly not")


def judge_counts(report: Report, sent: Sent, rows: Mapping[bytes, bytes]) -> None:
    """Each user's state has counted each of their events once: read from the packed rows, and from what was sent."""
    ids: dict[str, tuple[set[str], ...]] = defaultdict(lambda: tuple(set[str]() for _ in TASK_OF_TOPIC))
    for topic, event in sent:
        ids[event["user_id"]][list(TASK_OF_TOPIC).index(topic)].add(event["event_id"])
    counted = {user.decode(): read(row, Shape())["counted"] for user, row in rows.items()}
    wrong = [
        f"{user}: {counted.get(user)} instead of {[len(each) for each in ids[user]]}"
        for user in sorted(ids.keys() | counted.keys())
        if counted.get(user) != [len(each) for each in ids[user]]
    ]
    report.expect(not wrong, f"events are counted wrongly of {len(wrong)} users, such as {wrong[:3]}")


def _check_against_replay(report: Report, settings: Settings) -> None:
    """State and features against one undisturbed pass over the same inputs, through the same code."""
    again = replayed(settings)
    report.features_replayed = again.compared
    report.expect(not again.differences, f"features differ on replay: {again.differences[:3]}")
    report.expect(not again.cuts, f"cuts differ on replay: {again.cuts[:3]}")
    rows = state_rows(settings)
    report.users = len(rows)
    wrong = differing_users(rows, again.rows)
    report.expect(not wrong, f"{len(wrong)} users' state differs from an undisturbed pass: {wrong[:3]}")


def _by_event(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record["event_id"]].append(record)
    return dict(found)


def _lasting(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in OF_THE_MOMENT}


def _equal(records: Sequence[Record]) -> bool:
    first = _lasting(records[0])
    return all(_lasting(record) == first for record in records[1:])


def _difference(records: Sequence[Record]) -> str:
    first = _lasting(records[0])
    for record in records[1:]:
        for name, value in _lasting(record).items():
            if value != first[name]:
                return f"{name}: {str(first[name])[:100]} and {str(value)[:100]}"
    return ""


def _changelog(settings: Settings, partition: int) -> tuple[Frontier | None, dict[bytes, bytes]]:
    """Newest frontier and rows. Reads only: a changelog that is acquired would fence the worker."""
    rows: dict[bytes, bytes] = {}
    frontier: bytes | None = None
    for message in read_topic(settings, settings.topics.state, partition):
        key, value = message.key(), message.value()
        if key == b"f:":
            frontier = value
        elif value is None:
            rows.pop(key[2:], None)
        else:
            rows[key[2:]] = value
    return (Frontier.unpack(frontier) if frontier else None), rows


def dead_letters(settings: Settings) -> list[dict[str, Any]]:
    """All letters on the topic; marks of a replay are left out."""
    return shop.read(settings, settings.topics.deadletters, "dead_letter")
