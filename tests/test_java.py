"""The life of a Java process: found again, restarted, stopped, killed, and never left behind.
Run on the small web server that the JRE itself carries, which starts in a tenth of a second.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import BrokerUnavailable, SettingsError
from streams.java import JavaServer
from streams.ports import accepts


class WebServer(JavaServer):
    """Serves its folder on its port."""

    name = "the web server"
    unavailable = BrokerUnavailable

    def __init__(self, folder: Path, *, port: int = 0, outlive: bool = False, options: str = "") -> None:
        super().__init__(folder, port=port, outlive=outlive)
        self.options = options.split()

    def command(self) -> list[str]:
        return [*self.options, "-m", "jdk.httpserver", "-b", "127.0.0.1", "-p", str(self.port)]

    def answers(self) -> bool:
        return accepts(f"127.0.0.1:{self.port}", timeout=1)


def wait_until_nobody_listens(port: int) -> None:
    limit = time.monotonic() + 20
    while accepts(f"127.0.0.1:{port}") and time.monotonic() < limit:
        time.sleep(0.05)
    assert not accepts(f"127.0.0.1:{port}")


def start_elsewhere(folder: Path, *, outlive: bool, then: str) -> "subprocess.Popen[bytes]":
    """Another Python process that starts the server, says so, and then does `then`."""
    code = f"""
import time
from pathlib import Path
from tests.test_java import WebServer
WebServer(Path({str(folder)!r}), outlive={outlive}).start()
print("started", flush=True)
{then}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process


def test_start_is_idempotent_and_any_object_of_the_folder_finds_the_process(tmp_path: Path) -> None:
    server = WebServer(tmp_path)
    assert not server.status().running
    server.start()
    first = server.status().pid
    server.start()
    other = WebServer(tmp_path)
    other.start()
    assert first is not None
    assert {server.status().pid, other.status().pid} == {first}
    other.stop()
    assert not server.status().running
    server.stop()


def test_stop_frees_the_port_and_restart_keeps_it(tmp_path: Path) -> None:
    server = WebServer(tmp_path)
    server.start()
    port, first = server.port, server.status().pid
    server.restart()
    assert server.port == port
    assert server.status().pid != first
    server.stop()
    wait_until_nobody_listens(port)
    server.stop()


def test_a_crash_can_be_had(tmp_path: Path) -> None:
    server = WebServer(tmp_path)
    server.start()
    server.restart(crash=True)
    assert server.answers()
    server.kill()
    assert not server.answers()


def test_a_stale_pid_of_another_process_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f'{{"pid": {os.getpid()}}}')
    server = WebServer(tmp_path)
    assert not server.status().running
    server.kill()
    server.start()
    assert server.status().running
    server.stop()


def test_a_pid_file_that_says_nothing_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("no pid")
    assert not WebServer(tmp_path).status().running


def test_several_run_side_by_side(tmp_path: Path) -> None:
    servers = [WebServer(tmp_path / name) for name in ("a", "b")]
    for server in servers:
        server.start()
    assert len({server.port for server in servers}) == 2
    servers[0].stop()
    assert servers[1].answers()
    servers[1].stop()


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = WebServer(tmp_path, port=other.getsockname()[1])
        with pytest.raises(SettingsError, match=rf"127.0.0.1:{server.port}.*another port"):
            server.start()
    assert not server.status().running


def test_a_process_that_ends_at_its_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    server = WebServer(tmp_path, options="-XX:NoSuchOption")
    with pytest.raises(BrokerUnavailable, match=r"ended at its start.*log\.txt"):
        server.start()
    assert not server.status().running


def test_a_folder_that_cannot_be_made_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="HEADRACE_DATA_DIR"):
        WebServer(tmp_path / "file" / "folder", port=1).start()


def test_a_server_survives_the_process_that_started_it(tmp_path: Path) -> None:
    parent = start_elsewhere(tmp_path, outlive=True, then="")
    parent.communicate()
    server = WebServer(tmp_path)
    assert server.answers()
    server.stop()
    wait_until_nobody_listens(server.port)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_for_tests_dies_with_its_process_however_that_ends(tmp_path: Path, end: signal.Signals) -> None:
    parent = start_elsewhere(tmp_path, outlive=False, then="time.sleep(60)")
    server = WebServer(tmp_path)
    assert server.answers()
    parent.send_signal(end)
    parent.communicate()
    wait_until_nobody_listens(server.port)
