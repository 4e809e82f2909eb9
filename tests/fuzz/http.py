"""Requests to a running application over a socket: bodies, headers, queries and paths, some of them no HTTP at all.
Answers are those that the OpenAPI document states, or the server closes the connection; 500 is a finding.
"""

import asyncio
import gzip
import json
from random import Random
from typing import Any, NamedTuple

from aiohttp import web

from bench.scoring import PARTITIONS, make_scorer
from schemas.values import to_json
from streams.asking.door import Door
from streams.asking.pages import Pages
from streams.asking.peers import Peers
from streams.asking.problems import KINDS, MEDIA_TYPE, type_of
from streams.config_sections import Web
from streams.state import UserState
from streams.web import Server
from tests import records
from tests.asking_shop import Desk
from tests.fuzz import drawing
from tests.fuzz.target import Wrong
from tests.test_asking_pages import known

CONTRACTS = {"fraud": "order", "recommendations": "click", "ctr": "ad_impression"}
EVENTS = {"fraud": records.order, "recommendations": records.click, "ctr": records.impression}
STATUSES = frozenset(kind.status for kind in KINDS) - {500} | {200, 400, 404}
TYPES = frozenset(type_of(kind) for kind in KINDS)
ROWS, REMEMBERED = 256, 500
"""Users and answers in memory: few, so that what the application is there to remember is not what grows."""
ANSWER_S, HALF_S = 20.0, 0.3
LARGEST = 1 << 20
METHODS = ("GET", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "post", "POST POST", "\0", "X" * 9_000)
HEADERS = (
    "Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: 99999999999", "Content-Encoding: gzip",
    "Content-Encoding: br", "Expect: 100-continue", "Host: evil.example", "Host: [::1", "Authorization: Basic eDp5",
    "Authorization: Bearer", "Authorization: Bearer headrace_viewer", "Authorization: Bearer \xff", "Connection: close",
    "Upgrade: websocket", "Cookie: " + "a=b; " * 500, "X: " + "y" * 9_000, "Bad header", ": x", "Headrace-Forwarded: 1",
    "Headrace-Forwarded: 1 2", "Headrace-Forwarded: 99999999999999999999999 x", "Content-Type: text/plain",
    "Content-Type: application/json; charset=utf-16", "Content-Type: ;;;", "traceparent: 00-x", "Range: bytes=0-1",
)  # fmt: skip
QUERIES = (
    "deadline_ms=1", "deadline_ms=0", "deadline_ms=-1", "deadline_ms=1e3", "deadline_ms=%00", "deadline_ms=٣",
    "durable=true", "durable=maybe", "x=1", "deadline_ms=1&deadline_ms=2", "%ff=%fe", "&&&=;", "durable",
    "deadline_ms=" + "9" * 5_000,
)  # fmt: skip


class Request(NamedTuple):
    """raw: what goes over the socket; whole: whether it is a request that must be answered."""

    raw: bytes
    whole: bool


class Requests:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._desk: Desk | None = None

    def draw(self, random: Random) -> Request:
        task = random.choice([*CONTRACTS])
        event = EVENTS[task](event_id=f"e{random.randrange(10**9)}", user_id=f"u{random.randrange(50)}")
        row: Any = to_json(CONTRACTS[task], event)
        row = drawing.bent(random, row)
        body = json.dumps(row, ensure_ascii=random.random() < 0.7).encode(errors="surrogatepass")
        if random.random() < 0.15:
            body = drawing.spoilt(random, body)
        if random.random() < 0.02:
            body = random.choice(
                (b"", b"[" * 100_000, b'{"a":' * 5_000, b"9" * 5_000, b" " * (LARGEST + 1), b"\0" * 100)
            )
        method = "POST" if random.random() < 0.96 else random.choice(METHODS)
        path = f"/v1/score/{task}"
        if random.random() < 0.04:
            path = random.choice(
                ("/v1/score/", "/v1/score/%2e%2e", "/v1/score/x" * 900, "/openapi.json", "//", "*", "/%")
            )
        if random.random() < 0.2:
            path += "?" + random.choice(QUERIES)
        headers = ["Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        headers += ["Authorization: Bearer headrace_narrow", "Connection: close"]
        if random.random() < 0.2:
            headers.insert(random.randrange(len(headers)), random.choice(HEADERS))
        plain = len(headers) == 5
        if random.random() < 0.02:
            plain = False
            body = gzip.compress(random.choice((body, b" " * (40 * LARGEST), body[:-1])), 1)
            headers[2:3] = [f"Content-Length: {len(body)}", "Content-Encoding: gzip"]
        if random.random() < 0.05:
            del headers[random.randrange(len(headers))]
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{header}\r\n" for header in headers) + "\r\n"
        raw = head.encode("latin-1", errors="replace") + body
        if random.random() < 0.02:
            return Request(drawing.spoilt(random, raw), whole=False)
        return Request(
            raw, whole=method == "POST" and path.startswith(f"/v1/score/{task}") and plain and len(headers) == 5
        )

    def look(self, given: Request) -> str:
        if self._desk is None:
            self._loop.run_until_complete(self._begin())
        return self._loop.run_until_complete(self._asked(given))

    async def _begin(self) -> None:
        scorer, registry = make_scorer([1, 8])
        scorer.state = UserState(ROWS)
        self._desk = at = Desk(scorer, registry)
        at.answers._remembered = REMEMBERED
        door = Door(known, "127.0.0.1", key="shared")
        pages = Pages(
            at.scorer.tasks, door, Peers("orders", dict), at.metrics,
            partitions=PARTITIONS, deadline_ms=2_000, now_ms=lambda: at.now_ms,
        )  # fmt: skip
        pages.asker = at.asker
        app = web.Application(client_max_size=LARGEST)
        pages.add_to(app)
        self._running = asyncio.ensure_future(at.asker.run())
        self._server = Server(app, Web(port=0))
        await self._server.__aenter__()
        self._loop.set_exception_handler(self._complaint)
        self._complaints: list[str] = []

    def _complaint(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._complaints.append(str(context.get("message")) + repr(context.get("exception")))

    async def _end(self) -> None:
        if self._desk is not None:
            await self._server.__aexit__(None, None, None)
            self._running.cancel()
            await asyncio.wait([self._running])
            self._desk.asker.engines.close()

    async def _asked(self, given: Request) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port, limit=1 << 24)
        try:
            writer.write(given.raw)
            answer = await self._answer(reader, given)
        except ConnectionError:
            answer = b""
        finally:
            writer.close()
        if self._running.done():
            raise Wrong(f"the asker ended: {self._running}")
        if self._complaints:
            raise Wrong(f"on the event loop: {self._complaints.pop()}")
        self._read_back()
        return self._judged(given, answer)

    async def _answer(self, reader: asyncio.StreamReader, given: Request) -> bytes:
        """All that is said; of half a request, what is said before long: the server may wait for the rest."""
        answer = b""
        try:
            async with asyncio.timeout(ANSWER_S if given.whole else HALF_S):
                while more := await reader.read(1 << 16):
                    answer += more
        except TimeoutError:
            if given.whole:
                raise Wrong(f"no answer in {ANSWER_S} s") from None
        return answer

    def _judged(self, given: Request, answer: bytes) -> str:
        if not answer:
            if given.whole:
                raise Wrong("no answer to a whole request")
            return "closed"
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100 "):
            head, _, body = body.partition(b"\r\n\r\n")
            if not head:
                return "closed"
        status = int(head.split(b" ", 2)[1])
        stated = status in STATUSES or (not given.whole and 400 <= status < 500)  # such as 417, of the server itself
        if not stated:
            raise Wrong(f"status {status}: {answer[:2_000]!r}")
        if given.whole:
            said = json.loads(body)
            if status != 200 and (MEDIA_TYPE.encode() not in head or said["type"] not in TYPES):
                raise Wrong(f"a refusal in other words: {answer[:2_000]!r}")
            if status == 200 and "event_id" not in said:
                raise Wrong(f"no score: {answer[:2_000]!r}")
        return str(status)

    def _read_back(self) -> None:
        """What was answered comes back from its topic and is scored by the loop, as in a worker."""
        at = self._desk
        assert at is not None
        sent, at.post.sent = at.post.sent, []
        at.post.futures.clear()
        if sent:
            work = at.loop(*[at.record(one) for one in sent])
            at.scorer.outputs.waves(work)

    def close(self) -> None:
        self._loop.run_until_complete(self._end())
        self._loop.close()
