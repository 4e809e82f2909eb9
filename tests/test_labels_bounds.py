"""The rules of the label join that are about what comes too early, at the wrong time, or cannot be meant."""

import math
from typing import Any

import pytest

from schemas.errors import BadRecord, SettingsError
from streams.labels import rows
from streams.labels.derive import heartbeat
from streams.labels.join import MAX_EARLY, Join
from streams.labels.rules import Rule
from streams.labels.state import State
from streams.labels.store import MemoryLabelStore
from streams.labels.watermark import AHEAD_MS
from streams.tasks import TASKS, make_task
from tests.labels_shop import CTR, DAY, FOR_EVER, FRAUD, MINUTE, NOW, close, fraud, join_of, label, order, said, served
from tests.records import NOON_MS

# -- early, orphan -------------------------------------------------------------------------------------------


def test_a_label_before_its_served_record_waits_for_it() -> None:
    join = join_of()
    assert join.label(label(candidate="c"), NOW) == []
    assert join.label(label(candidate="a"), NOW) == []
    join.served(served(), 0, 0)
    assert said(close(join, 30 * MINUTE))[:2] == [("c", "click", 1.0, 0), ("a", "click", 1.0, 0)]
    assert (join.counts.early, join.counts.matched) == (2, 2)


def test_an_early_fraud_label_is_an_example_as_its_order_is_served() -> None:
    join = join_of(FRAUD)
    join.label(fraud(), NOW)
    assert said(join.served(order(), 0, 0)) == [(None, "fraud", 1.0, 0)]


def test_early_labels_are_judged_in_the_order_in_which_they_came() -> None:
    """A revision that came too late must not hide the label before it."""
    join = join_of()
    join.label(label(time=MINUTE), NOW)
    join.label(label(time=2 * 60 * MINUTE, revision=1, value=0.0), NOW)
    join.served(served(), 0, 0)
    assert join.counts.too_late == 1
    assert said(close(join, 30 * MINUTE))[0] == ("a", "click", 1.0, 0)


def test_an_early_label_that_comes_twice_waits_once() -> None:
    join = join_of()
    join.label(label(), NOW)
    join.label(label(), NOW)
    assert (join.counts.early, join.counts.duplicates) == (1, 1)


def test_an_early_label_of_what_was_not_served_in_the_end_is_counted() -> None:
    join = join_of()
    join.label(label(candidate="x"), NOW)
    join.served(served(), 0, 0)
    assert join.counts.unknown == 1
    assert all(one.label == 0 for one in close(join, 30 * MINUTE))


def test_a_label_without_a_served_record_within_window_and_grace_is_an_orphan() -> None:
    join = join_of()
    join.label(label(), NOW)
    close(join, 60 * MINUTE - 1)
    assert join.counts.orphans == 0
    close(join, 60 * MINUTE)
    assert join.counts.orphans == 1


def test_an_orphan_is_kept_as_dead_and_revived_by_its_served_record() -> None:
    join = join_of()
    join.label(label(), NOW)
    close(join, 60 * MINUTE)
    close(join, 2 * DAY)
    join.served(served(), 0, 0)
    assert join.counts.revived == 1
    assert said(close(join, 2 * DAY))[0] == ("a", "click", 1.0, 0)


def test_a_dead_label_is_forgotten_in_the_end() -> None:
    state = State(MemoryLabelStore(), 0)
    join = Join(CTR, state)
    join.label(label(), NOW)
    close(join, 60 * MINUTE)
    close(join, 30 * DAY)
    assert [row for _, row in state.changes] == [None]


def test_labels_that_wait_for_one_target_are_bounded() -> None:
    join = join_of()
    for number in range(MAX_EARLY):
        join.label(label(candidate=f"c{number}"), NOW)
    with pytest.raises(BadRecord, match=f"{MAX_EARLY} labels before"):
        join.label(label(candidate="one more"), NOW)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": "fraud"}, "task 'fraud'.*expected 'ctr'"),
        ({"name": "purchase"}, "name 'purchase'.*one of click, conversion"),
        ({"value": 1.01}, "value 1.01"),
        ({"value": -0.1}, "value -0.1"),
        ({"value": math.nan}, "value nan"),
        ({"revision": -1}, "revision -1"),
        ({"revision": 2**31}, "revision"),
        ({"target_id": ""}, "target_id ''"),
        ({"label_id": "x" * 300}, "label_id 'xxx.*1 to 256 characters"),
        ({"candidate_id": "x" * 300}, "candidate_id"),
        ({"observed_at": 1_700_000_000}, "observed_at 1700000000.*from the year 2000"),
        ({"observed_at": NOW + AHEAD_MS + 1}, "observed_at.*5 minutes past the broker's clock"),
        ({"candidate_id": "x"}, "candidate_id 'x'.*one that was served: a, b, c"),
        ({"candidate_id": None}, "candidate_id None"),
    ],
)
def test_a_label_that_cannot_be_meant_is_refused_by_name_and_changes_nothing(fields: Any, says: str) -> None:
    join = join_of()
    join.served(served(), 0, 0)
    with pytest.raises(BadRecord, match=says) as refused:
        join.label(label(**fields), NOW)
    assert refused.value.code == "out_of_range"
    assert len(close(join, 30 * MINUTE)) == 3


def test_a_candidate_on_a_task_without_any_is_refused() -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    with pytest.raises(BadRecord, match="no candidates"):
        join.label(fraud(candidate_id="a"), NOW)


def test_a_label_at_the_bound_of_the_clock_is_taken() -> None:
    join = join_of()
    join.label(label(observed_at=NOW + AHEAD_MS), NOW)
    assert join.counts.early == 1


def test_a_served_record_of_another_task_is_refused() -> None:
    with pytest.raises(BadRecord, match=r"'fraud'.*'ctr'"):
        join_of().served(order(), 0, 0)


def test_a_heartbeat_is_no_label() -> None:
    join = join_of()
    assert join.label(heartbeat("ctr", "derived", NOON_MS), NOW) == []
    assert join.counts.early == 0


# -- time and steps ------------------------------------------------------------------------------------------


def test_a_watermark_of_a_wrong_clock_closes_no_window_past_the_brokers() -> None:
    join = join_of()
    join.served(served(time=0), 0, 0)
    now = NOON_MS + 30 * MINUTE - AHEAD_MS - 1
    assert join.advance(NOON_MS + 40 * DAY, FOR_EVER, now) == []
    assert len(join.advance(NOON_MS + 40 * DAY, FOR_EVER, now + 1)) == 3


def test_windows_close_in_order_of_time_and_of_offset_within_one_time() -> None:
    join = join_of()
    for offset, time in [(9, 5), (4, 5), (300, 5), (2, 8), (70_000, 1)]:
        join.served(served(f"t{offset}", time), 0, offset)
    closed = [(one.event_time - NOON_MS, one.offset) for one in close(join, DAY)]
    assert list(dict.fromkeys(closed)) == [(1, 70_000), (5, 4), (5, 9), (5, 300), (8, 2)]


@pytest.mark.parametrize("stored", [True, False])
def test_a_call_goes_through_a_bounded_number_of_entries_and_says_that_there_are_more(stored: bool) -> None:
    state = State(MemoryLabelStore(), 0)
    join = Join(CTR, state, step=4)
    for number in range(10):
        join.served(served(f"t{number}"), 0, number)
    if stored:
        state.stored(0)
    counts = []
    join.behind = True
    while join.behind:
        counts.append(len(close(join, 30 * MINUTE)) // 3)
    assert counts == [4, 4, 2]


def test_what_is_over_can_wait_until_no_example_is_waited_for() -> None:
    state = State(MemoryLabelStore(), 0)
    join = Join(CTR, state, step=4)
    for number in range(6):
        join.served(served(f"t{number}"), 0, number)
    over = NOON_MS + 30 * DAY
    made = [len(join.advance(over, FOR_EVER, NOW, forgetting=False)) // 3 for _ in range(2)]
    assert (made, join.maturing, join.behind) == ([4, 2], False, True)
    assert len([row for _, row in state.changes if row is not None]) == 6
    while join.behind:
        assert not close(join, 30 * DAY)
    assert not [row for _, row in state.changes if row is not None]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_has_a_rule(name: str) -> None:
    rule = Rule.of(make_task(name))
    assert rule.task == name
    assert rule.longest_ms(True) <= 90 * DAY  # served is kept that long, and features are read from there


@pytest.mark.parametrize(("share", "window"), [(1.5, 10), (-0.1, 10), (0.5, 0)])
def test_a_rule_that_makes_no_sense_is_a_wrong_setting(share: float, window: int) -> None:
    with pytest.raises(SettingsError, match="task ctr"):
        Rule("ctr", "click", window, 10, negatives=share)


def test_a_waiting_entry_holds_no_features_and_is_small() -> None:
    state = State(MemoryLabelStore(), 0)
    Join(CTR, state).served(served("i" * 20, candidates=[f"ad-{n:05}" for n in range(8)], features=bytes(1_048)), 0, 0)
    Join(FRAUD, state).served(order("o" * 20, features=bytes(1_243)), 0, 1)
    slate, single = (row for _, row in state.changes if row)
    assert len(slate) <= 150
    assert len(single) <= 60
    assert rows.unpack(slate).candidates[7] == "ad-00007"
