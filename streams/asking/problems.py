"""What a request is told that cannot be answered: RFC 9457 problem+json, naming the field that is meant.
Each kind of problem is one row here; the OpenAPI document is made from the same rows.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import BadRecord

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """The `type` of a problem is `urn:headrace:problem:` and its name. retry: the same request may do better soon."""

    name: str
    status: int
    title: str
    retry: bool = False


NOT_JSON = Kind("not-json", 400, "The body is no JSON object")
BAD_OPTION = Kind("bad-option", 400, "An option of the request cannot be used")
NO_TOKEN = Kind("no-token", 401, "A token is needed")
CLOSED = Kind("closed", 403, "This worker answers no requests from there")
NOT_YOURS = Kind("not-yours", 403, "The token may not ask for scores")
NO_SUCH_TASK = Kind("no-such-task", 404, "There is no such task here")
WRONG_METHOD = Kind("wrong-method", 405, "The page takes another method")
SLOW_BODY = Kind("slow-body", 408, "The body did not come in time")
ANOTHER_EVENT = Kind("another-event", 409, "The event_id is that of another event")
ALREADY_SCORED = Kind("already-scored", 409, "The event has been scored")
TOO_LARGE = Kind("too-large", 413, "The event is too large")
NO_JSON_TYPE = Kind("no-json-type", 415, "The body must be application/json")
BAD_EVENT = Kind("bad-event", 422, "The event is not of its contract")
FAILED = Kind("failed", 500, "Something went wrong here")
NOT_READY = Kind("not-ready", 503, "Nobody can answer for the user now", retry=True)
NO_ACCOUNTS = Kind("no-accounts", 503, "It cannot be found out who asks")
BUSY = Kind("busy", 503, "Too many requests wait", retry=True)
NOT_PUBLISHED = Kind("not-published", 503, "The event could not be published", retry=True)
NO_ANSWER = Kind("no-answer", 504, "The user's worker did not answer in time", retry=True)

KINDS = (
    NOT_JSON, BAD_OPTION, NO_TOKEN, CLOSED, NOT_YOURS, NO_SUCH_TASK, WRONG_METHOD, SLOW_BODY, ANOTHER_EVENT,
    ALREADY_SCORED, TOO_LARGE, NO_JSON_TYPE, BAD_EVENT, FAILED, NOT_READY, NO_ACCOUNTS, BUSY, NOT_PUBLISHED, NO_ANSWER,
)  # fmt: skip

RETRY_AFTER_S = 1
_STEP = re.compile(r"\['((?:[^'\\]|\\.)*)'\]|\[(\d+)\]|([^.\[\]]+)")


@dataclass(slots=True, eq=False)
class Problem(Exception):
    """detail: what, in a sentence. where: dotted path in the body, or an option. The others: as of our errors."""

    kind: Kind
    detail: str
    where: str = ""
    expected: str = ""
    todo: str = ""
    code: str = ""

    def body(self) -> dict[str, Any]:
        said = {
            "type": type_of(self.kind), "title": self.kind.title, "status": self.kind.status, "detail": self.detail,
        }  # fmt: skip
        rest = {
            "field": self.where, "pointer": json_pointer(self.where) if self.kind is BAD_EVENT else "",
            "expected": self.expected, "todo": self.todo, "code": self.code,
        }  # fmt: skip
        return said | {name: value for name, value in rest.items() if value}

    def text(self) -> str:
        return json.dumps(self.body())

    def headers(self) -> Mapping[str, str]:
        if self.kind.retry:
            return {"Retry-After": str(RETRY_AFTER_S)}
        return {"WWW-Authenticate": "Bearer"} if self.kind is NO_TOKEN else {}


def type_of(kind: Kind) -> str:
    return f"urn:headrace:problem:{kind.name}"


def json_pointer(path: str) -> str:
    """RFC 6901, of a path such as `items[0].quantity` or `attributes['a.b']`."""
    steps = [next(part for part in found if part) for found in _STEP.findall(path) if any(found)]
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def bad_event(error: BadRecord) -> Problem:
    """A BadRecord of a posted event."""
    return Problem(BAD_EVENT, error.what, error.where, error.expected, code=error.code)


def not_ready(partition: int) -> Problem:
    return Problem(NOT_READY, f"partition {partition} has no owner that is ready", todo="ask again")


def another_event(event_id: str) -> Problem:
    return Problem(
        ANOTHER_EVENT, f"another event of this user was posted as {event_id[:200]!r}", "event_id",
        todo="give each event an id of its own; post the same event again to get its answer again",
    )  # fmt: skip


def already_scored(topic: str) -> Problem:
    """`topic`: where the score is."""
    what = "it has come by Kafka, or was answered too long ago"
    return Problem(ALREADY_SCORED, what, "event_id", todo=f"its score is on {topic}")
