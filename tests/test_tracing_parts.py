"""What tracing is made of, without a broker: the newest label, rows of a moment, who learned, figures and money."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError
from streams.catalog import TEXT_DIMS
from streams.cli.backtesting import Backtest
from streams.cli.tracing import instant
from streams.features import pack
from streams.tasks import make_task
from streams.tasks.base import Result
from streams.tasks.fraud import COLUMN
from streams.tracing import span
from streams.tracing.catalogue import DatedCatalogue
from streams.tracing.releases import learned
from streams.tracing.span import Labels, key_of
from tests.records import money
from tests.traced_shop import label

TOLD = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["", "analyst", "chargeback", "who", "else"]), st.integers(0, 3),
    st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.booleans(),
)  # fmt: skip
PLACES = {"chargeback": 0, "analyst": 2, "who": 5, "else": 5, "": 6}


@given(st.lists(TOLD))
def test_the_newest_label_of_the_first_source_that_speaks_counts_and_silence_last(
    told: list[tuple[str, str, int, int, float, bool]],
) -> None:
    labels = Labels()
    by_source: dict[tuple[str, int], tuple[tuple[int, int], float, bool]] = {}
    for target, source, observed, revision, said, withdrawn in told:
        record = label("fraud", target, said, observed_at=observed, revision=revision, source=source)
        labels.add(record, value=said, weight=2.0, withdrawn=withdrawn)
        key = target, PLACES[source]
        if key not in by_source or (observed, revision) >= by_source[key][0]:
            by_source[key] = (observed, revision), said, withdrawn
    newest: dict[str, tuple[int, float]] = {}
    for (target, place), (_, said, withdrawn) in sorted(by_source.items(), key=lambda each: each[0]):
        if not withdrawn:
            newest.setdefault(target, (place, said))
    there, value, weight = labels.look_up([key_of(target, None) for target in "abcd"])
    assert there.tolist() == [target in newest for target in "abcd"]
    assert value.tolist() == [newest[target][1] if target in newest else 0.0 for target in "abcd"]
    assert weight.tolist() == [2.0 if target in newest else 0.0 for target in "abcd"]


def test_the_rows_of_a_moment_are_those_that_had_come() -> None:
    dated = DatedCatalogue()
    assert dated.rows_at(10**15) == 1
    for row, time in ((1, 100), (2, 100), (3, 200), (1, 300)):
        vector = np.full(TEXT_DIMS, time, "<f4").tobytes()
        dated.vector({"kind": "item", "id": f"item-{row}", "row": row, "vector": vector}, time)
    assert [dated.rows_at(time) for time in (99, 100, 199, 200, 400)] == [1, 3, 3, 4, 4]
    dated.item({"item_id": "item-2", "price": money(5), "available": True}, 500)
    dated.item({"item_id": "item-3", "price": None, "available": False}, 600)  # sold out: its vector stays
    rows = np.array([0, 1, 2, 3], np.int32)
    assert dated.changed(rows, 250) == ["item-1", "item-2"]
    assert dated.changed(rows, 400) == ["item-2"]
    assert dated.changed(rows, 150) == ["item-1", "item-2"]  # item-3 was not there yet


@pytest.mark.parametrize(
    ("trained", "at", "said"),
    [
        ({"offsets": {"0": [5, 9]}}, (0, 5, 1), True),
        ({"offsets": {"0": [5, 9]}}, (0, 9, 1), False),
        ({"offsets": {"0": [5, 9]}}, (1, 6, 1), False),
        ({"offsets": {"0": 17}}, (0, 6, 1), None),
        ({"standing": {"start": {"0": 4}, "end": {"0": 9}, "until": 100}}, (0, 3, 999), True),
        ({"standing": {"start": {"0": 4}, "end": {"0": 9}, "until": 100}}, (0, 8, 100), True),
        ({"standing": {"start": {"0": 4}, "end": {"0": 9}, "until": 100}}, (0, 8, 101), False),
        ({"standing": {"start": {"0": 4}, "end": {"0": 9}, "until": 100}}, (0, 9, 1), False),
        ({"standing": {"start": {"0": 4}}}, (0, 9, 1), None),
        ({"steps": 300}, (0, 9, 1), None),
    ],
)
def test_who_learned_an_example_follows_from_where_it_lies(
    trained: dict[str, Any], at: tuple[int, int, int], said: bool | None
) -> None:
    assert learned(trained, *at) is said


def test_a_repeated_event_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [(0, {"event_id": name}) for name in "abacab"] + [(1, {"event_id": "d"})]
    assert [each["event_id"] for each in span._once(records)] == ["a", "b", "c", "d"]
    monkeypatch.setattr(span, "REMEMBERED", 1)
    assert [each["event_id"] for each in span._once(records[:3])] == ["a", "b", "a"]


def served_orders(amounts: list[float]) -> list[dict[str, Any]]:
    rows = np.zeros(len(amounts), make_task("fraud").features)
    rows["fields"][:, COLUMN["amount"]] = np.log1p(amounts)
    packed = pack(rows)
    return [{"target_id": f"o{n}", "candidates": [], "features": features} for n, features in enumerate(packed)]


def decided(*chances: float) -> list[Result]:
    return [Result({}, [], [chance], "block" if chance > 0.5 else "approve") for chance in chances]


def test_money_is_what_frauds_cost_and_what_honest_customers_waited_for() -> None:
    labels = Labels()
    for number, value in enumerate((1.0, 1.0, 0.0, 0.0)):
        labels.add(label("fraud", f"o{number}", value), value=value, weight=1.0)
    test = Backtest(make_task("fraud"), labels)
    test.add(served_orders([10, 20, 40, 80, 160]), (decided(0.9, 0.8, 0.1, 0.2, 0.9), decided(0.9, 0.1, 0.7, 0.2, 0.1)))
    found = test.report()
    assert (found["events"], found["labelled"], found["labels"]) == (5, 4, 4)
    assert found["decisions"] == {"approve->block": 2, "block->approve": 1}
    new, old = found["money"]
    assert new["stopped"] == {"amount": 30.0, "orders": 2}
    assert (new["missed"]["orders"], new["held_up"]["orders"]) == (0, 0)
    assert old["stopped"] == {"amount": 10.0, "orders": 1}
    assert old["missed"] == {"amount": 20.0, "orders": 1}
    assert old["held_up"] == {"amount": 40.0, "orders": 1}
    assert found["quality"][0]["pr_auc"] == 1.0
    assert found["quality"][1]["pr_auc"] < 1.0


def test_a_list_is_judged_by_where_the_wanted_item_stands() -> None:
    labels = Labels()
    wanted = label("recommendations", "t0", 1.0, candidate_id="b")
    labels.add(wanted, value=1.0, weight=1.0)
    test = Backtest(make_task("recommendations"), labels)
    served = [{"target_id": "t0", "candidates": ["a", "b"]}, {"target_id": "t1", "candidates": ["a"]}]
    new = [Result({}, ["b", "c"], [2.0, 1.0]), Result({}, ["a"], [1.0])]
    old = [Result({}, ["a", "b"], [2.0, 1.0]), Result({}, ["a"], [1.0])]
    test.add(served, (new, old))
    found = test.report()
    assert (found["events"], found["labelled"], found["first_changed"]) == (2, 1, 1)
    assert found["quality"][0] == {"ndcg@10": 1.0, "hr@10": 1.0}
    assert found["quality"][1]["ndcg@10"] == pytest.approx(1 / np.log2(3))


def test_without_labels_there_are_no_figures() -> None:
    test = Backtest(make_task("ctr"), Labels())
    served = [{"target_id": "t0", "candidates": ["a", "b"]}]
    side = [Result({}, ["a", "b"], [0.5, 0.25])]
    test.add(served, (side, side))
    assert test.report()["quality"] == [None, None]


def test_times_are_iso_8601_and_utc_where_no_zone_is_named() -> None:
    assert instant("1970-01-01T00:00:01", "--from") == 1000 == instant("1970-01-01T02:00:01+02:00", "--from")
    with pytest.raises(SettingsError, match="is no time"):
        instant("soon", "--from")
