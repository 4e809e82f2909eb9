"""Free ports: nobody else has them, and no outgoing connection takes them before their server does."""

import socket
from pathlib import Path

import pytest

from streams import ports


def test_a_free_port_is_not_among_those_of_outgoing_connections(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "range").write_text("32768\t60999\n")
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "range")
    assert all(port < 32_768 for port in (ports.free_port() for _ in range(20)))


def test_where_outgoing_connections_may_have_any_port_the_system_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "range").write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "range")
    monkeypatch.setattr(ports, "_free", lambda port: pytest.fail("drawn, though a connection may take it"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports.free_port()))


def test_a_port_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "no-such-system")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.free_port()))
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "LOWEST", port)
        monkeypatch.setattr(ports, "HIGHEST", port)
        assert ports.free_port() != port
