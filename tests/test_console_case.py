"""What a case shows beside its alert: what the user did before, linked and similar alerts, the history in words."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streams.console import words
from streams.console.cases import Case, case
from streams.console.graph import drawing
from streams.console.history import history
from streams.console.rows import NOTE, VERDICT, Change, unpacked, why
from streams.console.similar import ranked
from streams.console.store import Batch, Store
from streams.console.timeline import VISIT_S, Step, steps, visits
from streams.tasks.field_words import FIELD_WORDS
from streams.tasks.fraud import COLUMN, FIELDS
from tests.console_shop import NOW_MS, ROWS, alert, alert_id, features, label, past_order, visit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def read(store: Store, order_id: str) -> Case:
    with store.reading() as connection:
        found = case(connection, alert_id(order_id))
    assert found is not None
    return found


def told(history: list[tuple[str, int, float, str]]) -> list[Step]:
    row = unpacked(features({}, history))
    assert row is not None
    return steps(row, lambda number: next((name for name, at in ROWS.items() if at == number), ""))


def test_a_run_of_one_kind_is_one_step_and_an_order_has_its_lines() -> None:
    found = told([("view", 500, 2.0, "22423"), ("view", 400, 3.0, "47566"), *past_order(300, 50.0, "20725", "23203")])
    assert found == [
        Step("order", 300, 300, 1, 50.0, ("20725", "23203")),
        Step("view", 500, 400, 2, 5.0, ("47566", "22423")),
    ]


def test_a_long_pause_begins_a_new_visit() -> None:
    found = visits(told([*visit(90_000, 3, random.Random(1)), *visit(60, 2, random.Random(2))]))
    assert [len(one.steps) for one in found] == [2, 2]
    assert found[0].pause < VISIT_S < found[1].pause


def test_a_user_without_a_past_has_no_steps() -> None:
    assert told([]) == []


def test_a_row_of_another_size_is_not_read() -> None:
    assert unpacked(b"") is None
    assert unpacked(features({}) + b"\0") is None


def test_the_nearest_are_the_same_facts_whatever_their_scale() -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(200, len(FIELDS))).astype(np.float32)
    rows[:, 3] *= 1000
    near, distance, differing = ranked(rows, rows[17])
    assert near[0] == 17
    assert distance[17] == 0
    assert (differing[17] == -1).all()


def test_a_column_that_all_share_says_nothing_until_one_differs() -> None:
    rows = np.zeros((10, len(FIELDS)), np.float32)
    rows[:, COLUMN["foreign_card"]] = [0] * 9 + [1]
    foreign = np.zeros(len(FIELDS), np.float32)
    foreign[COLUMN["foreign_card"]] = 1
    near, _, differing = ranked(rows, foreign)
    assert near[0] == 9
    assert differing[0][0] == COLUMN["foreign_card"]


def test_every_column_that_a_similar_alert_may_differ_in_has_a_name_in_both_languages() -> None:
    assert FIELD_WORDS.keys() == set(FIELDS)
    for field, said in FIELD_WORDS.items():
        assert "_" not in said.en, field
        assert re.search("[\u4e00-\u9fff]", said.zh), field


def test_similar_ones_are_answered_and_others(store: Store) -> None:
    rows = {
        name: features({"foreign_card": value, "amount": 3.0})
        for name, value in (("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 1.0))
    }
    store.apply(Batch([alert(name, features=row) for name, row in rows.items()], [label("b", 1.0), label("c", 0.0)]))
    assert [one.alert["order_id"] for one in read(store, "a").similar] == ["b", "c"]


def test_what_is_in_the_same_case_is_not_called_similar_as_well(store: Store) -> None:
    row, card = features({"foreign_card": 1.0}), ["card:1"]
    store.apply(
        Batch(
            [
                alert("a", features=row, entities=card),
                alert("b", features=row, entities=card),
                alert("c", features=row),
            ],
            [label("b", 1.0), label("c", 0.0)],
        )
    )
    assert [one.alert["order_id"] for one in read(store, "a").similar] == ["c"]


def test_the_drawing_has_each_kin_once_and_a_line_for_each_token_to_it(store: Store) -> None:
    tokens = ["card:1", "device:2", "ip:3"]
    store.apply(Batch([alert("a", user_id="a", entities=tokens), alert("b", user_id="b", entities=tokens[:2])]))
    found = read(store, "a")
    made = drawing(found)
    assert [(node.tie.kind, node.tie.users) for node in made.ties] == [("card", 2), ("device", 2), ("ip", 1)]
    assert [node.alert["order_id"] for node in made.kin] == ["b"]
    assert len(made.edges) == 3 + 2
    assert drawing(found) == made


def test_a_crowded_token_leads_nowhere(store: Store) -> None:
    store.apply(Batch([alert(f"o{n}", user_id=f"u{n}", entities=["device:shop"]) for n in range(60)]))
    (tie,) = read(store, "o3").ties
    assert (tie.crowded, tie.users, tie.alerts) == (True, 60, ())


def test_the_history_tells_what_came_and_what_was_done_newest_first(store: Store) -> None:
    verdict = '{"label_id": "a-analyst-1", "value": 0.0, "revision": 1}'
    changes = [
        Change(1, "a", "someone", NOTE, NOW_MS + 5, '{"note": "n"}'),
        Change(2, "a", "someone", VERDICT, NOW_MS + 9, verdict),
    ]
    store.apply(Batch([alert("a")], [label("a", 1.0, "chargeback", at=NOW_MS + 7)], changes))
    said = [words.translator("en")(event.words, **event.values(str)) for event in history(read(store, "a"))]
    assert said == [
        "Verdict: genuine, not published", "Chargeback: fraud", "Note written", "Raised at 70%: review",
    ]  # fmt: skip
    store.apply(Batch(labels=[label("a", 0.0, revision=1)]))
    assert history(read(store, "a"))[0].words == "Verdict: {verdict}"


def test_the_queue_says_why_without_what_its_columns_say() -> None:
    assert why("Blocked: fraud probability 94%, mostly because the device is new.") == "The device is new."
    assert why("已拦截:欺诈概率 94%,主要因为设备异常。") == "设备异常。"
    assert why("Held for review: fraud probability 64%.") == "Held for review: fraud probability 64%."
    assert why("") == ""


@pytest.mark.parametrize(
    ("seconds", "english"), [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_000, "1 d 1 h")]
)
def test_durations_are_their_two_largest_units(seconds: int, english: str) -> None:
    assert words.duration(seconds, "en") == english


def test_a_reason_keeps_its_number_in_every_language() -> None:
    assert words.reason("card used by 3 users", words.translator("zh")) == "3 位用户使用过此卡"
    assert words.reason("never heard of 5 of these", words.translator("zh")) == "never heard of 5 of these"
