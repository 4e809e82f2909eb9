"""When history waits for live events, whatever the workers' group says in whatever order."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BrokerUnavailable, SettingsError
from streams.backfill.pacing import LOOK_S, Pace, Standing

MOST = 100


class Group:
    """Says one standing after the other, and counts how often it was asked."""

    def __init__(self, *standings: Standing | Exception) -> None:
        self._said: Iterator[Standing | Exception] = iter(standings)
        self.asked = 0

    def __call__(self) -> Standing:
        self.asked += 1
        found = next(self._said)
        if isinstance(found, Exception):
            raise found
        return found


def told(*standings: Standing | Exception, most: int = MOST) -> list[str]:
    """What it says when it looks at one after the other."""
    pace = Pace(most, Group(*standings))
    return [pace(LOOK_S * number, 0) for number in range(len(standings))]


def test_it_waits_above_what_is_allowed_and_goes_on_at_half_of_it() -> None:
    lags = [0, MOST, MOST + 1, MOST, MOST // 2 + 1, MOST // 2, MOST, 1_234_567]
    assert told(*(Standing(lag, 2) for lag in lags)) == [
        "", "", *(f"the workers are {lag} records behind" for lag in (101, 100, 51)), "", "",
        "the workers are 1,234,567 records behind",
    ]  # fmt: skip


def test_it_waits_for_nobody_where_no_worker_was_seen_and_for_one_that_went_away() -> None:
    assert told(Standing(5_000, 0), Standing(9_000, 0)) == ["", ""]
    before, gone, back, done = told(Standing(0, 1), Standing(5_000, 0), Standing(5_000, 1), Standing(3, 1))
    assert (before, done) == ("", "")
    assert gone == "no worker is there any more, and they were 5,000 records behind"
    assert back == "the workers are 5,000 records behind"


def test_a_broker_that_is_away_changes_nothing_and_a_right_that_is_missing_is_said() -> None:
    away = BrokerUnavailable("no answer")
    waits = "the workers are 101 records behind"
    assert told(Standing(0, 1), away, Standing(101, 1), away, away) == ["", "", waits, waits, waits]
    with pytest.raises(SettingsError):
        told(SettingsError("not allowed"))


def test_it_never_asks_where_nothing_is_waited_for() -> None:
    group = Group()
    pace = Pace(0, group)
    assert [pace(float(number), number * 10**6) for number in range(9)] == [""] * 9
    assert group.asked == 0


def test_it_looks_as_time_passes_and_as_much_is_published() -> None:
    group = Group(*[Standing(0, 1)] * 9)
    pace = Pace(MOST, group)
    for now, published, asked in [
        (0.0, 0, 1), (LOOK_S - 0.1, MOST // 4, 1), (LOOK_S, MOST // 4, 2), (LOOK_S, MOST // 2, 2),
        (LOOK_S, MOST // 2 + 1, 3), (LOOK_S, MOST // 2 + 2, 3),
    ]:  # fmt: skip
        pace(now, published)
        assert group.asked == asked, (now, published)


@given(st.lists(st.tuples(st.integers(0, 3 * MOST), st.integers(0, 2)), max_size=30))
def test_whatever_the_group_says(drawn: list[tuple[int, int]]) -> None:
    waited, seen = False, False
    for (lag, members), why in zip(drawn, told(*(Standing(*each) for each in drawn)), strict=True):
        seen = seen or members > 0
        if lag <= MOST // 2 or not seen:
            assert not why
        elif lag > MOST:
            assert f"{lag} records" in why
        else:
            assert bool(why) == waited
        waited = bool(why)
