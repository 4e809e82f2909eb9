"""Puts the gate before every route of an aiohttp application, and adds the ways in and out.
Declare each handler's action with `requires`; what has none is refused to all."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from streams.access.accounts import Accounts
from streams.access.gate import Clock, Gate, now_ms
from streams.access.login import Login
from streams.access.oidc import Provider
from streams.access.pages import LoginView, RefusedView, plain_login, plain_refused
from streams.access.settings import Oidc
from streams.access.sso import Sso


def protect(
    app: web.Application,
    accounts: Accounts,
    clock: Clock = now_ms,
    *,
    behind_proxy: bool = False,
    oidc: Oidc | None = None,
    login_page: Callable[[LoginView], str] = plain_login,
    refused_page: Callable[[RefusedView], str] = plain_refused,
) -> Gate:
    """Call it once, on the outermost application; routes may be added before and after.

    `behind_proxy`, `oidc`: the settings of these names. The pages are given what to show, and give HTML.
    SettingsError where `oidc` is asked for and its libraries are not installed.
    """
    gate = Gate(accounts, clock, behind_proxy=behind_proxy, login_page=login_page, refused_page=refused_page)
    app.middlewares.insert(0, gate.middleware)
    app.on_response_prepare.append(gate.prepare)
    provider = Provider(oidc) if oidc is not None and oidc.issuer else None
    login = Login(gate, sso=provider is not None)
    login.add_to(app)
    if provider is not None:
        Sso(gate, login, provider).add_to(app)

    async def warm(_: web.Application) -> None:
        """Else the first unknown name would be told from a known one by its time."""
        await asyncio.to_thread(lambda: accounts.passwords.nobodys)

    app.on_startup.append(warm)
    return gate
