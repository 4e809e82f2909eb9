"""The registry's contract over the twin and a real one; what is asked of it, and how its failures read."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas import catalog
from schemas.catalog import Schema
from schemas.confluent import ConfluentRegistry
from schemas.errors import (
    BadRecord,
    HeadraceError,
    RegistryUnavailable,
    SchemaError,
    SettingsError,
    UnknownSchema,
)
from schemas.registry import CachedRegistry, MemoryRegistry, Registry
from schemas.wire import Decoder, Encoder
from tests import records


@pytest.fixture(params=["memory", "confluent"])
def any_registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    if request.param == "memory":
        yield MemoryRegistry()
        return
    real = ConfluentRegistry(request.getfixturevalue("registry").url, timeout_s=30)
    yield real
    real.close()


class TestAnyRegistry:
    def test_a_schema_comes_back_by_its_id(self, any_registry: Registry) -> None:
        schema_id = any_registry.register("a-value", catalog.load("order"))
        assert any_registry.schema(schema_id) == catalog.load("order")

    def test_the_same_schema_gets_the_same_id(self, any_registry: Registry) -> None:
        first, again = (any_registry.register("b-value", catalog.load("click")) for _ in range(2))
        assert first == again

    def test_other_schemas_get_other_ids(self, any_registry: Registry) -> None:
        ids = {any_registry.register(f"{name}-value", catalog.load(name)) for name in catalog.names()}
        assert len(ids) == len(catalog.names())

    @pytest.mark.parametrize("schema_id", [999_999, 2**31 - 1, 2**31, 2**32 - 1, 0])
    def test_an_id_that_was_never_given_is_unknown(self, any_registry: Registry, schema_id: int) -> None:
        for _ in range(2):
            with pytest.raises(UnknownSchema) as caught:
                any_registry.schema(schema_id)
            assert caught.value.code == "unknown_schema"

    def test_messages_go_from_one_client_to_another(self, any_registry: Registry) -> None:
        message = Encoder(any_registry, "c", "ad_impression")(records.impression())
        assert Decoder(any_registry, "ad_impression")(message) == records.impression()


def test_a_schema_that_is_none_is_refused_by_a_real_registry(registry: Any) -> None:
    real = ConfluentRegistry(registry.url, timeout_s=30)
    with pytest.raises(SchemaError, match="refuses"):
        real.register("bad-value", {"type": "record", "name": "no fields"})
    real.close()


def test_a_wrong_path_says_nothing_about_a_schema(registry: Any) -> None:
    real = ConfluentRegistry(registry.url.rsplit("/", 1)[0] + "/v99", timeout_s=30)
    with pytest.raises(RegistryUnavailable, match="404"):
        real.schema(1)
    real.close()


class Source(CachedRegistry):
    """A registry that knows ids up to `known`, and counts what it is asked."""

    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__(clock=lambda: self.now)
        self.known, self.asked = 0, 0
        self.failure: HeadraceError | None = None

    def _register(self, subject: str, schema: Schema) -> int:
        self._fetch(1)
        return 1

    def _fetch(self, schema_id: int) -> Schema:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        if schema_id > self.known:
            raise UnknownSchema(schema_id)
        return {"type": "string"}

    def answer(self, schema_id: int) -> str:
        try:
            self.schema(schema_id)
        except HeadraceError as error:
            return type(error).__name__
        return "known"


def test_a_known_id_is_asked_for_once_and_for_ever() -> None:
    source = Source()
    source.known = 5
    assert [source.answer(5) for _ in range(3)] == ["known"] * 3
    source.now += 1e9
    assert source.answer(5) == "known"
    assert source.asked == 1


def test_an_unknown_id_is_asked_for_again_after_a_while() -> None:
    source = Source()
    assert [source.answer(5) for _ in range(3)] == ["UnknownSchema"] * 3
    assert source.asked == 1
    source.known = 5
    source.now += source.unknown_s
    assert source.answer(5) == "known"


def test_a_flood_of_unknown_ids_is_asked_for_at_a_bounded_rate_and_gets_through() -> None:
    source = Source()
    flood = range(100, 1_500)
    seconds = 0
    while "RegistryUnavailable" in (answers := [source.answer(schema_id) for schema_id in flood]):
        assert source.asked <= source.unknown_per_s * (seconds + 1)
        source.now += 1.0
        seconds += 1
        assert seconds < 10
    assert answers == ["UnknownSchema"] * len(flood)


def test_what_is_remembered_of_a_flood_is_bounded() -> None:
    source = Source()
    for schema_id in range(1, 20_000):
        source.answer(schema_id)
        source.now += 0.004
    assert len(source._unknown) <= source.unknown_s * source.unknown_per_s + 1


def test_garbage_that_is_no_id_is_not_asked_for() -> None:
    source = Source()
    assert [source.answer(schema_id) for schema_id in (0, 2**31, 2**32 - 1)] == ["UnknownSchema"] * 3
    assert source.asked == 0


def test_a_silent_registry_is_asked_again_after_waits_that_double() -> None:
    source = Source()
    source.failure = RegistryUnavailable("away")
    gaps, last = [], source.now
    for _ in range(4_000):
        before = source.asked
        assert source.answer(7) == "RegistryUnavailable"
        if source.asked > before:
            gaps.append(round(source.now - last))
            last = source.now
        source.now += 0.05
    assert gaps[:7] == [0, 1, 2, 4, 8, 16, 30]


def test_an_answer_ends_the_waiting() -> None:
    source = Source()
    source.failure = RegistryUnavailable("away")
    source.answer(7)
    source.failure, source.known = None, 7
    assert source.answer(7) == "RegistryUnavailable"
    source.register("s", "string")  # a registration is always tried
    assert source.answer(7) == "known"


def test_an_id_of_no_use_is_asked_for_once() -> None:
    source = Source()
    source.failure = BadRecord("wrong_type", "it is of type PROTOBUF")
    for _ in range(2):
        with pytest.raises(BadRecord, match="PROTOBUF"):
            source.schema(9)
    assert source.asked == 1


def test_the_twin_can_be_taken_away() -> None:
    twin = MemoryRegistry()
    twin.available = False
    with pytest.raises(RegistryUnavailable) as caught:
        twin.register("s", "string")
    assert caught.value.retriable


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The URL of a server that answers everything with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked(url: str) -> HeadraceError:
    registry = ConfluentRegistry(url, timeout_s=5)
    with pytest.raises(HeadraceError) as caught:
        registry.schema(1)
    registry.close()
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (404, {"error_code": 40403, "message": "no"}, UnknownSchema, "schema id 1"),
        (404, {"error_code": 404, "message": "HTTP 404"}, RegistryUnavailable, "check the URL's path"),
        (404, "<html>", RegistryUnavailable, "check the URL's path"),
        (401, {"error_code": 401, "message": "who"}, RegistryUnavailable, "check the credentials"),
        (500, {"error_code": 50001, "message": "oh"}, RegistryUnavailable, "answered 500"),
        (503, "", RegistryUnavailable, "answered 503"),
        (429, {"error_code": 429, "message": "slower"}, RegistryUnavailable, "answered 429"),
        (200, "<html>", RegistryUnavailable, "does not answer"),
        (200, {"schema": "message M {}", "schemaType": "PROTOBUF"}, BadRecord, "PROTOBUF"),
        (200, {"schema": "{"}, BadRecord, "not JSON"),
        (
            200,
            {"schema": "{}", "references": [{"name": "a", "subject": "b", "version": 1}]},
            BadRecord,
            "refers",
        ),
    ],
)
def test_an_answer_reads_as_what_it_means(status: int, body: Any, error: type, says: str) -> None:
    with answering(status, body.encode() if isinstance(body, str) else json.dumps(body).encode()) as url:
        got = asked(url)
    assert type(got) is error
    assert says in str(got)


def test_a_refused_registration_is_an_error_of_the_schema() -> None:
    with answering(409, b'{"error_code": 409, "message": "incompatible"}') as url:
        registry = ConfluentRegistry(url)
        with pytest.raises(SchemaError, match="incompatible"):
            registry.register("a-value", "string")
        registry.close()


def test_a_closed_port_and_a_mute_server_are_silence() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        assert type(asked(address)) is RegistryUnavailable
        mute.listen()
        registry = ConfluentRegistry(address, timeout_s=0.1)
        with pytest.raises(RegistryUnavailable, match="does not answer"):
            registry.schema(1)
        registry.close()


@pytest.mark.parametrize(
    "conf",
    [
        "localhost:8081",
        "",
        {"url": "http://x", "ssl.ca.location": "/nowhere/ca.pem"},
        {"url": "http://x", "ssl.certificate.location": "/nowhere/cert.pem"},
        {"url": "http://x", "basic.auth.user.info": "no-colon"},
        {"url": "http://x", "surprise": "1"},
        {},
    ],
)
def test_settings_that_cannot_be_used_are_named(conf: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="registry's client"):
        ConfluentRegistry(conf)
