"""The short way for a few events: taken where nothing is unusual, and never to be told from the other."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.state import Shape
from streams.state.few import FEW, Few
from tests.state_events import Event, click, cut_up, long_streams, order, with_offsets
from tests.state_oracle import Oracle, Seen, read
from tests.state_runs import SHAPE, TINY, make_state, rows_of, take

# Many users, so that most batches are of different ones.
crowds = st.tuples(long_streams, st.permutations(range(50))).map(
    lambda drawn: [event._replace(user=f"u{place % 17}") for event, place in zip(drawn[0], drawn[1], strict=False)]
)
lengths = st.lists(st.integers(1, 8), min_size=50, max_size=50)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each small batch of different users went the short way."""
    found, absorb = [], Few.absorb

    def noted(few: Few, *args: object) -> object:
        absorbed = absorb(few, *args)  # type: ignore[arg-type]
        found.append(absorbed is not None)
        return absorbed

    monkeypatch.setattr(Few, "absorb", noted)
    return found


def ran(
    stream: Sequence[Event], batches: Sequence[int], shape: Shape, few: int
) -> tuple[list[Seen], dict[bytes, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.state.FEW", few)
        state = make_state(shape, per_user=12)
        return [one for batch in cut_up(stream, batches) for one in take(state, batch)], rows_of(state)


@settings(max_examples=150, deadline=None)
@given(crowds, lengths, st.sampled_from([TINY, SHAPE]))
def test_both_ways_say_the_same_and_leave_the_same(stream: list[Event], batches: list[int], shape: Shape) -> None:
    assert ran(stream, batches, shape, few=FEW) == ran(stream, batches, shape, few=0)


def test_different_users_with_nothing_unusual_go_the_short_way(short: list[bool]) -> None:
    state, oracle = make_state(), Oracle(SHAPE, 20_000)
    stream = with_offsets(
        [
            *[click(user, time=1, number=1 + user) for user in range(3)],
            *[order(user, time=2, number=9 + user, tokens=(1, 2, 0, 3, 4)) for user in range(3)],
        ]
    )
    for batch in (stream[:3], stream[3:]):
        assert take(state, batch) == oracle.absorb(batch)
    assert short == [True, True]
    assert all(read(packed, SHAPE) == oracle.view(key.decode()) for key, packed in rows_of(state).items())


@pytest.mark.parametrize(
    ("unusual", "event"),
    [
        ("late", click(0, time=99, number=5)),
        ("a repeat", click(0, time=100, number=1)),
        ("more than its history has room for", order(0, time=101, number=5, lines=7)),
    ],
)
def test_one_unusual_event_sends_its_batch_the_other_way(short: list[bool], unusual: str, event: Event) -> None:
    state, oracle = make_state(TINY), Oracle(TINY, 20_000)
    first = with_offsets([click(user, time=100, number=1 + user) for user in range(3)])
    second = [event._replace(offset=8), click(1, time=101, number=6)._replace(offset=8)]
    for batch in (first, second):
        assert take(state, batch) == oracle.absorb(batch), unusual
    assert short == [True, False]
