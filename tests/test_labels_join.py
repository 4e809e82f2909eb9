"""The rules of the label join, one by one: what becomes of each kind of label, and of none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.labels.join import Join
from streams.labels.joined import Joined, example_id
from streams.labels.rules import Rule
from streams.labels.state import State
from streams.labels.store import MemoryLabelStore
from tests.labels_shop import CTR, DAY, FRAUD, MINUTE, NOW, close, fraud, join_of, label, order, said, served
from tests.records import NOON_MS

# -- match ---------------------------------------------------------------------------------------------------


def test_a_click_matures_with_the_negatives_around_it_when_the_window_closes() -> None:
    join = join_of()
    assert join.served(served(), 3, 17) == []
    assert join.label(label(candidate="b", time=5 * MINUTE), NOW) == []
    assert close(join, 30 * MINUTE - 1) == []
    assert said(close(join, 30 * MINUTE)) == [("b", "click", 1.0, 0), ("a", "click", 0.0, 0), ("c", "click", 0.0, 0)]
    assert close(join, 31 * MINUTE) == []


def test_an_example_points_to_its_served_record_and_is_dated_by_event_time() -> None:
    join = join_of()
    join.served(served(time=7), 3, 17)
    one = close(join, 30 * MINUTE + 7)[0]
    assert (one.partition, one.offset, one.event_time) == (3, 17, NOON_MS + 7)
    assert one.matured_at == NOON_MS + 7 + 30 * MINUTE


def test_a_fraud_label_is_an_example_as_it_comes() -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    (one,) = join.label(fraud(time=DAY), NOW)
    assert (one.candidate_id, one.label, one.revision, one.matured_at) == (None, 1.0, 0, NOON_MS + DAY)
    assert close(join, 28 * DAY) == []


def test_a_verdict_of_innocence_is_an_example_too_and_no_second_one_follows_from_silence() -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    assert said(join.label(fraud(value=0.0), NOW)) == [(None, "fraud", 0.0, 0)]
    assert close(join, 28 * DAY) == []


def test_an_example_completed_by_its_served_record_fits_the_contract() -> None:
    join, record, registry = join_of(), served(), MemoryRegistry()
    join.served(record, 0, 0)
    example = close(join, DAY)[0].example(record)
    kept = Encoder(registry, "training.examples", "training_example")(example)
    assert Decoder(registry, "training_example")(kept) == example


def test_tasks_share_a_state_and_do_not_see_each_other() -> None:
    state = State(MemoryLabelStore(), 0)
    ctr, frauds = Join(CTR, state), Join(FRAUD, state)
    ctr.served(served("same"), 0, 0)
    frauds.served(order("same"), 0, 0)
    assert len(close(ctr, 400 * DAY)) == 3
    assert len(close(frauds, 300 * DAY)) == 1


# -- silence -------------------------------------------------------------------------------------------------


def test_silence_is_no_answer_while_the_source_is_silent_altogether() -> None:
    join = join_of()
    join.served(served(), 0, 0)
    closed = NOON_MS + 30 * MINUTE
    assert close(join, DAY, alive=closed) == []
    assert len(close(join, DAY, alive=closed + 1)) == 3


def test_positives_wait_for_the_source_with_the_negatives_of_their_time() -> None:
    join = join_of()
    join.served(served(), 0, 0)
    join.label(label(), NOW)
    assert close(join, DAY, alive=0) == []
    assert len(close(join, DAY)) == 3


def test_only_what_was_shown_becomes_a_negative() -> None:
    join = join_of()
    join.served(served(shown=[True, False, True]), 0, 0)
    assert said(close(join, DAY)) == [("a", "click", 0.0, 0), ("c", "click", 0.0, 0)]


def test_an_ad_that_stands_in_a_slate_twice_is_one_candidate_shown_if_one_of_them_was() -> None:
    join = join_of()
    join.served(served(candidates=["a", "b", "a"], shown=[False, True, True]), 0, 0)
    assert said(close(join, DAY)) == [("a", "click", 0.0, 0), ("b", "click", 0.0, 0)]


def test_a_click_on_what_was_not_marked_as_shown_counts() -> None:
    join = join_of()
    join.served(served(shown=[True, False, True]), 0, 0)
    join.label(label(candidate="b"), NOW)
    assert ("b", "click", 1.0, 0) in said(close(join, DAY))


def test_silence_after_a_block_says_nothing_but_a_verdict_does() -> None:
    join = join_of(FRAUD)
    for offset, decision in enumerate(["approve", "review", "block"]):
        join.served(order(decision, decision=decision), 0, offset)
    assert [one.target_id for one in close(join, 28 * DAY)] == ["approve", "review"]
    assert said(join.label(fraud("block", value=0.0), NOW)) == [(None, "fraud", 0.0, 0)]


def test_other_outcomes_have_no_negatives() -> None:
    join = join_of()
    join.served(served(), 0, 0)
    join.label(label(name="conversion", time=MINUTE), NOW)
    assert said(close(join, 30 * MINUTE))[0] == ("a", "conversion", 1.0, 0)
    assert join.counts.negatives == 3


def test_a_conversion_counts_for_days_after_a_click_although_clicks_do_not() -> None:
    join = join_of()
    join.served(served(), 0, 0)
    join.label(label(), NOW)
    close(join, 2 * 60 * MINUTE)
    late = join.label(label(name="conversion", time=6 * DAY), NOW)
    assert said(late) == [("a", "conversion", 1.0, 0)]
    assert join.label(label(time=2 * 60 * MINUTE, revision=1), NOW) == []
    assert join.counts.too_late == 1


@given(st.floats(0.01, 1))
def test_a_share_of_the_negatives_is_kept_weighted_by_its_inverse(share: float) -> None:
    join = join_of(Rule("ctr", "click", 10, 10, negatives=share), step=10_000)
    for number in range(200):
        join.served(served(f"t{number}"), 0, number)
    kept = close(join, DAY)
    assert {one.weight for one in kept} <= {1 / share}
    assert 600 * share - 4 * math.sqrt(600 * share) <= len(kept) <= 600 * share + 4 * math.sqrt(600 * share)


def test_positives_are_all_kept_and_weigh_one() -> None:
    join = join_of(Rule("ctr", "click", 10, 10, negatives=0.0))
    join.served(served(), 0, 0)
    join.label(label(), NOW)
    (one,) = close(join, DAY)
    assert one.weight == 1


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_log_odds_offset_undoes_the_sampling(share: float) -> None:
    rate = 0.03
    sampled = rate / (rate + share * (1 - rate))
    rule = Rule("ctr", "click", 10, 10, negatives=share)
    logit = math.log(sampled / (1 - sampled)) + rule.log_odds_offset
    assert 1 / (1 + math.exp(-logit)) == pytest.approx(rate)


def test_a_decision_taken_with_a_propensity_is_weighted_by_its_inverse() -> None:
    join = join_of(FRAUD)
    join.served(order("o1", propensity=0.25), 0, 0)
    join.served(order("o2", propensity=0.25), 0, 1)
    assert join.label(fraud("o1"), NOW)[0].weight == 4
    assert close(join, 28 * DAY)[0].weight == 4


# -- late, revised, duplicate --------------------------------------------------------------------------------


def test_a_label_that_comes_after_the_negative_revises_it() -> None:
    join = join_of()
    join.served(served(), 0, 0)
    (first, *_) = close(join, 30 * MINUTE)
    (second,) = join.label(label(time=29 * MINUTE), NOW)
    assert (first.label, first.revision, second.label, second.revision) == (0.0, 0, 1.0, 1)
    assert (second.weight, second.candidate_id, join.counts.late) == (1.0, "a", 1)
    assert first.example_id == example_id("ctr", "t1", "a", "click", 0)
    assert second.example_id == example_id("ctr", "t1", "a", "click", 1)


def test_a_late_label_of_a_negative_that_was_not_kept_is_a_first_example() -> None:
    join = join_of(Rule("ctr", "click", 10, 100, negatives=0.0))
    join.served(served(), 0, 0)
    close(join, 20)
    assert said(join.label(label(time=30), NOW)) == [("a", "click", 1.0, 0)]


def test_an_outcome_after_the_grace_does_not_count() -> None:
    join = join_of()
    join.served(served(), 0, 0)
    assert join.label(label(time=60 * MINUTE + 1), NOW) == []
    assert join.counts.too_late == 1
    assert said(close(join, 30 * MINUTE))[0] == ("a", "click", 0.0, 0)


def test_a_revised_label_emits_a_revision() -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    join.label(fraud(value=0.0, source="analyst"), NOW)
    assert said(join.label(fraud(time=9 * DAY, revision=1), NOW)) == [(None, "fraud", 1.0, 1)]


def test_a_label_revised_before_the_window_closes_is_said_once_as_it_is_then() -> None:
    join = join_of()
    join.served(served(), 0, 0)
    join.label(label(), NOW)
    join.label(label(revision=1, value=0.0), NOW)
    assert said(close(join, 30 * MINUTE))[0] == ("a", "click", 0.0, 0)


def test_a_chargeback_counts_whatever_revision_an_analyst_has_come_to_and_a_verdict_no_more() -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    join.label(fraud(value=1.0, source="analyst"), NOW)
    assert said(join.label(fraud(value=0.0, source="analyst", revision=1), NOW)) == [(None, "fraud", 0.0, 1)]
    assert said(join.label(fraud(time=9 * DAY, label_id="bank"), NOW)) == [(None, "fraud", 1.0, 2)]
    assert join.label(fraud(value=0.0, source="analyst", revision=2), NOW) == []
    assert (join.counts.stale, join.counts.outranked) == (0, 1)
    assert said(join.label(fraud(value=0.0, revision=1, label_id="bank again"), NOW)) == [(None, "fraud", 0.0, 3)]


def test_a_verdict_that_is_withdrawn_gives_way_to_what_another_source_says_and_back() -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    join.label(fraud(value=0.0, source="shop"), NOW)
    assert said(join.label(fraud(source="analyst", label_id="v"), NOW)) == [(None, "fraud", 1.0, 1)]
    taken_back = fraud(value=0.0, source="analyst", revision=1, label_id="w", withdrawn=True)
    assert said(join.label(taken_back, NOW)) == [(None, "fraud", 0.0, 2)]


@pytest.mark.parametrize("closed", [False, True])
def test_a_verdict_that_is_withdrawn_leaves_what_silence_leaves(closed: bool) -> None:
    """Before the window has closed: nothing, an example of no weight; then the negative of silence."""
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    join.label(fraud(source="analyst"), NOW)
    silence: list[Joined] = []
    if closed:
        silence += close(join, 28 * DAY)
    taken_back = fraud(value=0.0, source="analyst", revision=1, time=DAY, label_id="w", withdrawn=True)
    (one,) = join.label(taken_back, NOW)
    assert (one.label, one.weight, one.revision, one.source) == (0.0, 1.0 * closed, 1, "" if closed else "analyst")
    silence += close(join, 28 * DAY)
    assert [(each.label, each.weight, each.revision, each.source) for each in silence] == (
        [] if closed else [(0.0, 1.0, 2, "")]
    )


@pytest.mark.parametrize("revision", [0, 1, 2])
def test_a_lower_or_equal_revision_is_counted_and_dropped(revision: int) -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    join.label(fraud(revision=2), NOW)
    assert join.label(fraud(value=0.0, revision=revision, label_id="another"), NOW) == []
    assert (join.counts.stale, join.counts.matched) == (1, 1)


def test_a_label_id_that_was_there_is_counted_and_dropped_whatever_its_revision() -> None:
    join = join_of(FRAUD)
    join.served(order(), 0, 0)
    join.label(fraud(label_id="same"), NOW)
    assert join.label(fraud(label_id="same", value=0.0, revision=5), NOW) == []
    assert join.counts.duplicates == 1


def test_a_record_served_twice_counts_once_and_keeps_its_first_place() -> None:
    join = join_of()
    join.served(served(), 0, 5)
    join.served(served(), 0, 6)
    assert {one.offset for one in close(join, DAY)} == {5}
    assert join.counts.repeated == 1


def test_what_no_label_can_reach_any_more_is_forgotten() -> None:
    store = MemoryLabelStore()
    state = State(store, 0)
    join = Join(CTR, state)
    join.served(served(), 0, 0)
    close(join, 30 * MINUTE)
    close(join, 60 * MINUTE - 1)
    state.stored(0)
    assert store.rows[0]
    close(join, 60 * MINUTE)
    state.stored(1)
    assert not store.rows[0]
