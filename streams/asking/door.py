"""Who may ask for scores: whoever has the token; without one, programs of this machine alone.
The one place that says so: users, roles and tokens of other kinds belong here.
"""

import ipaddress
from hmac import compare_digest

from aiohttp import web

from streams.asking.problems import CLOSED, NO_TOKEN, Problem


class Door:
    """`token` empty: no token. `host`: where the worker listens."""

    def __init__(self, token: str, host: str) -> None:
        self._token, self._host = token.encode(), host

    @property
    def open(self) -> bool:
        """Whether anybody at all may ask."""
        return bool(self._token) or is_loopback(self._host)

    async def admit(self, request: web.Request) -> None:
        """Raises Problem for whom nothing is said."""
        if self._token:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not compare_digest(given.strip().encode(), self._token):
                raise Problem(NO_TOKEN, "the request has no token, or a wrong one", expected="Authorization: Bearer …")
        elif not self.open:
            raise Problem(
                CLOSED, f"it listens on {self._host}, and ask.token is not set", expected="127.0.0.1, or a token",
                todo="set ask.token for all workers, or web.host to 127.0.0.1",
            )  # fmt: skip
        elif not is_loopback(named(request)):  # a page that had its own name resolve to this machine
            raise Problem(CLOSED, "the Host header names another host", expected="127.0.0.1, [::1] or localhost")


def named(request: web.Request) -> str:
    """The host that the client believes it speaks to."""
    try:
        return request.url.host or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
