"""Posts to a receiver on this machine: what arrives, and what is made of one that hangs, fails, or talks nonsense.
The receiver of the documentation is one of them.
"""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from streams.cli import app
from streams.config import Settings
from streams.config_sections import Endpoint
from streams.webhooks.body import body, delivery
from streams.webhooks.policy import Answer
from streams.webhooks.replay import post_test
from streams.webhooks.sender import Sender
from tests.webhook_alerts import SECRET, Post, Receiver, alert, endpoint

PAGE = Path(__file__).parent.parent / "docs" / "webhooks.md"
PLACE = ("alerts.fraud", 0, 7)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def post(
    to: Endpoint, *, timeout_s: float = 5, secret: bytes = SECRET, now_s: Callable[[], float] = time.time
) -> Answer:
    async def once() -> Answer:
        async with aclosing(Sender(to, [secret], timeout_s, 2, now_s)) as sender:
            return await sender.post(delivery(to.name, alert(), b"", PLACE))

    return asyncio.run(once())


def test_what_arrives_is_the_body_with_who_signed_it_and_what_it_is(receiver: Receiver) -> None:
    answer = post(endpoint(receiver.url("/hook?from=headrace")), now_s=lambda: 1_700_000_000.7)
    assert (answer.meaning, answer.status) == ("delivered", 204)
    [found] = receiver.posts
    assert found.path == "/hook"
    assert found.body == body(alert())
    assert found.headers["Content-Type"] == "application/json"
    assert found.headers["Headrace-Alert-Id"] == "alert-order-1"
    assert found.headers["Headrace-Delivery"] == delivery("shop", alert(), b"", PLACE).id
    assert re.fullmatch(r"t=1700000000,v1=[0-9a-f]{64}", found.headers["Headrace-Signature"])


def test_an_endpoint_that_hangs_is_given_up_in_time(receiver: Receiver) -> None:
    async def hang(_: Post) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    receiver.behaviour["/hook"] = hang
    began = time.monotonic()
    answer = post(endpoint(receiver.url("/hook")), timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert (answer.meaning, answer.reason) == ("again", "no answer in 0.3 s")


@pytest.mark.parametrize(("status", "meaning"), [(500, "again"), (429, "again"), (404, "final"), (302, "final")])
def test_what_an_endpoint_says_is_kept_and_its_wish_to_wait_is_read(
    status: int, meaning: str, receiver: Receiver
) -> None:
    headers = {"Retry-After": "7", "Location": receiver.url("/elsewhere")}

    async def say(_: Post) -> web.StreamResponse:
        return web.Response(status=status, text="no: " + "é" * 5_000, headers=headers)

    receiver.behaviour["/hook"] = say
    answer = post(endpoint(receiver.url("/hook")))
    assert (answer.status, answer.meaning, answer.retry_after_s) == (status, meaning, 7.0)
    assert answer.body.startswith("no: é")
    assert len(answer.body.encode()) <= 1_010
    assert [found.path for found in receiver.posts] == ["/hook"], "a redirect is not followed"


def test_an_answer_without_an_end_is_not_waited_for(receiver: Receiver) -> None:
    async def flood(post: Post) -> web.StreamResponse:
        answer = web.StreamResponse(status=200)
        await answer.prepare(post.request)
        while True:
            await answer.write(b"x" * 65_536)

    receiver.behaviour["/hook"] = flood
    began = time.monotonic()
    answer = post(endpoint(receiver.url("/hook")), timeout_s=5)
    assert answer.meaning == "delivered"
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("says", [b"", b"\x00\x01\x02 no HTTP \r\n\r\n", b"HTTP/1.1 2"])
def test_what_talks_no_http_is_tried_again(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        answer = post(endpoint(f"http://127.0.0.1:{server.getsockname()[1]}/"))
        thread.join()
    assert (answer.status, answer.meaning) == (None, "again")
    assert answer.reason


def test_nobody_listening_is_tried_again_and_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = post(endpoint(f"http://127.0.0.1:{port}/"))
    assert answer.meaning == "again"
    assert str(port) in answer.reason


# -- the receiver of the documentation


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, dict[Any, bytes]]]:
    """Its port, and what it has taken."""
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    monkeypatch.setenv("SHOP_WEBHOOK_SECRET", SECRET.decode())
    names: dict[str, Any] = {}
    exec(code, names)
    handler: type[BaseHTTPRequestHandler] = names["Receiver"]
    monkeypatch.setattr(handler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1], names["taken"]
        server.shutdown()
        thread.join()


def test_the_documented_receiver_takes_what_is_signed_once_for_each_alert_and_decision(
    documented: tuple[int, dict[Any, bytes]],
) -> None:
    port, taken = documented
    to = endpoint(f"http://127.0.0.1:{port}/")
    for _ in range(2):
        assert post(to).status == 204
    assert {key: json.loads(found)["order_id"] for key, found in taken.items()} == {
        ("alert-order-1", "review"): "order-1"
    }


def test_the_documented_receiver_refuses_another_secret_and_an_old_signature(
    documented: tuple[int, dict[Any, bytes]],
) -> None:
    port, taken = documented
    to = endpoint(f"http://127.0.0.1:{port}/")
    assert post(to, secret=b"not the secret of the shop").status == 400
    assert post(to, now_s=lambda: time.time() - 400).status == 400
    assert not taken


def test_the_documented_receiver_takes_what_either_of_two_secrets_signs(
    documented: tuple[int, dict[Any, bytes]],
) -> None:
    port, taken = documented
    to = endpoint(f"http://127.0.0.1:{port}/")

    async def once() -> Answer:
        async with aclosing(Sender(to, [b"the new secret of the shop", SECRET], 5, 2)) as sender:
            return await sender.post(delivery(to.name, alert(), b"", PLACE))

    assert asyncio.run(once()).status == 204
    assert len(taken) == 1


# -- a test alert


def settings_for(url: str) -> Settings:
    return Settings(webhooks={"endpoints": [endpoint(url, decisions=["block"]).model_dump()]})


def test_a_test_alert_is_signed_and_can_be_told_from_a_real_one(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_WEBHOOK_SECRET", SECRET.decode())
    assert post_test(settings_for(receiver.url()), "shop", 1_700_000_000_000).meaning == "delivered"
    [found] = receiver.posts
    made = json.loads(found.body)
    assert (made["order_id"], made["decision"]) == ("headrace-test", "block")
    assert "v1=" in found.headers["Headrace-Signature"]


@pytest.mark.usefixtures("logging_as_it_was")
def test_the_command_says_what_the_endpoint_answers_and_fails_where_it_does_not_take_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def refuse(_: Post) -> web.StreamResponse:
        return web.Response(status=401, text="who are you?")

    receiver.behaviour["/closed"] = refuse
    monkeypatch.setenv("SHOP_WEBHOOK_SECRET", SECRET.decode())
    endpoints = [endpoint(receiver.url(path), name=name).model_dump() for name, path in (("a", "/"), ("b", "/closed"))]
    monkeypatch.setenv("HEADRACE_WEBHOOKS__ENDPOINTS", json.dumps(endpoints))
    good = CliRunner().invoke(app, ["webhooks", "test", "a"])
    assert (good.exit_code, "a: taken, status 204" in good.output) == (0, True)
    bad = CliRunner().invoke(app, ["webhooks", "test", "b"])
    assert bad.exit_code == 1
    assert "b: not taken, status 401" in bad.output
    assert "who are you?" in bad.output
    unknown = CliRunner().invoke(app, ["webhooks", "test", "c"])
    assert unknown.exit_code == 2
    assert "there is no endpoint c" in unknown.output
