"""Why a score is high: each group of facts is set to an ordinary order's, and what the log-odds lose is its share."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.tasks.attribution import GROUPS, HISTORY, VARIANTS, Contribution, attribute, variants
from streams.tasks.fraud import COLUMN, FIELDS, Fraud
from streams.tasks.sentences import sentences

Row = np.ndarray[Any, np.dtype[np.void]]
BASELINE = [float(number) for number in range(len(FIELDS))]


def row() -> Row:
    rows = np.zeros(1, Fraud.features)
    rows["fields"] = -1
    rows["kind"], rows["item"], rows["basket"] = 2, 7, 9
    rows["now_value"], rows["now_kind"] = 50, 1
    return rows


def test_every_field_is_in_one_group() -> None:
    counted = Counter(name for fields in GROUPS.values() for name in fields)
    assert set(counted) == set(FIELDS)
    assert set(counted.values()) == {1}


def test_the_first_row_is_the_order_and_the_last_is_ordinary_in_all() -> None:
    rows = variants(row(), BASELINE)
    assert len(rows) == VARIANTS
    assert rows[:1].tobytes() == row().tobytes()
    assert rows["fields"][-1].tolist() == BASELINE
    assert not rows["kind"][-1].any()
    assert not rows["basket"][-1].any()


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_a_groups_row_differs_from_the_order_in_that_group_alone(name: str) -> None:
    number = list(GROUPS).index(name) + 1
    changed = variants(row(), BASELINE)[number]
    columns = [COLUMN[field] for field in GROUPS[name]]
    assert changed["fields"][columns].tolist() == [BASELINE[column] for column in columns]
    others = np.delete(changed["fields"], columns)
    assert (others == -1).all()
    assert (changed["kind"] == (0 if name == HISTORY else 2)).all()
    assert (changed["basket"] == (0 if name == "basket" else 9)).all()
    assert changed["now_kind"] == 1


@given(st.lists(st.floats(-5, 5), min_size=len(GROUPS), max_size=len(GROUPS)), st.floats(0.1, 3))
def test_an_additive_model_is_explained_whole(parts: list[float], slope: float) -> None:
    """Its logit is a sum over groups: each contributes its part, and nothing is left."""
    total = sum(parts)
    logit = np.array([total, *(total - part for part in parts), 0.0])
    found = attribute(logit, slope)
    told = {each.group: each.logit for each in found.contributions}
    assert told == pytest.approx({name: slope * part for name, part in zip(GROUPS, parts, strict=True)}, abs=1e-9)
    assert found.completeness_error == pytest.approx(0, abs=1e-9)
    assert [each.logit for each in found.contributions] == sorted(told.values(), reverse=True)


def test_what_groups_do_together_is_stated_as_not_explained() -> None:
    """Two groups that each suffice: taking one away changes nothing."""
    logit = np.full(VARIANTS, 3.0)
    logit[-1] = 0.0
    found = attribute(logit, 1.0)
    assert {each.logit for each in found.contributions} == {0.0}
    assert found.completeness_error == 3.0


def fields(**known: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    made = np.zeros(len(FIELDS), np.float32)
    for name, value in known.items():
        made[COLUMN[name]] = value
    return made


def test_the_sentence_names_the_largest_contributions_by_what_is_known() -> None:
    known = fields(card_frauds=np.log1p(2), orders=np.log1p(3), amount_over_usual=np.log(4), device_known=0)
    found = [
        Contribution("card", 2.0),
        Contribution("amount", 1.0),
        Contribution("device", 0.5),
        Contribution("ip", 0.3),
    ]
    said = sentences("review", 0.87, found, known, ["card_testing"])
    assert said["en"] == (
        "Held for review: fraud probability 87%, mostly because the card is linked to fraud (2), the amount is 4.0 "
        "times the customer's usual and the device is new for this customer; by rule card_testing."
    )
    assert said["zh"] == (
        "已转人工审核:欺诈概率 87%,主要因为付款卡与欺诈有关联(2 起)、"
        "金额是该客户平时的 4.0 倍、该客户首次使用此设备;触发规则 card_testing。"
    )


@pytest.mark.parametrize("group", sorted(GROUPS))
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, 3.0])
def test_every_group_has_words_in_both_languages_whatever_its_facts_are(group: str, value: float) -> None:
    said = sentences("block", 0.5, [Contribution(group, 1.0)], np.full(len(FIELDS), value, np.float32))
    assert said["en"].startswith("Blocked: fraud probability 50%, mostly because ")
    assert said["zh"].startswith("已拦截:欺诈概率 50%,主要因为")
    assert said["en"].endswith(".")
    assert "nan" not in said["en"]


def test_small_contributions_are_not_named() -> None:
    said = sentences("review", 0.5, [Contribution("card", 0.1)], fields(), ["one", "two"])
    assert said["en"] == "Held for review: fraud probability 50%; by rules one, two."
