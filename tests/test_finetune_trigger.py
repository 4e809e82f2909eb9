"""When a fine-tune begins, for every state that can be seen; and the sentences that say why, or why not."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finetune.trigger import ASKED_EXAMPLES, KINDS, MOST_BACK_OFF, Seen, TriggerRule, ask, kind_of, why_not

RULE = TriggerRule(examples=5_000, positives=50, interval_s=600, every_s=7 * 86_400)
NOW_MS, DAY_MS = 1_800_000_000_000, 86_400_000
NEVER = -(2**62)
DRIFT = ("Scores are spread otherwise.",)
FEW = Seen(0, 0, NOW_MS, NOW_MS - DAY_MS, 0)

times = st.integers(0, NOW_MS) | st.just(NEVER)
seens = st.builds(
    Seen,
    examples=st.integers(0, 20_000),
    positives=st.integers(0, 200),
    newest=times,
    learned_until=times,
    started_at=st.integers(0, 100_000).map(lambda ago_s: NOW_MS - 1000 * ago_s) | st.just(0),
    asked=st.booleans(),
    paused=st.booleans(),
    attempts=st.integers(0, 100),
    tried=st.integers(0, 20_000),
)
rules = st.builds(
    TriggerRule,
    examples=st.integers(1, 10_000),
    positives=st.integers(1, 100),
    interval_s=st.floats(0, 3_600),
    every_s=st.floats(1, 1e6),
)
drifts = st.sampled_from([(), DRIFT])


@given(rules, seens, drifts)
def test_either_one_begins_with_a_reason_or_there_is_a_reason_why_not(
    rule: TriggerRule, seen: Seen, drift: tuple[str, ...]
) -> None:
    reason, against = ask(rule, seen, drift, NOW_MS), why_not(rule, seen, drift, NOW_MS)
    assert (reason is None) == bool(against)
    assert (reason or against).endswith(".")
    kind = kind_of(rule, seen, drift, NOW_MS)
    assert (kind in KINDS) == (reason is not None)
    words = {"asked": "It was asked for", "examples": "There are", "drift": "Drift", "time": "days of event time past"}
    assert kind is None or words[kind] in str(reason)


@given(rules, seens, drifts)
def test_none_begins_while_paused_or_without_a_positive(rule: TriggerRule, seen: Seen, drift: tuple[str, ...]) -> None:
    assert ask(rule, replace(seen, paused=True), drift, NOW_MS) is None
    assert ask(rule, replace(seen, positives=0), drift, NOW_MS) is None
    assert ask(rule, replace(seen, examples=0), drift, NOW_MS) is None


@given(rules, seens, drifts, st.integers(1, 3_600_000))
def test_unasked_none_begins_within_the_interval(
    rule: TriggerRule, seen: Seen, drift: tuple[str, ...], left_ms: int
) -> None:
    started_at = NOW_MS + left_ms - round(1000 * rule.interval_s)
    assume(started_at <= NOW_MS)
    assert ask(rule, replace(seen, asked=False, started_at=started_at), drift, NOW_MS) is None


@given(rules, seens, drifts)
def test_no_attempts_in_vain_hold_up_for_longer_than_sixteen_intervals(
    rule: TriggerRule, seen: Seen, drift: tuple[str, ...]
) -> None:
    assume(NOW_MS - seen.started_at >= MOST_BACK_OFF * 1000 * rule.interval_s)
    fresh = replace(seen, attempts=0, started_at=0)
    assert ask(rule, seen, drift, NOW_MS) == ask(rule, fresh, drift, NOW_MS)


@given(rules, seens, drifts, st.integers(0, 5_000), st.integers(0, 50))
def test_more_examples_never_stop_what_fewer_begin(
    rule: TriggerRule, seen: Seen, drift: tuple[str, ...], examples: int, positives: int
) -> None:
    more = replace(seen, examples=seen.examples + examples, positives=seen.positives + positives)
    assert ask(rule, seen, drift, NOW_MS) is None or ask(rule, more, drift, NOW_MS) is not None


@given(rules, seens)
def test_drift_never_stops_what_begins_without_it(rule: TriggerRule, seen: Seen) -> None:
    assert ask(rule, seen, (), NOW_MS) is None or ask(rule, seen, DRIFT, NOW_MS) is not None


@given(rules, seens, drifts)
def test_a_full_set_of_labels_begins_one_once_the_wait_is_over(
    rule: TriggerRule, seen: Seen, drift: tuple[str, ...]
) -> None:
    full = replace(seen, examples=rule.examples, positives=rule.positives, started_at=0, paused=False, asked=False)
    reason = ask(rule, full, drift, NOW_MS)
    assert reason is not None
    assert f"{rule.examples:,} new examples" in reason


@given(seens, st.integers(-(10**9), 10**9))
def test_a_clock_that_was_set_holds_none_up_for_longer_than_the_wait(seen: Seen, ahead_ms: int) -> None:
    waits = replace(seen, examples=5_000, positives=50, paused=False, asked=False, started_at=NOW_MS + ahead_ms)
    late = NOW_MS + ahead_ms + 1000 * MOST_BACK_OFF * 600
    assert ask(RULE, waits, (), late) is not None
    if ahead_ms > 1000 * MOST_BACK_OFF * 600:
        assert ask(RULE, waits, (), NOW_MS) is not None


@pytest.mark.parametrize(
    ("seen", "drift", "reason"),
    [
        (replace(FEW, examples=5_000, positives=50), (), "There are 5,000 new examples, 50 of them positive."),
        (replace(FEW, examples=4_999, positives=50), (), None),
        (replace(FEW, examples=9_000, positives=49), (), None),
        (
            replace(FEW, examples=1_000, positives=10),
            DRIFT,
            "Drift, with 1,000 new examples, 10 of them positive: Scores are spread otherwise.",
        ),
        (replace(FEW, examples=999, positives=10), DRIFT, None),
        (
            replace(FEW, examples=500, positives=5, learned_until=NOW_MS - 7 * DAY_MS),
            (),
            "The newest label is 7.0 days of event time past what was learned, with 500 new examples, 5 of them "
            "positive.",
        ),
        (replace(FEW, examples=500, positives=5), (), None),
        (replace(FEW, examples=500, positives=5, learned_until=NEVER), (), None),
        (
            replace(FEW, examples=ASKED_EXAMPLES, positives=1, asked=True, started_at=NOW_MS - 1, attempts=3),
            (),
            "It was asked for, with 100 new examples, 1 of them positive.",
        ),
        (replace(FEW, examples=99, positives=9, asked=True), (), None),
    ],
)
def test_what_begins_a_fine_tune(seen: Seen, drift: tuple[str, ...], reason: str | None) -> None:
    assert ask(RULE, seen, drift, NOW_MS) == reason


@pytest.mark.parametrize(("attempts", "intervals"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 16), (100_000, 16)])
def test_attempts_in_vain_double_the_wait(attempts: int, intervals: int) -> None:
    seen = replace(FEW, examples=6_000, positives=60, started_at=NOW_MS, attempts=attempts, tried=5_000)
    end = NOW_MS + intervals * 600_000
    assert ask(RULE, seen, (), end - 1) is None
    assert ask(RULE, seen, (), end) is not None
    doubled = replace(seen, examples=10_000)
    assert ask(RULE, doubled, (), NOW_MS + 600_000) is not None


@pytest.mark.parametrize(
    ("seen", "drift", "said"),
    [
        (replace(FEW, paused=True), (), "It is paused."),
        (replace(FEW, paused=True, asked=True), (), "It is paused; what was asked for begins when it is resumed."),
        (
            replace(FEW, examples=7, asked=True),
            (),
            "It was asked for, and waits: there are 7 new examples, 0 of them positive; it takes 100 and 1.",
        ),
        (FEW, (), "There are 0 new examples, 0 of them positive; it takes 5,000 and 50."),
        (FEW, DRIFT, "There are 0 new examples, 0 of them positive; it takes 1,000 and 10 under drift."),
        (
            replace(FEW, learned_until=NOW_MS - 8 * DAY_MS),
            (),
            "There are 0 new examples, 0 of them positive; it takes 500 and 5 after 7 days.",
        ),
        (
            replace(FEW, examples=6_000, positives=60, started_at=NOW_MS - 60_000, attempts=1, tried=5_000),
            (),
            "The last start was 60 s ago, after 1 in vain; the next can be in 1,140 s.",
        ),
    ],
)
def test_what_keeps_one_from_beginning(seen: Seen, drift: tuple[str, ...], said: str) -> None:
    assert why_not(RULE, seen, drift, NOW_MS) == said
