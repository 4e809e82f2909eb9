"""Pointers on a real broker: one writer at a time, epochs that only grow, and what a person has pinned stays."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from schemas.confluent import ConfluentRegistry
from schemas.errors import Fenced, ReleaseError
from streams.config import Settings
from streams.local import LocalRegistry
from streams.pointers import Pointer, Pointers, live_pointers, read_pointers
from tests.conftest import FreshSettings


@pytest.fixture
def schemas(settings: Settings) -> Iterator[ConfluentRegistry]:
    with closing(ConfluentRegistry(settings.registry())) as client:
        yield client


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    return fresh_settings()


def test_a_move_is_on_the_topic_when_it_returns_and_each_has_a_higher_epoch(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    assert live_pointers(settings) == {}
    pointers = Pointers(settings, schemas)
    first = pointers.move("fraud", "a", now_ms=1)
    other = pointers.move("ctr", "x", now_ms=2)
    second = pointers.move("fraud", "b", now_ms=3)
    assert first == Pointer("fraud", "a", None, 1, False, 1)
    assert second == Pointer("fraud", "b", "a", 2, False, 3)
    assert [pointer for _, pointer in read_pointers(settings, schemas)] == [first, other, second]
    assert live_pointers(settings) == {"fraud": second, "ctr": other}


def test_who_comes_later_knows_what_was_written_and_shuts_the_earlier_one_out(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    earlier = Pointers(settings, schemas)
    earlier.move("fraud", "a", now_ms=1)
    later = Pointers(settings, schemas)
    with pytest.raises(Fenced):
        earlier.move("fraud", "b", now_ms=2)
    assert later.move("fraud", "c", now_ms=3) == Pointer("fraud", "c", "a", 2, False, 3)
    assert live_pointers(settings)["fraud"].version == "c"


def test_going_back_twice_comes_back_and_there_must_be_something_to_go_back_to(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    pointers = Pointers(settings, schemas)
    with pytest.raises(ReleaseError, match="no release of fraud to go back to"):
        pointers.roll_back("fraud", now_ms=1)
    pointers.move("fraud", "a", now_ms=1)
    with pytest.raises(ReleaseError, match="no release of fraud to go back to"):
        pointers.roll_back("fraud", now_ms=2)
    pointers.move("fraud", "b", now_ms=3)
    assert pointers.roll_back("fraud", now_ms=4) == Pointer("fraud", "a", "b", 3, False, 4)
    assert pointers.roll_back("fraud", now_ms=5) == Pointer("fraud", "b", "a", 4, False, 5)


def test_a_pinned_pointer_moves_by_hand_only_and_keeps_what_it_goes_back_to(
    settings: Settings, schemas: ConfluentRegistry
) -> None:
    pointers = Pointers(settings, schemas)
    pointers.move("fraud", "a", now_ms=1)
    pointers.move("fraud", "b", now_ms=2)
    pinned = pointers.move("fraud", "b", now_ms=3, pinned=True, by_hand=True)
    assert pinned == Pointer("fraud", "b", "a", 3, True, 3)
    pointers = Pointers(settings, schemas)
    for move in (
        lambda: pointers.move("fraud", "c", now_ms=4),
        lambda: pointers.roll_back("fraud", now_ms=4),
    ):
        with pytest.raises(ReleaseError, match="fraud/b is pinned"):
            move()
    assert live_pointers(settings)["fraud"] == pinned
    assert pointers.move("fraud", "b", now_ms=5, by_hand=True) == Pointer("fraud", "b", "a", 4, False, 5)
    assert pointers.move("fraud", "c", now_ms=6).epoch == 5
