"""FULL_TRANSITIVE: each contract against all its releases, and the checker against typical breaks."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from hypothesis import given, settings

from schemas import catalog
from schemas.compatibility import RELEASED, check, released
from schemas.errors import SchemaError
from tests.schema_values import evolutions

Change = Callable[[dict[str, Any]], Any]


def test_every_contract_is_released_and_every_released_one_is_still_a_contract() -> None:
    assert sorted(path.name for path in RELEASED.iterdir()) == catalog.names()


@pytest.mark.parametrize("name", catalog.names())
def test_a_contract_is_fully_compatible_with_all_that_were_released(name: str) -> None:
    versions = [*released(name), catalog.load(name)]
    broken = [check(old, new) for number, new in enumerate(versions) for old in versions[:number]]
    assert not any(broken), broken


@pytest.mark.parametrize("name", catalog.names())
def test_a_changed_contract_is_released_under_the_next_number(name: str) -> None:
    numbers = sorted(int(path.stem) for path in (RELEASED / name).iterdir())
    assert numbers == list(range(1, len(numbers) + 1))
    assert released(name)[-1] == catalog.load(name), f"copy the contract to {RELEASED / name}/{numbers[-1] + 1}.avsc"


def field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in schema["fields"] if one["name"] == name)


def line(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return field(field(schema, "items")["type"]["items"], name)


def changed(name: str, change: Change) -> list[str]:
    new = copy.deepcopy(catalog.load(name))
    change(new)
    return check(catalog.load(name), new)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("order", lambda s: s["fields"].append({"name": "x", "type": "string"}), "at x: .* no default"),
        ("order", lambda s: s["fields"].remove(field(s, "amount")), "old schema .* at amount: .* no default"),
        ("order", lambda s: field(s, "currency").update(name="money"), "at money: .* no such field"),
        ("order", lambda s: field(s, "currency").update(type="int"), "at currency: string is no int"),
        ("order", lambda s: line(s, "quantity").update(type="long"), r"old schema .* at items\[\].quantity"),
        (
            "order",
            lambda s: line(s, "unit_price")["type"].update(scale=2),
            r"at items\[\].unit_price: decimal",
        ),
        ("order", lambda s: field(s, "amount")["type"].update(precision=10), "at amount: decimal"),
        (
            "order",
            lambda s: field(s, "event_time").update(type="long"),
            "at event_time: timestamp-millis becomes",
        ),
        (
            "order",
            lambda s: field(s, "email").update(type="string", default=""),
            "new schema .* at email: union",
        ),
        ("order", lambda s: s.update(name="Purchase"), "at the top: record headrace.Order"),
        (
            "fraud_score",
            lambda s: field(s, "decision")["type"]["symbols"].remove("block"),
            "at decision: .*block",
        ),
        (
            "fraud_score",
            lambda s: field(s, "decision")["type"]["symbols"].append("hold"),
            "old schema .*hold",
        ),
        ("click", lambda s: field(s, "attributes")["type"]["values"].remove("boolean"), r"at attributes\[\]"),
    ],
)
def test_a_break_is_refused_in_words(name: str, change: Change, says: str) -> None:
    problems = changed(name, change)
    assert len(problems) > 0
    assert any(re.search(says, problem) for problem in problems), problems


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("order", lambda s: s["fields"].append({"name": "x", "type": "string", "default": ""})),
        ("order", lambda s: s["fields"].remove(field(s, "email"))),
        ("order", lambda s: s["fields"].reverse()),
        ("order", lambda s: s.update(doc="other words")),
        ("click", lambda s: field(s, "action")["type"]["symbols"].append("share")),
    ],
)
def test_what_everyone_can_still_read_is_allowed(name: str, change: Change) -> None:
    assert changed(name, change) == []


@settings(max_examples=50, deadline=None)
@given(pair=evolutions())
def test_the_verdict_is_the_avro_packages(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    old, new = (catalog.parsed(schema) for schema in pair)
    verdicts = [
        ReaderWriterCompatibilityChecker().get_compatibility(reader, writer).compatibility
        for reader, writer in ((new, old), (old, new))
    ]
    assert bool(check(*pair)) == (SchemaCompatibilityType.incompatible in verdicts)


def test_a_malformed_schema_is_named_so() -> None:
    with pytest.raises(SchemaError, match="malformed"):
        check(catalog.load("click"), {"type": "record"})
