"""What labels of one order come to: verdicts, undo, chargebacks, in the order of their revisions."""

from hypothesis import given
from hypothesis import strategies as st

from streams.console.answers import (
    Label,
    answer,
    next_verdict,
    overruled,
    withdrawal,
)
from streams.labels.rules import Rule
from streams.tasks.fraud import Fraud
from tests.console_shop import NOW_MS, label
from tests.labels_shop import FRAUD, NOW, join_of, order
from tests.records import NOON_MS


def given_(value: float, labels: list[Label], at: int = NOW_MS) -> Label:
    return next_verdict("o", value, labels)._replace(observed_at=at)


def taken_back(labels: list[Label]) -> Label | None:
    told = withdrawal("o", labels)
    return told._replace(observed_at=NOW_MS) if told else None


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


def test_an_undo_says_what_the_analyst_had_said_before_or_that_it_is_withdrawn() -> None:
    labels = [given_(1.0, [])]
    labels.append(given_(0.0, labels))
    back = taken_back(labels)
    assert back is not None
    assert (back.value, back.withdrawn) == (1.0, False)
    again = taken_back([*labels, back])
    assert again is not None
    assert (again.value, again.withdrawn) == (0.0, True)
    assert again.label_id.endswith("-withdrawn")


def test_a_chargeback_cannot_be_taken_back() -> None:
    assert withdrawal("o", [label("o", 1.0, "chargeback")[1]]) is None


def test_a_chargeback_counts_more_than_a_verdict_whenever_it_came() -> None:
    bank = label("o", 1.0, "chargeback")[1]
    for labels in ([given_(0.0, []), bank], [bank, given_(0.0, [bank])]):
        assert answer(labels) == bank
        said = overruled(labels)
        assert said is not None
        assert (said.source, said.value) == ("analyst", 0.0)


def test_a_chargeback_that_agrees_overrules_nobody() -> None:
    assert overruled([label("o", 1.0)[1], label("o", 1.0, "chargeback")[1]]) is None


LABELS = st.lists(
    st.builds(
        lambda value, source, revision, withdrawn: (value, source, revision, withdrawn),
        st.sampled_from([0.0, 1.0]), st.sampled_from(["analyst", "chargeback", "refund", "a partner"]),
        st.integers(0, 3), st.booleans(),
    ),
    max_size=8,
)  # fmt: skip


@given(LABELS)
def test_the_answer_is_the_one_that_the_learners_join_comes_to(told: list[tuple[float, str, int, bool]]) -> None:
    labels = [
        Label(f"l{n}", value, source, NOW_MS, revision, withdrawn)
        for n, (value, source, revision, withdrawn) in enumerate(told)
    ]
    join = join_of(FRAUD)
    said = join.served(order("o"), 0, 0)
    for one in labels:
        record = {"task": "fraud", "target_id": "o", "candidate_id": None, "name": "fraud", **one._asdict()}
        said += join.label(record | {"observed_at": NOON_MS}, NOW)
    newest = said[-1] if said else None
    found = answer(labels)
    assert (found.value if found else None) == (newest.label if newest and newest.weight else None)


def test_a_label_id_is_one_that_the_join_takes_however_long_the_order_id_is() -> None:
    for order_id in ("o", "x" * 250):
        told = next_verdict(order_id, 1.0, [])._replace(observed_at=NOW_MS)._asdict()
        record = {"task": "fraud", "target_id": order_id, "candidate_id": None, "name": "fraud"}
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
