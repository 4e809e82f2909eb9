"""A request's body to the event that it is, and a score to the answer's body: both are the contracts' JSON.
What a topic would refuse is refused here, with the field's name, before anything is done with it.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from schemas.errors import BadRecord
from schemas.values import from_json, to_json
from streams.asking.problems import NOT_JSON, Problem, bad_event
from streams.events import EVENT_TYPES, Record, check
from streams.tasks.base import Task

EXACT = 2**53  # from here on a float stands for several whole numbers
HIDDEN = "cut"
"""The one field of a score that an answer does not have: where its event lies is not known yet."""


def event_of(task: Task, body: bytes, now_ms: int) -> dict[str, Any]:
    """The checked event in physical values. Raises Problem."""
    kind = EVENT_TYPES[task.topic]
    try:
        row = json.loads(body.decode(), parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(NOT_JSON, why, expected=f"a JSON object of the contract {kind.schema}") from None
    if not isinstance(row, Mapping):
        raise Problem(NOT_JSON, f"it is a JSON {_name(row)}", expected=f"a JSON object of the contract {kind.schema}")
    try:
        event = from_json(kind.schema, row)
        check(event, kind, now_ms)
    except BadRecord as error:
        raise bad_event(error) from None
    return event


def answer_of(task: Task, score: Record) -> dict[str, Any]:
    """What a request is answered: the score as its topic will have it, but for the cut."""
    row = to_json(task.schema, score)
    row.pop(HIDDEN, None)
    return row


def _number(text: str) -> float:
    """1.0 is 1 in JSON, and a whole number where one is asked for."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < EXACT else value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _name(value: Any) -> str:
    match value:
        case bool() | None:
            return json.dumps(value)
        case int() | float():
            return "number"
        case str():
            return "string"
    return "array"
