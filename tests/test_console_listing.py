"""The queue's filters, orders and pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.console import listing
from streams.console.listing import Filter, Reader
from streams.console.store import Batch, Store
from tests.console_shop import NOW_MS, alert, alert_id, label, shop
from tests.records import money


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def orders(store: Store, after: str = "", **asked: str) -> list[str]:
    with store.reading() as connection:
        found = listing.queue(connection, Filter(**asked), after, Reader(reveals=True))
    return [row["order_id"] for row in found.alerts]


def test_filters_take_what_they_say(store: Store) -> None:
    store.apply(
        Batch(
            [
                alert("a", amount=money(10), currency="GBP", country="GB", rules=["r1"], expected_loss=9.0),
                alert("b", amount=money(200), currency="GBP", country="DE", decision="block", expected_loss=5.0),
                alert("c", amount=money(50), currency="GBP", release="other", expected_loss=1.0),
                alert("d"),
            ],
            [label("d", 1.0)],
        )
    )
    assert orders(store) == ["a", "b", "c"]
    assert orders(store, state="answered") == ["d"]
    assert orders(store, state="all", decision="block") == ["b"]
    assert orders(store, country="GB") == ["a"]
    assert orders(store, rule="r1") == ["a"]
    assert orders(store, release="other") == ["c"]
    assert orders(store, least="50", most="1,000") == ["b", "c"]


def test_text_finds_part_of_an_id_or_a_whole_token_and_has_no_wild_cards(store: Store) -> None:
    tokens = ["card:4f3a", "ip:10.0.0.1"]
    store.apply(Batch([alert("o_1", user_id="anna", entities=tokens), alert("ox1", user_id="bert")]))
    assert orders(store, text="o_1") == ["o_1"]
    assert orders(store, text="nn") == ["o_1"]
    assert orders(store, text="4f3a") == orders(store, text="card:4f3a") == ["o_1"]
    assert orders(store, text="4f3") == []
    assert orders(store, text="%") == []
    assert orders(store, text="' OR 1=1 --") == []


def test_what_cannot_be_used_is_said_beside_its_field_and_kept_as_typed() -> None:
    asked, problems = Filter.of({"least": "ten", "most": "5", "state": "nowhere", "sort": "'; DROP TABLE alerts"})
    assert (asked.least, asked.most, asked.state, asked.sort) == ("ten", "5", "open", "loss")
    assert set(problems) == {"least"}
    assert Filter.of({"least": "nan"})[1].keys() == Filter.of({"least": "-1"})[1].keys() == {"least"}


def test_a_filter_survives_its_address() -> None:
    asked = Filter(state="all", text="a&b=c", each="1", case=alert_id("a"))
    from urllib.parse import parse_qsl

    assert Filter.of(dict(parse_qsl(asked.query())))[0] == asked
    assert Filter().query() == ""


def test_without_a_policy_the_expected_loss_is_probability_times_amount(store: Store) -> None:
    store.apply(
        Batch(
            [
                alert("a", probability=0.5, amount=money(300), currency="GBP"),
                alert("b", probability=0.9, amount=money(100), currency="GBP"),
                alert("c", probability=0.1, amount=money(1), currency="GBP", expected_loss=120.0),
            ]
        )
    )
    assert orders(store) == ["a", "c", "b"]
    assert orders(store, sort="probability") == ["b", "a", "c"]


def test_one_row_speaks_for_a_case_as_far_as_the_filter_sees_it(store: Store) -> None:
    cards = [
        alert(name, user_id=name, entities=["card:1"], expected_loss=loss) for name, loss in (("a", 3.0), ("b", 2.0))
    ]
    store.apply(Batch([*cards, alert("c", expected_loss=1.0)]))
    assert orders(store) == ["a", "c"]
    assert orders(store, each="1") == ["a", "b", "c"]
    assert orders(store, case=alert_id("b")) == ["a"]
    assert orders(store, case=alert_id("b"), each="1") == ["a", "b"]
    store.apply(Batch(labels=[label("a", 1.0)]))
    assert orders(store) == ["b", "c"]
    assert orders(store, state="answered") == ["a"]


def test_a_case_is_between_its_neighbours_whichever_of_its_orders_is_looked_at(store: Store) -> None:
    losses = {"first": 9.0, "a": 8.0, "second": 7.0, "b": 6.0, "third": 5.0}
    store.apply(
        Batch(
            [
                alert(name, user_id=name, entities=["card:1"] if name in "ab" else [], expected_loss=loss)
                for name, loss in losses.items()
            ]
        )
    )
    with store.reading() as connection:
        for name, each, near in (
            ("a", "", ("first", "second")), ("b", "", ("first", "second")), ("second", "", ("a", "third")),
            ("b", "1", ("second", "third")),
        ):  # fmt: skip
            shown = listing.one(connection, alert_id(name), Filter()).alerts[0]
            found = listing.neighbours(connection, Filter(each=each), shown)
            assert found == tuple(alert_id(one) for one in near), name
    store.apply(Batch(labels=[label("a", 1.0), label("b", 1.0)]))
    with store.reading() as connection:
        shown = listing.one(connection, alert_id("a"), Filter()).alerts[0]
        assert listing.neighbours(connection, Filter(), shown) == (alert_id("first"), alert_id("second"))


def test_before_and_after_are_the_queues_neighbours(store: Store) -> None:
    store.apply(Batch([alert(name, expected_loss=loss) for name, loss in (("a", 3.0), ("b", 2.0), ("c", 2.0))]))
    found = orders(store)
    with store.reading() as connection:
        middle = listing.one(connection, alert_id(found[1]), Filter()).alerts[0]
        near = listing.neighbours(connection, Filter(), middle)
    assert near == (alert_id(found[0]), alert_id(found[2]))


def test_counts_are_of_what_is_open(store: Store) -> None:
    made = shop()
    store.apply(Batch(made.alerts, made.labels))
    with store.reading() as connection:
        found = listing.counts(connection)
        assert found.open + found.answered == len(made.alerts)
        each = listing.queue(connection, Filter(each="1"), size=999).alerts
        assert found.open == found.block + found.review == len(each)
        assert found.cases == len({row["grp"] for row in each}) == len(listing.queue(connection, Filter(), size=999)[0])
        assert found.cases < found.open
        assert found.stake > 0
        assert listing.facets(connection)["rule"] == ["foreign-card", "new-device-and-address", "velocity-device"]


@pytest.mark.parametrize("after", ["", "~", "x", "nan", "1.0~", "9e999~a", "1.0~' OR 1=1"])
def test_a_place_that_is_none_is_the_first_page(store: Store, after: str) -> None:
    store.apply(Batch([alert("a", expected_loss=0.5)]))
    assert orders(store, after=after) in (["a"], [])


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    losses=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    sort=st.sampled_from(["loss", "probability", "newest"]),
    size=st.integers(1, 7),
    narrow=st.booleans(),
    most=st.sampled_from([3, 2_000]),
)
def test_pages_hold_each_alert_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, losses: list[int], sort: str, size: int, narrow: bool, most: int
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    records = [
        alert(f"o{n}", expected_loss=loss / 3, probability=loss / 5, raised_at=NOW_MS + loss)
        for n, loss in enumerate(losses)
    ]
    store.apply(Batch(records))
    counted, listing.MOST_COUNTED = listing.MOST_COUNTED, most
    found, after = [], ""
    with store.reading() as connection:
        while True:
            page = listing.queue(connection, Filter(sort=sort, text="o" if narrow else ""), after, size=size)
            assert page.total == (min(len(losses), most + 1) if narrow else None)
            found += page.alerts
            if not (after := page.after):
                break
    listing.MOST_COUNTED = counted
    store.close()
    column = listing.SORTS[sort]
    keys = [(row[column], row["alert_id"]) for row in found]
    assert keys == sorted(keys, reverse=True)
    assert len(set(keys)) == len(losses)
