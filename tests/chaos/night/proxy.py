"""A link between clients and one broker that can be cut, held or slowed: an asyncio TCP proxy in a thread of its own.
Brokers advertise the proxy's port, so that every client of theirs goes through it. They themselves do not.
"""

import asyncio
import threading
from contextlib import suppress

CHUNK = 16_384


class Proxy:
    """Passes bytes between `port` and `target`, both on 127.0.0.1. Its methods may be called from any thread.

    `delay_s` is added to each chunk of up to CHUNK bytes, in both directions: latency, and a bandwidth of
    CHUNK / delay_s.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self._target = port, target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {port}", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._cut, self._delay_s = False, 0.0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        listen = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(listen, self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Ends all connections; new ones are closed as soon as they are made. Until `mend`."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._drop)

    def hold(self) -> None:
        """Nothing passes and nothing is refused, as where packets are dropped. Until `mend`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def slow(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def mend(self) -> None:
        """As at the start."""
        self._cut, self._delay_s = False, 0.0
        self._loop.call_soon_threadsafe(self._flows.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._cut:
                there, onward = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers |= {writer, onward}
                await asyncio.gather(self._pass(reader, onward), self._pass(there, writer))
                self._writers -= {writer, onward}
        except OSError:  # the broker is not there: the client hears the same
            pass
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _close(self) -> None:
        self._server.close()
        self._flows.set()
        self._drop()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
