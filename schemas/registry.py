"""What a schema registry does, a twin in memory, and the policy of asking a real one no more than needed.
Its silence says nothing about a record: RegistryUnavailable; only its own "no such id" is UnknownSchema."""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

from schemas.catalog import Schema
from schemas.errors import BadRecord, RegistryUnavailable, SchemaError, UnknownSchema

MAX_ID = 2**31 - 1
"""Ids are positive 32-bit integers; garbage outside of them need not be asked for."""


T = TypeVar("T")


def subject_of(topic: str) -> str:
    """The subject of a topic's values (TopicNameStrategy)."""
    return f"{topic}-value"


class Registry(Protocol):
    """Ids for schemas and back. Both calls may block for the request's time limit; any thread may call."""

    def register(self, subject: str, schema: Schema) -> int:
        """The id of `schema` under `subject`, the same for the same schema. RegistryUnavailable, or
        SchemaError where the registry refuses it."""

    def schema(self, schema_id: int) -> Schema:
        """The schema of this id. UnknownSchema, RegistryUnavailable, or BadRecord where it is not Avro."""


class MemoryRegistry:
    """A registry for tests and demos. `available = False` takes it away."""

    def __init__(self) -> None:
        self.available = True
        self.requests = 0
        self._schemas: list[str] = []

    def register(self, subject: str, schema: Schema) -> int:
        self._request()
        text = json.dumps(schema, sort_keys=True)
        if text not in self._schemas:
            self._schemas.append(text)
        return self._schemas.index(text) + 1

    def schema(self, schema_id: int) -> Schema:
        self._request()
        if not 1 <= schema_id <= len(self._schemas):
            raise UnknownSchema(schema_id)
        schema: Schema = json.loads(self._schemas[schema_id - 1])
        return schema

    def _request(self) -> None:
        self.requests += 1
        if not self.available:
            raise RegistryUnavailable("the schema registry is switched off", where="memory")


class CachedRegistry(ABC):
    """Asks the registry as little as it can; a subclass says how. It never waits for its turn: what it will
    not ask now is RegistryUnavailable, to be tried again.

    Known ids are kept for ever, unknown ones for `unknown_s`, and in a second at most `unknown_per_s` of them
    are asked for: 2,000 distinct unknown ids in one batch are the most that trying again gets past. After a
    failure nothing is asked for a while, doubling from 1 s to `longest_wait_s`.
    """

    unknown_s = 10.0
    unknown_per_s = 200
    longest_wait_s = 30.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asking = threading.Lock()
        self._known: dict[int, Schema] = {}
        self._unusable: dict[int, str] = {}  # id to why
        self._unknown: dict[int, float] = {}  # id to when it was asked for, oldest first
        self._second, self._asked = 0.0, 0  # since when, and how many unknown ids were asked for
        self._wait_s, self._closed_until, self._failure = 0.0, 0.0, ""

    @abstractmethod
    def _register(self, subject: str, schema: Schema) -> int:
        """As `Registry.register`, by a request."""

    @abstractmethod
    def _fetch(self, schema_id: int) -> Schema:
        """As `Registry.schema`, by a request."""

    def register(self, subject: str, schema: Schema) -> int:
        return self._heard(lambda: self._register(subject, schema))

    def schema(self, schema_id: int) -> Schema:
        if schema_id in self._known:
            return self._known[schema_id]
        if schema_id in self._unusable:
            raise unusable(schema_id, self._unusable[schema_id])
        with self._asking:
            return self._known[schema_id] if schema_id in self._known else self._ask(schema_id)

    def _ask(self, schema_id: int) -> Schema:
        self._check_allowed(schema_id)
        try:
            schema = self._known[schema_id] = self._heard(lambda: self._fetch(schema_id))
        except UnknownSchema:
            self._unknown[schema_id] = self._clock()
            self._asked += 1
            raise
        except BadRecord as error:
            self._unusable[schema_id] = error.what
            raise
        return schema

    def _check_allowed(self, schema_id: int) -> None:
        now = self._clock()
        while self._unknown and now - next(iter(self._unknown.values())) >= self.unknown_s:
            del self._unknown[next(iter(self._unknown))]
        if schema_id in self._unknown or not 0 < schema_id <= MAX_ID:
            raise UnknownSchema(schema_id)
        if now < self._closed_until:
            raise RegistryUnavailable(self._failure, todo=f"asked again in {self._closed_until - now:.1f} s")
        if now - self._second >= 1.0:
            self._second, self._asked = now, 0
        if self._asked >= self.unknown_per_s:
            raise RegistryUnavailable(
                f"{self._asked} unknown schema ids within a second", todo="more are asked for in the next"
            )

    def _heard(self, request: Callable[[], T]) -> T:
        """The request's answer; a refusal counts as one, a silence closes the way for a while."""
        try:
            answer = request()
        except RegistryUnavailable as error:
            self._wait_s = min(max(1.0, 2 * self._wait_s), self.longest_wait_s)
            self._closed_until, self._failure = self._clock() + self._wait_s, str(error)
            raise
        except (BadRecord, SchemaError):
            self._wait_s = self._closed_until = 0.0
            raise
        self._wait_s = self._closed_until = 0.0
        return answer


def unusable(schema_id: int, why: str) -> BadRecord:
    """The error for an id whose schema is there, but of no use."""
    return BadRecord("wrong_type", why, where=f"schema id {schema_id}", expected="an Avro schema")
