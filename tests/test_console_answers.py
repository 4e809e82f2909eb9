"""What labels of one order come to: verdicts, undo, chargebacks, in the order of their revisions."""

from hypothesis import given
from hypothesis import strategies as st

from streams.console.answers import (
    Label,
    answer,
    contradicted,
    next_verdict,
    withdrawal,
)
from streams.labels.rules import Rule
from streams.tasks.fraud import Fraud
from tests.console_shop import NOW_MS, label


def given_(value: float, labels: list[Label], at: int = NOW_MS) -> Label:
    label_id, revision, told = next_verdict("o", value, labels)
    return Label(label_id, told, "analyst", at, revision)


def taken_back(labels: list[Label]) -> Label | None:
    told = withdrawal("o", labels)
    return Label(told[0], told[2], "analyst", NOW_MS, told[1]) if told else None


def test_nothing_said_is_no_answer() -> None:
    assert answer([]) is None
    assert withdrawal("o", []) is None


def test_an_undo_goes_back_to_what_was_said_before_and_then_to_nothing() -> None:
    labels = [given_(0.0, [])]
    labels.append(given_(1.0, labels))
    assert (found := answer(labels)) is not None
    assert found.value == 1.0
    for expected in (0.0, None):
        back = taken_back(labels)
        assert back is not None
        labels.append(back)
        found = answer(labels)
        assert (found.value if found else None) == expected
    assert taken_back(labels) is None
    assert [one.revision for one in labels] == [0, 1, 2, 3]


def test_an_undo_tells_the_learner_what_counted_before() -> None:
    labels = [label("o", 1.0, "chargeback")[1]]
    labels.append(given_(0.0, labels))
    back = taken_back(labels)
    assert back is not None
    assert back.value == 1.0
    assert back.label_id.endswith("-withdrawn")


def test_a_chargeback_cannot_be_taken_back() -> None:
    assert withdrawal("o", [label("o", 1.0, "chargeback")[1]]) is None


def test_of_equal_revisions_the_first_counts_as_in_the_learners_join() -> None:
    labels = [label("o", 0.0)[1], label("o", 1.0, "chargeback")[1]]
    found = answer(labels)
    assert found is not None
    assert found.source == "analyst"
    against = contradicted(labels)
    assert against is not None
    assert against.source == "chargeback"


def test_a_chargeback_that_agrees_or_came_before_contradicts_nothing() -> None:
    early = label("o", 1.0, "chargeback", at=NOW_MS - 1)[1]
    assert contradicted([early, given_(0.0, [early])]) is None
    assert contradicted([label("o", 1.0)[1], label("o", 1.0, "chargeback")[1]]) is None


def test_a_label_id_is_one_that_the_join_takes_however_long_the_order_id_is() -> None:
    for order_id in ("o", "x" * 250):
        label_id, revision, value = next_verdict(order_id, 1.0, [])
        record = {"label_id": label_id, "task": "fraud", "target_id": order_id, "candidate_id": None, "name": "fraud"}
        told = {"value": value, "source": "analyst", "observed_at": NOW_MS, "revision": revision}
        Rule.of(Fraud()).check(record | told, NOW_MS)


@given(st.lists(st.sampled_from([0.0, 1.0, None]), max_size=12))
def test_verdicts_and_undos_are_a_stack(moves: list[float | None]) -> None:
    labels: list[Label] = []
    stack: list[float] = []
    for move in moves:
        if move is None:
            back = taken_back(labels)
            assert (back is None) == (not stack)
            if back is not None:
                labels.append(back)
                stack.pop()
        else:
            labels.append(given_(move, labels))
            stack.append(move)
        found = answer(labels)
        assert (found.value if found else None) == (stack[-1] if stack else None)
    assert len({one.label_id for one in labels}) == len(labels)
