"""News for open pages: threads say what happened, each page that listens gets it, slow ones lose and are told so.
Nothing personal is said: a page that wants more asks for it as whoever it is.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

WAITING = 100  # messages that a page may be behind
RESYNC = "resync"
END = ""


class Hub:
    """`say` from any thread; `listen` on the event loop."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Queue[str], asyncio.AbstractEventLoop] = {}
        self._closed = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._listeners)

    def say(self, event: str, data: Mapping[str, Any]) -> None:
        self._send(message(event, data))

    def close(self) -> None:
        """Ends all that listen: the console need not wait for who looks at it."""
        self._closed = True
        self._send(END)

    def _send(self, text: str) -> None:
        with self._lock:
            listeners = list(self._listeners.items())
        for queue, loop in listeners:
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(_put, queue, text)

    async def listen(self, beat_s: float) -> AsyncIterator[str]:
        """Messages as server-sent events, and a comment every `beat_s` of silence."""
        queue: asyncio.Queue[str] = asyncio.Queue(WAITING)
        with self._lock:
            self._listeners[queue] = asyncio.get_running_loop()
        try:
            while not self._closed:
                try:
                    text = await asyncio.wait_for(queue.get(), beat_s)
                except TimeoutError:
                    text = ": still here\n\n"
                if text != END:
                    yield text
        finally:
            with self._lock:
                del self._listeners[queue]


def message(event: str, data: Mapping[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _put(queue: "asyncio.Queue[str]", text: str) -> None:
    if queue.full():  # it has missed something: what it knows is to be thrown away
        while not queue.empty():
            queue.get_nowait()
        text = message(RESYNC, {})
    queue.put_nowait(text)
