"""Each role on each route of the whole console, through the real gate: who may gets past it, and nobody else does.
The table in docs/security.md is of the same routes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streams.access.gate import ACTION, COOKIE, READING, Door, Handler, doors
from streams.access.roles import LEAST, ROLES, allows
from streams.console import ops
from tests.console_app import Shown, shown

Client = TestClient[web.Request, web.Application]
SECURITY = Path(__file__).parents[1] / "docs" / "security.md"


def whole(console: Shown) -> web.Application:
    app = console.app()
    ops.routes(app)
    return app


def stand_in(app: web.Application) -> web.Application:
    """The same gate before the same routes, with nothing behind them that could refuse for a reason of its own."""
    made = web.Application(middlewares=list(app.middlewares))
    for key, value in app.items():
        made[key] = value
    for route in app.router.routes():
        if route.resource is not None and not isinstance(route.resource, web.StaticResource):
            made.router.add_route(route.method, route.resource.canonical, reached(getattr(route.handler, ACTION, "")))
    return made


def reached(action: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    setattr(handler, ACTION, action)
    return handler


def place(door: Door) -> str:
    """A path of the route."""
    return door.path.replace("{", "a-").replace("}", "")


def asked(console: Shown, role: str, ask: Callable[[Client, list[Door], str], Awaitable[None]]) -> None:
    """With a session of the role; with none where it is empty."""

    async def story() -> None:
        app = stand_in(whole(console))
        cookies, csrf = {}, ""
        if role:
            users = console.accounts.users
            user = users.find(role) or users.add(role, role, None, by="test", now_ms=console.now)
            opened = console.accounts.sessions.open(user, console.now)
            assert opened is not None
            cookies, csrf = {COOKIE: opened.cookie}, opened.identity.csrf
        async with TestClient(TestServer(app), cookies=cookies) as client:
            await ask(client, [door for door in doors(app) if door.action != "open"], csrf)

    asyncio.run(story())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_gets_past_the_gate_exactly_where_the_table_says(tmp_path: Path, role: str) -> None:
    async def ask(client: Client, found: list[Door], csrf: str) -> None:
        assert len(found) > 40
        meant = {"X-CSRF-Token": csrf}
        for door in found:
            answer = await client.request(door.method, place(door), headers=meant, allow_redirects=False)
            assert answer.status == (204 if allows(role, door.action) else 403), (role, door)
            if door.method not in READING:
                bare = await client.request(door.method, place(door), allow_redirects=False)
                assert bare.status == 403, (role, door)

    with shown(tmp_path) as console:
        asked(console, role, ask)


def test_who_is_nobody_gets_past_it_nowhere(tmp_path: Path) -> None:
    async def ask(client: Client, found: list[Door], csrf: str) -> None:
        for door in found:
            answer = await client.request(door.method, place(door), allow_redirects=False)
            program = door.path.startswith(("/api/", "/v1/"))
            assert answer.status == (401 if program else 303), door

    with shown(tmp_path) as console:
        asked(console, "", ask)


def test_the_documents_list_every_route_with_who_may(tmp_path: Path) -> None:
    with shown(tmp_path) as console:
        found = [door for door in doors(whole(console)) if door.method != "HEAD" and door.action != "open"]
    rows = [f"| `{door.method} {door.path}` | `{door.action}` | {LEAST[door.action]} |" for door in found]
    table = "\n".join(["| route | action | least role |", "|---|---|---|", *rows])
    assert table in SECURITY.read_text("utf-8"), f"the table of docs/security.md is to be:\n{table}"
