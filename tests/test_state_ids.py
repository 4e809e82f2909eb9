"""What user state recognises: an event that has come before, a card or address that was used before."""

import pytest

from streams.batch import IMPRESSIONS
from streams.state import Shape
from tests.state_events import DAY, HOUR, click, cut_up, make_event, order, with_offsets
from tests.state_oracle import Oracle, read
from tests.state_runs import SHAPE, TINY, make_state, rows_of, take


def test_a_repeat_moves_the_cut_and_nothing_else() -> None:
    state = make_state()
    take(state, with_offsets([click(time=1)]))
    repeat = take(state, [click(time=1)._replace(offset=1), click(time=1)._replace(offset=2)])
    assert [(one.fresh, one.cut[0], one.totals) for one in repeat] == [(False, n, (0,) * 5) for n in (1, 2)]
    assert read(rows_of(state)[b"u0"], SHAPE)["totals"] == [1, 0, 0, 0, 0]


def test_one_event_id_may_come_on_two_topics() -> None:
    twin = make_event(0, IMPRESSIONS, 1, 0, 1, ())._replace(id=click(time=1).id)
    found = take(make_state(), with_offsets([click(time=1), twin]))
    assert [one.fresh for one in found] == [True, True]


def test_an_event_that_was_forgotten_and_comes_again_does_not_see_itself() -> None:
    state = make_state(TINY, per_user=1)
    again = click(time=100, number=9)
    take(state, with_offsets([again, *[click(time=n, number=n) for n in range(1, 6)]]))
    found = take(state, [again._replace(offset=6)])
    assert (found[0].fresh, found[0].late, found[0].totals[0]) == (True, True, 5)
    assert 100 not in [entry[2] for entry in found[0].history]


def test_a_user_who_gets_the_place_of_another_does_not_get_the_others_ids() -> None:
    state = make_state(slots=1)
    for batch in cut_up(with_offsets([click(user=0, time=1 + n, number=n) for n in range(200)]), [50] * 4):
        take(state, batch)
    newer = [click(user=2, time=300 + n, number=1_000 + n) for n in range(40)]
    take(state, with_offsets(newer))
    found = take(state, [click(user=2, time=400, number=n)._replace(offset=50 + n) for n in range(100)])
    assert all(one.fresh for one in found)


def test_another_users_event_id_is_no_repeat() -> None:
    found = take(make_state(), with_offsets([click(user=0), click(user=1)]))
    assert [one.fresh for one in found] == [True, True]


@pytest.mark.parametrize(("later", "fresh"), [(DAY - HOUR, False), (DAY, False), (DAY + HOUR, True)])
def test_an_id_is_remembered_for_a_day_even_if_many_came_after_it(later: int, fresh: bool) -> None:
    state = make_state()
    stream = [click(time=HOUR + n, number=n) for n in range(1_000)]
    for batch in cut_up(with_offsets(stream), [100] * 10):
        take(state, batch)
    newer = [click(time=HOUR + later, number=5_000), click(time=HOUR, number=0)]
    found = take(state, [event._replace(offset=2_000 + n) for n, event in enumerate(newer)])
    assert found[1].fresh is fresh


def test_the_newest_ids_are_remembered_however_old_they_are() -> None:
    state = make_state()
    take(state, with_offsets([click(time=HOUR, number=1), click(time=400 * DAY, number=2)]))
    assert not take(state, [click(time=HOUR, number=1)._replace(offset=2)])[0].fresh


@pytest.mark.parametrize(("others", "fresh"), [(31, False), (32, True)])
@pytest.mark.parametrize("before", [0, 10, 31])
def test_as_many_of_the_newest_ids_are_remembered_as_there_is_room_for(others: int, fresh: bool, before: int) -> None:
    """32 clicks, be the others in an earlier batch or in the same."""
    state = make_state()
    stream = [click(time=HOUR, number=1)]
    stream += [click(time=HOUR + DAY * n, number=100 + n) for n in range(2, others + 2)]
    stream = with_offsets([*stream, click(time=HOUR, number=1)])
    take(state, stream[: before + 1])
    assert take(state, stream[before + 1 :])[-1].fresh is fresh


def test_what_is_remembered_of_one_user_is_bounded_and_what_is_lost_is_counted() -> None:
    state = make_state(Shape(page=32), per_user=100)
    take(state, with_offsets([click(time=1 + n, number=n) for n in range(150)]))
    assert state.dedupe_evictions == 50
    found = take(state, [click(time=150, number=n)._replace(offset=200 + n) for n in (50, 49)])
    assert [one.fresh for one in found] == [False, True]


def test_a_user_may_be_heavy_on_every_topic() -> None:
    shape = Shape(page=32)
    state, oracle = make_state(shape, slots=1, per_user=90), Oracle(shape, 90)
    stream = with_offsets([make_event(0, n % 3, 1 + n, n % 280, 2, (0,) * 5) for n in range(320)])
    for batch in cut_up(stream, [40] * 8):
        assert take(state, batch) == oracle.absorb(batch)
    assert read(rows_of(state)[b"u0"], shape) == oracle.view("u0")


def test_a_token_is_known_if_the_user_used_it_before_the_orders_time() -> None:
    stream = [
        order(time=10, number=1, tokens=(1, 1, 1, 0, 0)),
        order(time=10, number=2, tokens=(1, 1, 2, 0, 0)),
        order(time=20, number=3, tokens=(1, 3, 2, 1, 0)),
        order(user=1, time=30, number=4, tokens=(1, 1, 1, 1, 1)),
    ]
    found = take(make_state(), with_offsets(stream))
    assert [one.known for one in found[:3]] == [
        (False,) * 5,
        (False,) * 5,
        (True, False, True, False, False),
    ]
    assert found[3].known == (False,) * 5


def test_the_least_recently_used_token_gives_way() -> None:
    state = make_state()
    stream = [order(time=n, number=n, tokens=(n, 0, 0, 0, 0)) for n in range(1, 21)]
    stream += [
        order(time=30, number=30, tokens=(1, 0, 0, 0, 0)),
        order(time=31, number=31, tokens=(99, 0, 0, 0, 0)),
    ]
    stream += [order(time=40 + n, number=40 + n, tokens=(n, 0, 0, 0, 0)) for n in (1, 3, 2)]
    found = take(state, with_offsets(stream))
    assert [one.known[0] for one in found[-3:]] == [True, True, False]
