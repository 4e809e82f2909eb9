"""Fraud alerts for tests of webhooks, and a receiver of them on this machine that answers as it is told."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from aiohttp import web

from streams.config_sections import Endpoint
from tests.records import NOON_MS, money

SECRET = b"a secret of the shop"


def alert(order: str = "order-1", **fields: Any) -> dict[str, Any]:
    """In physical values."""
    return {
        "alert_id": f"alert-{order}", "order_id": order, "event_id": "event-1", "user_id": "user-1",
        "event_time": NOON_MS, "raised_at": NOON_MS + 30, "policy_version": "p1", "release": "fraud/r1",
        "probability": 0.75, "decision": "review", "reasons": ["new card"], "rules": [], "links": [],
        "entities": ["card:c-1"], "amount": money(12.5), "currency": "GBP", "country": "GB", "order_partition": 0,
        "order_offset": 7, "features_format": 1, "features": b"\x00\xff" * 40, "expected_loss": 31.5,
        "contributions": [{"group": "card", "logit": 1.5}], "completeness_error": 0.01,
        "sentences": {"en": "New card."},
    } | fields  # fmt: skip


def endpoint(url: str = "http://127.0.0.1:1/", **fields: Any) -> Endpoint:
    return Endpoint(**{"name": "shop", "url": url, "secrets": ["env:SHOP_WEBHOOK_SECRET"]} | fields)


class Post(NamedTuple):
    """What came, and when."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    request: web.Request


Behaviour = Callable[[Post], Awaitable[web.StreamResponse]]


async def take(_: Post) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Receiver:
    """Serves in a thread of its own while its context is open; `behaviour` by path, `take` for any other."""

    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    posts: list[Post] = field(default_factory=list)
    at_once: int = 0  # the most requests that it has had at a time
    port: int = 0

    def __enter__(self) -> Self:
        self._loop, self._now, ready = asyncio.new_event_loop(), 0, threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(ready)))
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def to(self, path: str) -> list[Post]:
        return [post for post in self.posts if post.path == path]

    async def _serve(self, ready: threading.Event) -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._post)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self._ended.wait()
        await runner.cleanup()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        try:
            post = Post(request.path, dict(request.headers), await request.read(), time.monotonic(), request)
            self.posts.append(post)
            return await self.behaviour.get(request.path, take)(post)
        finally:
            self._now -= 1
