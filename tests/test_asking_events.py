"""Bodies to events and scores to answers: what is wrong is named by its field, and the schemas say what is right."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has none

from schemas.values import to_json
from streams.asking.document import answer_schema, document, problem_schema
from streams.asking.events import answer_of, event_of
from streams.asking.json_schemas import json_schema
from streams.asking.problems import BAD_EVENT, KINDS, NOT_JSON, Problem, json_pointer
from streams.events import EVENT_TYPES
from streams.tasks import TASKS, make_task
from tests.records import NOON_MS, click, impression, line, money, order

FRAUD = make_task("fraud")
CONTRACTS = {"fraud": ("order", order), "recommendations": ("click", click), "ctr": ("ad_impression", impression)}


def refused(body: Any, task: str = "fraud") -> Problem:
    with pytest.raises(Problem) as caught:
        event_of(make_task(task), body if isinstance(body, bytes) else json.dumps(body).encode(), NOON_MS)
    return caught.value


def posted(**fields: Any) -> dict[str, Any]:
    return to_json("order", order()) | fields


@pytest.mark.parametrize("name", TASKS)
def test_an_event_posted_is_the_event_published(name: str) -> None:
    contract, make = CONTRACTS[name]
    event = make(attributes={"a": 1.5, "b": None, "c": True, "d": "x"})
    body = json.dumps(to_json(contract, event)).encode()
    assert to_json(contract, event_of(make_task(name), body, NOON_MS)) == to_json(contract, event)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[]", "a JSON array"),
        (b"null", "a JSON null"),
        (b'"x"', "a JSON string"),
        (b"3", "a JSON number"),
        (b"\xff\xfe", "codec can't decode"),
        (b'{"amount": NaN}', "NaN is no JSON number"),
        (b'{"amount": Infinity}', "Infinity is no JSON number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"event_time": ' + b"9" * 5_000 + b"}", "digits"),
    ],
)
def test_what_is_no_json_object_is_said_to_be_none(body: bytes, detail: str) -> None:
    problem = refused(body)
    assert problem.kind is NOT_JSON
    assert detail in problem.detail


@pytest.mark.parametrize(
    ("fields", "where", "pointer"),
    [
        ({"amount": "a lot"}, "amount", "/amount"),
        ({"amount": "1e999999999"}, "amount", "/amount"),
        ({"amount": -1}, "amount", "/amount"),
        ({"colour": "red"}, "colour", "/colour"),
        ({"user_id": ""}, "user_id", "/user_id"),
        ({"user_id": "\ud800"}, "user_id", "/user_id"),
        ({"event_id": "x" * 257}, "event_id", "/event_id"),
        ({"event_time": "yesterday"}, "event_time", "/event_time"),
        ({"event_time": "2023-11-14T22:13:20"}, "event_time", "/event_time"),
        ({"event_time": 1}, "event_time", "/event_time"),
        ({"event_time": NOON_MS + 2 * 86_400_000}, "event_time", "/event_time"),
        ({"items": []}, "items", "/items"),
        ({"items": [to_json("order", order())["items"][0] | {"quantity": 0}]}, "items[0]", "/items/0"),
        ({"items": [{"item_id": "a", "quantity": 1.5, "unit_price": 1}]}, "items[0].quantity", "/items/0/quantity"),
        ({"payment": {}}, "payment.method", "/payment/method"),
        ({"attributes": {"a/b": []}}, "attributes['a/b']", "/attributes/a~1b"),
        ({"currency": "pounds"}, "currency", "/currency"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields: dict[str, Any], where: str, pointer: str) -> None:
    problem = refused(posted(**fields))
    assert (problem.kind, problem.where, json_pointer(problem.where)) == (BAD_EVENT, where, pointer)
    assert problem.body()["field"] == where
    assert problem.expected


def test_a_field_that_is_missing_is_named() -> None:
    for name in ("user_id", "event_id", "event_time", "items", "payment"):
        body = posted()
        del body[name]
        assert refused(body).where == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", TASKS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_posted_is_an_event_or_a_problem_and_the_schema_agrees(name: str, data: st.DataObject) -> None:
    contract, make = CONTRACTS[name]
    row = to_json(contract, make())
    field = data.draw(st.sampled_from([*row, "another"]))
    row[field] = data.draw(JSON | st.just(row.get(field)))
    valid = Draft202012Validator(json_schema(contract, "in")).is_valid(row)
    problem = why_not(name, row)
    if problem is None:
        assert valid, (field, row[field])
    else:  # what a schema cannot say: which of the texts are times, and how far the clock has come
        assert not valid or problem.where == "event_time", problem.body()


def why_not(name: str, row: Any) -> Problem | None:
    try:
        event_of(make_task(name), json.dumps(row).encode(), NOON_MS)
    except Problem as problem:
        return problem
    return None


def test_an_amount_below_nothing_is_refused_however_small() -> None:
    row = to_json("order", CONTRACTS["fraud"][1]()) | {"amount": -2.225073858507e-311}
    problem = why_not("fraud", row)
    assert problem is not None
    assert problem.where == "amount"


@pytest.mark.parametrize("name", TASKS)
def test_the_schemas_take_what_is_published(name: str) -> None:
    contract, make = CONTRACTS[name]
    for event in (make(), make(attributes={"n": 0.5, "t": "x", "f": False, "z": None})):
        Draft202012Validator(json_schema(contract, "in")).validate(to_json(contract, event))


def test_an_answer_is_the_score_without_its_cut() -> None:
    score = {
        "event_id": "o1", "user_id": "u1", "event_time": NOON_MS, "scored_at": NOON_MS, "release": "fraud/1",
        "engine": "x", "late": False, "fallback": None, "timings": {"queue_us": 0, "infer_us": 9},
        "cut": {"clicks": 3, "orders": -1, "impressions": 2}, "order_id": "1", "probability": 0.25,
        "decision": "approve", "reasons": [], "policy_version": "", "decided_by": "", "rules": [],
        "expected_loss": None, "propensity": 1.0, "otherwise": None,
    }  # fmt: skip
    answer = answer_of(FRAUD, score)
    assert "cut" not in answer
    assert answer["probability"] == 0.25
    Draft202012Validator(answer_schema(FRAUD)).validate(answer)


def test_each_problem_is_of_its_schema_and_listed_once() -> None:
    check = Draft202012Validator(problem_schema())
    for kind in KINDS:
        body = Problem(kind, "so it is", "items[0].quantity", "1", "mend it").body()
        check.validate(body)
        assert body["status"] == kind.status
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_the_document_is_whole() -> None:
    tasks = [make_task(name) for name in TASKS]
    made = document(tasks, 250)
    assert [*made["paths"]] == [f"/v1/score/{name}" for name in TASKS]
    for name, schema in made["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert "type" in schema, name
    operation = made["paths"]["/v1/score/fraud"]["post"]
    assert {*operation["responses"]} == {"200", *(str(kind.status) for kind in KINDS)}
    assert operation["parameters"][0]["schema"]["default"] == 250
    assert {EVENT_TYPES[task.topic].schema for task in tasks} <= made["components"]["schemas"].keys()


def test_a_bad_record_tells_its_code() -> None:
    problem = refused(posted(items=[to_json("order", order(items=[line(unit_price=money(-1))]))["items"][0]]))
    assert problem.body()["code"] == "out_of_range"
