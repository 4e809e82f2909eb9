from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from streams.recovery import horizon, processing_order


def _cuts(run):
    """Cuts of one user's events taken in the order `run` of (topic, offset)."""

    def absorb(cut, event):
        return tuple(event[1] if topic == event[0] else seen for topic, seen in enumerate(cut))

    return list(accumulate(run, absorb, initial=(-1, -1, -1)))[1:]


@st.composite
def runs(draw):
    """A predecessor's order of events over three topics, offsets ascending in each."""
    topics = draw(st.lists(st.integers(0, 2), min_size=1, max_size=12))
    nexts = [0, 0, 0]
    run = []
    for topic in topics:
        nexts[topic] += draw(st.integers(1, 3))
        run.append((topic, nexts[topic]))
    return run


@given(runs(), st.data())
def test_every_score_that_exists_finds_the_same_events_before_it(run, data):
    cuts = _cuts(run)
    said = [cut if data.draw(st.booleans()) else None for cut in cuts]
    shuffled = data.draw(st.permutations(range(len(run))))
    order = processing_order(
        ["u"] * len(run),
        [run[i][0] for i in shuffled],
        [run[i][1] for i in shuffled],
        [said[i] for i in shuffled],
    )
    again = [run[shuffled[i]] for i in order]
    for event, cut in zip(again, _cuts(again), strict=True):
        before = said[run.index(event)]
        assert before is None or before == cut


@given(runs())
def test_offsets_of_a_topic_stay_in_order_when_nothing_was_said(run):
    order = processing_order(["u"] * len(run), [t for t, _ in run], [o for _, o in run], [None] * len(run))
    for topic in range(3):
        offsets = [run[i][1] for i in order if run[i][0] == topic]
        assert offsets == sorted(offsets)


def test_users_do_not_hold_each_other_up():
    order = processing_order(["a", "b", "a"], [0, 0, 0], [5, 6, 7], [(5, -1, -1), None, (7, -1, -1)])
    assert order.tolist() == [0, 2, 1]


def test_the_horizon_is_the_newest_offset_of_each_topic_in_any_cut():
    assert horizon([(3, -1, 9), (4, 2, 1)]) == (4, 2, 9)
    assert horizon([]) == (-1, -1, -1)
