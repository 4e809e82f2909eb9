"""The OpenAPI document of the pages, made from what they are made of: tasks, contracts, options, problems.
A test holds the real answers to it.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from streams.asking.events import HIDDEN
from streams.asking.json_schemas import json_schema
from streams.asking.problems import KINDS, MEDIA_TYPE, Kind, type_of
from streams.events import EVENT_TYPES
from streams.tasks.base import Task

Json = dict[str, Any]

MOST_DEADLINE_MS = 60_000


def document(tasks: Sequence[Task], deadline_ms: int) -> Json:
    """OpenAPI 3.1. `deadline_ms`: where a request gives none."""
    schemas: Json = {"Problem": problem_schema()}
    for task in tasks:
        contract = EVENT_TYPES[task.topic].schema
        schemas[contract] = json_schema(contract, "in")
        schemas[task.schema] = answer_schema(task)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace, scores by request",
            "version": "1",
            "description": "Scores an event by the state and the engine of the stream, then publishes it: what is "
            "answered is what the topics say. The same event again gets the same answer.",
        },
        "paths": {f"/v1/score/{task.name}": {"post": _operation(task, deadline_ms)} for task in tasks},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def answer_schema(task: Task) -> Json:
    """A score as it is answered."""
    found = json_schema(task.schema, "out")
    del found["properties"][HIDDEN]
    found["required"].remove(HIDDEN)
    return found


def problem_schema() -> Json:
    texts = ("detail", "field", "pointer", "expected", "todo", "code")
    return {
        "type": "object",
        "description": "RFC 9457.",
        "properties": {
            "type": {"type": "string", "enum": [type_of(kind) for kind in KINDS]},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            **{name: {"type": "string"} for name in texts},
        },
        "required": ["type", "title", "status", "detail"],
        "additionalProperties": False,
    }


def _operation(task: Task, deadline_ms: int) -> Json:
    contract = EVENT_TYPES[task.topic].schema
    return {
        "operationId": f"score_{task.name}",
        "summary": f"The {task.name} score of one event, which is then published",
        "parameters": _options(deadline_ms),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{contract}"}}},
        },
        "responses": {
            "200": {
                "description": "The score, as its topic will have it, but for the cut.",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{task.schema}"}}},
            },
            **_problems(),
        },
    }


def _options(deadline_ms: int) -> list[Json]:
    return [
        {
            "name": "deadline_ms",
            "in": "query",
            "description": "After so long the task's fallback is the answer.",
            "schema": {"type": "integer", "minimum": 1, "maximum": MOST_DEADLINE_MS, "default": deadline_ms},
        },
        {
            "name": "durable",
            "in": "query",
            "description": "Answer when the event is acknowledged by the broker.",
            "schema": {"type": "boolean", "default": False},
        },
    ]


def _problems() -> Json:
    found: Json = {}
    for status, kinds in groupby(sorted(KINDS, key=lambda kind: kind.status), key=lambda kind: kind.status):
        found[str(status)] = _problem(list(kinds))
    return found


def _problem(kinds: Sequence[Kind]) -> Json:
    answer: Json = {
        "description": "; ".join(f"{kind.title} (`{kind.name}`)" for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if any(kind.retry for kind in kinds):
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer
