"""Which worker owns a partition, and the way of a request to it: forwarded once, by whoever gets it first.
The group itself tells: each member names its address as it joins, and learns all of them with its partitions.
"""

import socket
from collections.abc import Callable, Mapping, Sequence

import aiohttp
from aiohttp import web

from streams.asking.door import is_loopback
from streams.asking.problems import NO_ANSWER, NOT_READY, Problem, not_ready

GRACE_S = 0.25  # beyond the deadline: the owner answers by then, if by its fallback
PASSED_ON = ("Content-Type", "Retry-After", "WWW-Authenticate")

#: Partitions by topic, by the address of the worker that has them.
Shares = Mapping[str, Mapping[str, Sequence[int]]]


def own_url(url: str, host: str, port: int) -> str:
    """Where other workers reach this one: as set, else where it listens."""
    if url:
        return url
    name = host if is_loopback(host) or host not in ("0.0.0.0", "::") else socket.getfqdn()
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


class Peers:
    """The other workers of the group. `shares` is asked each time: it changes with each rebalance."""

    def __init__(self, topic: str, shares: Callable[[], Shares]) -> None:
        """`topic`: an input; its partitions are a user's on all inputs."""
        self._topic, self._shares = topic, shares
        self.own = ""
        self._session: aiohttp.ClientSession | None = None

    def owner(self, partition: int) -> str | None:
        """The address of another worker, None where there is none."""
        for url, topics in self._shares().items():
            if partition in topics.get(self._topic, ()):
                return url if url.rstrip("/") != self.own.rstrip("/") else None
        return None

    async def forward(
        self,
        partition: int,
        path: str,
        body: bytes,
        options: Mapping[str, str],
        headers: Mapping[str, str],
        wait_s: float,
    ) -> web.Response:
        """The owner's answer, whatever it is. options: the query; headers: by which the owner believes us.
        Raises Problem."""
        owner = self.owner(partition)
        if owner is None:
            raise not_ready(partition)
        headers = {"Content-Type": "application/json", **headers}
        timeout = aiohttp.ClientTimeout(total=wait_s + GRACE_S, sock_connect=min(1.0, wait_s + GRACE_S))
        address = owner.rstrip("/") + path
        try:
            async with self._client().post(
                address, data=body, params=options, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                kept = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Problem(
                NOT_READY, f"the owner of partition {partition} cannot be reached", todo="ask again"
            ) from None
        except (aiohttp.ClientError, TimeoutError):
            raise Problem(
                NO_ANSWER, f"the owner of partition {partition} was asked, and may have scored the event",
                todo="ask again: the same event gets the same answer",
            ) from None  # fmt: skip

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False)
        return self._session
