"""How long positives took to come: the same from the same records, in whatever order the partitions were read, and
whether or not the learner was started again in between.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.learner import waits
from streams.learner.waits import Waits

HOUR = 3_600_000


def example(number: int, delay: int = HOUR, **changed: Any) -> dict[str, Any]:
    """A fraud an hour after the one before it, which was told after `delay` ms."""
    time = number * HOUR
    return {
        "name": "fraud", "label": 1.0, "source": "chargeback", "event_time": time, "observed_at": time + delay,
        "matured_at": time + delay,
    } | changed  # fmt: skip


def heard(records: list[dict[str, Any]], partition: int = 0) -> Waits:
    made = Waits("fraud")
    for offset, record in enumerate(records):
        made.add(record, partition, offset)
    return made


def many(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [example(number, rng.randrange(1, 200) * HOUR) for number in range(200, 200 + count)]


def test_delays_are_those_of_the_positives_that_somebody_told() -> None:
    silent = [example(number, 0, label=0.0, source="") for number in range(300)]
    told = [example(number, (1 + number % 3) * HOUR) for number in range(300, 600)]
    other = [example(number, 50 * HOUR, name="conversion") for number in range(600, 700)]
    found = heard([*silent, *told, *other]).estimated()
    assert found is not None
    assert found["ms"] == [HOUR, 2 * HOUR, 3 * HOUR]
    assert found["cdf"] == pytest.approx([1 / 3, 2 / 3, 1], abs=0.02)


def test_too_few_positives_say_nothing() -> None:
    assert heard(many(50)).estimated() is None


def test_an_event_of_before_the_first_record_says_nothing_as_only_its_slow_labels_are_heard() -> None:
    first = example(1_000, 0, label=0.0, source="")
    slow = [example(number, (1_001 - number) * HOUR) for number in range(500)]
    assert heard([first, *slow]).estimated() is None
    assert heard(slow[::-1]).estimated() is None, "the first that was heard is the newest here"


@given(st.lists(st.integers(0, 2), min_size=400, max_size=400), st.integers(0, 400))
def test_the_order_in_which_partitions_are_read_and_a_start_in_between_change_nothing(
    parts: list[int], stop: int
) -> None:
    by_part: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 2: []}
    for record, part in zip(many(400), parts, strict=True):
        by_part[part].append(record)
    mixed, apart = Waits("fraud"), Waits("fraud")
    come = dict.fromkeys(by_part, 0)
    for part in parts:
        mixed.add(by_part[part][come[part]], part, come[part])
        come[part] += 1
    for part, records in by_part.items():
        for offset, record in enumerate(records[:stop]):
            apart.add(record, part, offset)
        for offset, record in enumerate(records):  # read again from the beginning, as after a start
            apart.add(record, part, offset)
    assert mixed.estimated() == apart.estimated()
    assert mixed.next == apart.next


def test_what_was_written_down_is_gone_on_with(tmp_path: Path) -> None:
    records, path = many(400), tmp_path / "waits.json"
    heard(records[:250]).save(path)
    again = Waits.load("fraud", path)
    assert again.next == {0: 250}
    for offset, record in enumerate(records[200:], 200):
        again.add(record, 0, offset)
    assert again.estimated() == heard(records).estimated()


def test_what_others_wrote_in_between_is_not_read_again(tmp_path: Path) -> None:
    made, path = heard(many(10)), tmp_path / "waits.json"
    made.read_to({0: 25, 1: 7})
    made.save(path)
    assert Waits.load("fraud", path).next == {0: 25, 1: 7}
    made.read_to({0: 20})
    assert made.next[0] == 25


@pytest.mark.parametrize(
    "content", ["", "{", "[]", json.dumps({"name": "click"}), json.dumps({"name": "fraud", "next": {"a": 1}})]
)
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "waits.json"
    path.write_text(content)
    assert Waits.load("fraud", path).next == {}
    assert "is made anew from the topic" in caplog.text
    assert Waits.load("fraud", tmp_path / "none.json").next == {}


def test_of_too_many_the_newest_are_kept_whenever_that_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "KEPT", 150)
    records = many(1_000)
    late = heard(records)
    estimates = []
    early = Waits("fraud")
    for offset, record in enumerate(records):
        early.add(record, 0, offset)
        if offset % 97 == 0:
            estimates.append(early.estimated())  # it lets go of what is too much, too
    assert early.estimated() == late.estimated()
    assert len(early._time) == 150
