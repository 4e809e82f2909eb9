"""Every example trains once: whatever comes late, is held back, or is refused in between."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.release import HELD_ROWS
from streams.learner.cycle import batch_of
from streams.learner.split import MOST_HELD, Arrivals, Split, mature_until, split
from streams.learner.standing import Standing

NOTHING = Standing.of({})

rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 50), st.booleans(), st.booleans()), min_size=1, max_size=40
)  # partition, event time, positive, of this task


def cut(arrivals: Arrivals, learned: Standing, *, silence: bool = True, most: int = 10**9) -> Split:
    return split(arrivals, learned, silence=silence, most=most, window=0.25, gate_labels=4)


def add(arrivals: Arrivals, ends: Counter[int], rows: list[tuple[int, int, bool, bool]]) -> None:
    for partition, time, positive, ours in rows:
        if ours:
            arrivals.add(partition, ends[partition], time, positive=positive, silent=not positive)
        ends[partition] += 1
        arrivals.read_to(partition, ends[partition])


def training(arrivals: Arrivals, before: Standing, after: Standing) -> set[tuple[int, int]]:
    places = arrivals.partition, arrivals.offset, arrivals.time
    chosen = after.learned(*places) & ~before.learned(*places)
    return set(zip(arrivals.partition[chosen].tolist(), arrivals.offset[chosen].tolist(), strict=True))


def held_out(arrivals: Arrivals, before: Standing, found: Split) -> set[tuple[int, int]]:
    """Of the gate, and of those to stop by."""
    time = arrivals.time
    chosen = ~before.learned(arrivals.partition, arrivals.offset, time)
    chosen &= (time > found.standing.until) & (time <= found.held_until) | (time > found.gate_after)
    return set(zip(arrivals.partition[chosen].tolist(), arrivals.offset[chosen].tolist(), strict=True))


@given(st.lists(st.tuples(rows, st.booleans()), min_size=1, max_size=5), st.integers(1, 30), st.booleans())
def test_over_many_fine_tunes_no_example_trains_twice_and_none_is_lost(
    rounds: list[tuple[list[tuple[int, int, bool, bool]], bool]], most: int, silence: bool
) -> None:
    arrivals, ends, learned, taught = Arrivals(), Counter[int](), NOTHING, set[tuple[int, int]]()
    apart = set[tuple[int, int]]()
    for more, passes in rounds:
        add(arrivals, ends, more)
        if not len(arrivals):
            continue
        found = cut(arrivals, learned, silence=silence, most=most)
        trained = training(arrivals, learned, found.standing)
        assert found.training == len(trained)
        assert not trained & taught
        assert not trained & held_out(arrivals, learned, found), "what it is stopped or judged by does not train"
        kept = learned.learned(arrivals.partition, arrivals.offset, arrivals.time)
        still = found.standing.learned(arrivals.partition, arrivals.offset, arrivals.time)
        assert (still | ~kept).all(), "what was learned stays learned"
        if passes:
            taught |= trained
            apart |= held_out(arrivals, learned, found)
            learned = Standing.of({"standing": found.standing.as_dict()})
            fresh = arrivals.time[~still]
            arrivals.forget(learned)
            assert sorted(arrivals.time.tolist()) == sorted(fresh.tolist())
    every = arrivals.partition, arrivals.offset, arrivals.time
    assert not learned.learned(*every).any(), "what is left is still to be learned"
    left = set(zip(arrivals.partition.tolist(), arrivals.offset.tolist(), strict=True))
    assert apart <= taught | left, "what was held out has trained since, or is still to be learned"


@given(rows, st.booleans())
def test_the_gate_sees_only_what_is_younger_than_all_training_and_older_than_what_is_held_back(
    more: list[tuple[int, int, bool, bool]], silence: bool
) -> None:
    arrivals = Arrivals()
    add(arrivals, Counter(), more)
    found = cut(arrivals, NOTHING, silence=silence)
    assert found.standing.until <= found.held_until <= found.gate_after <= max(found.mature, found.gate_after)
    time = arrivals.time
    assert found.gate == int(((time > found.gate_after) & (time <= found.mature)).sum())
    assert found.training + found.gate <= found.new
    assert found.new + found.held == len(arrivals)


def test_a_young_positive_waits_until_silence_of_its_time_has_matured() -> None:
    arrivals, ends = Arrivals(), Counter[int]()
    add(arrivals, ends, [(0, time, False, True) for time in range(20)] + [(0, 100, True, True)])
    assert mature_until(arrivals, True) == 19
    found = cut(arrivals, NOTHING)
    assert found.held == 1
    assert found.standing.start[0] == 12, "reading begins again with the first that was left"
    assert cut(arrivals, NOTHING, silence=False).held == 0


def test_what_is_too_much_for_one_fine_tune_trains_in_the_next_the_oldest_first() -> None:
    arrivals, ends = Arrivals(), Counter[int]()
    add(arrivals, ends, [(0, time, time % 10 == 0, True) for time in range(100)])
    first = cut(arrivals, NOTHING, silence=False, most=30)
    assert (first.training, first.standing.until, first.gate, first.gate_after) == (24, 23, 10, 89)
    second = cut(arrivals, first.standing, silence=False, most=30)
    assert (second.training, second.standing.until) == (24, 47)


def test_what_a_fine_tune_was_stopped_by_is_the_first_to_train_in_the_next() -> None:
    arrivals, ends = Arrivals(), Counter[int]()
    add(arrivals, ends, [(0, time, time % 10 == 0, True) for time in range(100)])
    first = cut(arrivals, NOTHING)
    assert (first.standing.until, first.held_until, first.gate_after) == (59, 74, 74)
    second = cut(arrivals, first.standing)
    assert training(arrivals, first.standing, second.standing) == {(0, time) for time in range(60, 84)}
    assert second.gate_after >= first.standing.until, "the gate's window has never trained"


def test_no_more_are_held_out_than_a_release_is_checked_with() -> None:
    arrivals, ends = Arrivals(), Counter[int]()
    add(arrivals, ends, [(0, time, False, True) for time in range(60_000)])
    found = cut(arrivals, NOTHING, silence=False)
    assert found.training == 45_000 - MOST_HELD
    assert MOST_HELD == HELD_ROWS


def test_the_gates_window_grows_with_what_may_train_and_no_further() -> None:
    arrivals, ends = Arrivals(), Counter[int]()
    add(arrivals, ends, [(0, time, time % 10 == 0, True) for time in range(1_000)])
    found = cut(arrivals, NOTHING, silence=False, most=300)
    assert (found.gate, found.gate_after) == (100, 899)
    assert (found.held_until, found.new) == (299, 1_000)
    assert cut(arrivals, NOTHING, silence=False, most=3).gate == 4, "what the gate asks for it gets"


def test_a_late_example_trains_in_the_next_fine_tune() -> None:
    arrivals, ends = Arrivals(), Counter[int]()
    add(arrivals, ends, [(0, time, False, True) for time in range(20)])
    first = cut(arrivals, NOTHING)
    add(arrivals, ends, [(0, 3, True, True)])
    late = training(arrivals, first.standing, cut(arrivals, first.standing).standing)
    assert (0, 20) in late


def test_a_standing_comes_back_from_a_manifest_as_it_was() -> None:
    standing = Standing({0: 5, 3: 7}, {0: 9, 3: 8}, 1_000)
    assert Standing.of({"standing": standing.as_dict()}) == standing
    places = np.array([0, 0, 0, 3, 4]), np.array([4, 6, 9, 7, 0]), np.array([2_000, 900, 900, 2_000, 900])
    assert standing.learned(*places).tolist() == [True, True, False, False, False]


def test_few_examples_are_many_small_steps_and_many_are_steps_of_the_usual_size() -> None:
    assert [batch_of(count) for count in (0, 50, 700, 1_700, 6_500, 13_000, 10**6)] == [16, 16, 16, 16, 64, 128, 128]
