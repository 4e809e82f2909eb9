"""The parent: keeps a worker for each shop until it is asked to end, then ends them in order and waits for them.
It holds no data of any shop; what fails in one of them is said with its name, and the others go on.
"""

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from schemas.errors import SettingsError
from streams.config import Settings
from streams.config_sections import Web
from streams.shops.kept import Child, Kept
from streams.shops.pages import application
from streams.shops.plan import Shop, apart, shop_of
from streams.shops.shares import Shares, kept_by
from streams.signals import hear
from streams.web import Server

log = logging.getLogger(__name__)

TICK_S = 0.2
Read = Callable[[str], Settings]
Start = Callable[[Shop], Child]


def check(names: Sequence[str], read: Read, page: Web) -> None:
    """SettingsError where two want the same port, or no shop at all has settings that can be used."""
    found, refused = [], []
    for name in names:
        try:
            found.append(shop_of(read(name)))
        except SettingsError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    apart(found, page)


def process_of(arguments: Callable[[str], Sequence[str]], *, alone: bool = True) -> Start:
    """Starts `headrace ARGUMENTS` of a shop's name; `alone`: in a session of its own."""

    def start(shop: Shop) -> Child:
        command = [sys.executable, "-m", "streams.shops.child", str(os.getpid()), *arguments(shop.name)]
        env = os.environ | {"HEADRACE_WEB__PORT": str(shop.port)}
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=alone)

    return start


class Shops:
    """All of them. `step` again and again, then `stop` and `step` until `over`."""

    def __init__(self, names: Sequence[str], read: Read, start: Start, shares: Shares, page: Web, now: float) -> None:
        self._settings_of, self._start, self._shares, self._page = read, start, shares, page
        self._most = 0.0
        self.kept = [Kept(name, self._read, self._started, now) for name in names]

    @property
    def over(self) -> bool:
        return all(each.state == "ended" for each in self.kept)

    def step(self, now: float) -> None:
        for each in self.kept:
            each.step(now)

    def stop(self, now: float) -> None:
        for each in self.kept:
            each.stop(now)

    def _read(self, name: str) -> Shop:
        shop = shop_of(self._settings_of(name))
        others = [each.shop for each in self.kept if each.shop is not None and each.name != name and each.pid]
        apart([*others, shop], self._page)
        return shop

    def _started(self, shop: Shop) -> Child:
        child = self._start(shop)
        running = {each.shop: each.pid for each in self.kept if each.shop and each.pid and each.name != shop.name}
        most = max(each.share for each in (*running, shop))
        told = running if most != self._most else {}
        for one, pid in {**told, shop: child.pid}.items():
            self._keep(one, pid, most)
        self._most = most
        return child

    def _keep(self, shop: Shop, pid: int, most: float) -> None:
        named = {"shop": shop.name}
        try:
            done = self._shares.keep(shop.name, pid, shop.share, most)
        except OSError as error:
            log.warning("shop %s: its share of %g is not kept: %s", shop.name, shop.share, error, extra=named)
        else:
            log.info("shop %s: a share of %g is %s", shop.name, shop.share, done, extra=named)


def run(names: Sequence[str], read: Read, start: Start, page: Web, shares_of: Callable[[], Shares] = kept_by) -> None:
    """Until SIGTERM or SIGINT. SettingsError before anything is started."""
    check(names, read, page)
    asyncio.run(_main(names, read, start, page, shares_of()))


async def _main(names: Sequence[str], read: Read, start: Start, page: Web, shares: Shares) -> None:
    stopped = asyncio.Event()
    hear(asyncio.get_running_loop(), stopped.set)
    shops = Shops(names, read, start, shares, page, time.monotonic())
    async with Server(application(shops.kept, shares.words), page, "shops_web") as server:
        log.info("shops %s; pages of all on %s:%d", ", ".join(names), page.host, server.port)
        say_how(shares)
        while not shops.over:
            if stopped.is_set():
                shops.stop(time.monotonic())
            shops.step(time.monotonic())
            await _pause(stopped)


def say_how(shares: Shares) -> None:
    if shares.by_shop:
        log.info("shares of the processor are kept by %s", shares.words)
    else:
        log.warning(
            "shares of the processor cannot be kept by shop: no control group is delegated to this process, and the"
            " kernel does not share by session here; by %s, a shop with more busy threads gets more",
            shares.words,
        )


async def _pause(stopped: asyncio.Event) -> None:
    """Not longer than until it is asked to end."""
    if stopped.is_set():
        await asyncio.sleep(TICK_S)
        return
    try:
        await asyncio.wait_for(stopped.wait(), TICK_S)
    except TimeoutError:
        return
