"""What the OpenAPI document allows is answered as it says, and what it forbids is refused, over a live server.
Schemathesis makes the requests: the edges of each field, and random ones of a fixed seed. All its checks hold.
"""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from bench.scoring import PARTITIONS
from streams.asking.door import Door
from streams.asking.json_schemas import LATEST_MS
from streams.asking.pages import Pages
from streams.asking.peers import Peers
from streams.config_sections import Web
from streams.web import Server
from tests.asking_shop import Desk, desk
from tests.test_asking_pages import known

TIMEOUT_S = 300
RUN = "from schemathesis.cli import schemathesis; schemathesis()"


async def serve(at: Desk, stop: asyncio.Event, up: "list[int]", ready: threading.Event) -> None:
    """The pages before a real asker; its time is the latest of which the document speaks."""
    door = Door(known, "127.0.0.1")
    pages = Pages(
        at.scorer.tasks, door, Peers("orders", dict), at.metrics,
        partitions=PARTITIONS, deadline_ms=2_000, now_ms=lambda: LATEST_MS,
    )  # fmt: skip
    pages.asker = at.asker
    at.now_ms = LATEST_MS
    app = web.Application(client_max_size=1 << 20)
    pages.add_to(app)
    running = asyncio.ensure_future(at.asker.run())
    try:
        async with Server(app, Web(port=0)) as server:
            up.append(server.port)
            ready.set()
            await stop.wait()
    finally:
        running.cancel()
        await asyncio.wait([running])
        at.asker.engines.close()


@contextmanager
def live() -> Iterator[str]:
    """The address of a server in a thread."""
    loop, stop, ready, up = asyncio.new_event_loop(), asyncio.Event(), threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(desk(), stop, up, ready)))
    thread.start()
    try:
        assert ready.wait(60)
        yield f"http://127.0.0.1:{up[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_what_the_document_says_holds_for_a_thousand_requests(tmp_path: Path) -> None:
    with live() as url:
        command = [
            *(sys.executable, "-c", RUN, "run", f"{url}/openapi.json"),
            *("--checks", "all", "--seed", "1", "--max-examples", "100", "--no-color", "--wait-for-schema", "10"),
            *("-H", "Authorization: Bearer headrace_narrow"),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert "3 selected / 3 total" in done.stdout
    assert "Missing authentication" not in done.stdout, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if " generated, " in line]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", line)}
    assert counts["generated"] > 500, line
    assert counts.keys() <= {"generated", "passed", "skipped"}, line
