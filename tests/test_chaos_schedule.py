"""The plan of a bad night: the same for the same seed, every kind in it, and never two faults on one thing."""

from itertools import combinations, pairwise
from math import isclose
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.night.faults import BROKERS, FAULTS
from tests.chaos.night.schedule import draw

BOUNDS = {name: fault.bounds for name, fault in FAULTS.items()}
PAUSE_S = (2.0, 8.0)
seeds = st.integers(0, 2**30)
unhurried = settings(deadline=None, max_examples=50)


def night(seed, minutes):
    return draw(seed, minutes * 60, BOUNDS, PAUSE_S)


@unhurried
@given(seeds)
def test_every_kind_comes_within_half_an_hour_and_none_is_a_rarity(seed):
    kinds = [strike.kind for strike in night(seed, 30)]
    assert set(kinds) == FAULTS.keys()
    assert min(kinds.count(kind) for kind in FAULTS) >= 3


@unhurried
@given(seeds, st.floats(0.5, 40))
def test_two_faults_that_touch_one_thing_are_never_on_at_once(seed, minutes):
    for one, other in combinations(night(seed, minutes), 2):
        if one.touches & other.touches:
            first, second = sorted((one, other), key=lambda strike: strike.start_s)
            assert first.end_s + BOUNDS[first.kind].settle_s <= second.start_s


@unhurried
@given(seeds, st.floats(0.5, 40))
def test_a_fault_lasts_as_long_as_its_kind_may_and_is_over_before_the_end(seed, minutes):
    for strike in night(seed, minutes):
        bounds = BOUNDS[strike.kind]
        lasts = strike.end_s - strike.start_s
        assert bounds.least_s <= lasts <= bounds.most_s or isclose(lasts, bounds.least_s, abs_tol=1e-9)
        assert 0 < strike.start_s <= strike.end_s <= minutes * 60
        assert strike.touches == bounds.targets[strike.target]


@unhurried
@given(seeds)
def test_a_seed_gives_its_night_again_and_another_seed_another(seed):
    assert night(seed, 3) == night(seed, 3)
    assert night(seed, 3) != night(seed + 1, 3)


@unhurried
@given(seeds)
def test_faults_come_together_on_different_things(seed):
    plan = night(seed, 30)
    assert any(one.end_s > other.start_s for one, other in pairwise(plan))


def test_whatever_may_take_a_broker_away_touches_all_brokers():
    """Two of three away, and nothing can be written: min.insync.replicas is 2."""
    striking = [name for name, fault in FAULTS.items() if fault.bounds.targets.keys() & BROKERS.keys()]
    assert len(striking) >= 4
    for name in [*striking, "change the controller"]:
        assert all(touched == {"brokers"} for touched in BOUNDS[name].targets.values())


def test_the_page_tells_of_every_kind_and_of_no_other():
    page = (Path(__file__).parent.parent / "docs" / "chaos.md").read_text("utf-8")
    rows = page.partition("<!-- faults -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(FAULTS)
