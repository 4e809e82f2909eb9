"""The link that chaos breaks: what goes in comes out, until it is cut, held or slowed, and again when it is mended."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from streams.ports import free_port
from tests.chaos.night.proxy import CHUNK, Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says everything again; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65_536):
                connection.sendall(data)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    made = Proxy(free_port(), echo)
    made.start()
    yield made
    made.stop()


def asked(proxy: Proxy, data: bytes, timeout_s: float = 10) -> bytes:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout_s) as link:
        return said(link, data)


def said(link: socket.socket, data: bytes) -> bytes:
    """What comes back; shorter where the link ends first."""
    link.sendall(data)
    found = b""
    while len(found) < len(data) and (more := link.recv(65_536)):
        found += more
    return found


def test_bytes_pass_whole_and_in_order(proxy: Proxy) -> None:
    data = bytes(range(256)) * 2_000
    assert asked(proxy, data) == data


def test_a_cut_ends_what_is_open_and_refuses_what_is_new_until_it_is_mended(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as link:
        assert said(link, b"before") == b"before"
        proxy.cut()
        assert silent(link)
    assert ended(proxy)
    proxy.mend()
    assert asked(proxy, b"after") == b"after"


def silent(link: socket.socket) -> bool:
    """Whether the other side has ended it, in order or not."""
    try:
        return link.recv(1) == b""
    except ConnectionError:
        return True


def ended(proxy: Proxy) -> bool:
    try:
        return asked(proxy, b"meanwhile") == b""
    except OSError:
        return True


def test_a_link_that_is_held_stays_open_and_says_all_of_it_later(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 0.3) as link:
        assert said(link, b"before") == b"before"
        proxy.hold()
        time.sleep(0.05)
        link.sendall(b"held")
        with pytest.raises(TimeoutError):
            link.recv(10)
        proxy.mend()
        link.settimeout(10)
        assert link.recv(10) == b"held"


def test_a_slow_link_takes_its_time_for_each_chunk_and_loses_nothing(proxy: Proxy) -> None:
    proxy.slow(0.1)
    began = time.monotonic()
    data = b"x" * (3 * CHUNK)
    assert asked(proxy, data) == data
    assert time.monotonic() - began >= 0.2


def test_a_broker_that_is_away_ends_the_connection(echo: int) -> None:
    proxy = Proxy(free_port(), free_port())
    proxy.start()
    assert ended(proxy)
    proxy.stop()
