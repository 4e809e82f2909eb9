"""The shop's processes of ours: workers and the learner. Who ends is started again, as an orchestrator would do it.
A fault may hold a process's place, so that it stays away until the fault is over.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from streams.config import Settings
from streams.demo.stage import READY, environment
from tests.chaos.night import clock

ROOT = Path(__file__).resolve().parents[3]
LOOK_S = 0.25
AGAIN_S = 1.0
END_S = 60.0

Say = Callable[[str], None]


@dataclass
class Member:
    """One place on the staff, and the process that has it now."""

    name: str
    command: str
    settings: Settings
    log: Path
    clock: Path
    process: subprocess.Popen[bytes] | None = None
    held: int = 0
    starts: int = 0
    ended_at: float = 0.0
    fates: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def ready(self) -> bool:
        """Of a worker: whether it scores; of a learner: whether it is alive."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.web.port}/{READY[self.command]}", timeout=1):
                return True
        except OSError:
            return False

    def launch(self) -> None:
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.night.clock", self.command],
                env=os.environ | environment(self.settings) | {clock.VARIABLE: str(self.clock)},
                stdout=file, stderr=file, cwd=ROOT,
            )  # fmt: skip
        self.starts += 1


class Staff:
    """Members by name. `hold` keeps a place empty until `release`; holds of several faults add up."""

    def __init__(self, say: Say) -> None:
        self.members: dict[str, Member] = {}
        self._say, self._lock, self._over = say, threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="staff", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hire(self, member: Member) -> None:
        clock.make(member.clock)
        with self._lock:
            self.members[member.name] = member
            member.launch()

    def leave(self, name: str) -> None:
        """A member that was there for a while goes, whatever it does."""
        with self._lock:
            member = self.members.pop(name)
        self._finish(member)

    def hold(self, name: str) -> None:
        with self._lock:
            self.members[name].held += 1

    def release(self, name: str) -> None:
        with self._lock:
            self.members[name].held -= 1

    def signal(self, name: str, number: signal.Signals) -> None:
        with self._lock:
            if (pid := self.members[name].pid) is not None:
                os.kill(pid, number)

    def wait_ready(self, names: Iterable[str], seconds: float) -> bool:
        """Whether all of them are ready within that time."""
        limit = time.monotonic() + seconds
        while not all(self.members[name].ready() for name in names):
            if time.monotonic() > limit:
                return False
            time.sleep(LOOK_S)
        return True

    def end(self, name: str) -> int | None:
        """SIGTERM, and waits; its exit code, None if there was nobody. By force after END_S."""
        process = self.members[name].process
        if process is None or process.poll() is not None:
            return None
        process.terminate()
        try:
            return process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def pids(self, name: str) -> list[int]:
        pid = self.members[name].pid
        return [] if pid is None else [pid]

    def close(self) -> None:
        """Nobody is started again, and nobody is left."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for member in self.members.values():
            self._finish(member)

    def logs(self, characters: int = 2_500) -> str:
        """The end of each member's log."""
        return "\n".join(
            f"--- {member.name}\n{member.log.read_text(errors='replace')[-characters:]}"
            for member in self.members.values()
        )

    def _finish(self, member: Member) -> None:
        process = member.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def _keep(self) -> None:
        while not self._over.wait(LOOK_S):
            with self._lock:
                for member in self.members.values():
                    self._look_after(member)

    def _look_after(self, member: Member) -> None:
        process = member.process
        if process is not None and (code := process.poll()) is not None:
            member.fates.append(code)
            member.process, member.ended_at = None, time.monotonic()
            self._say(f"{member.name} ended with {code}{_why(member) if code > 0 else ''}")
        if member.process is None and not member.held and time.monotonic() - member.ended_at >= AGAIN_S:
            member.launch()
            self._say(f"{member.name} starts again")


def _why(member: Member) -> str:
    lines = [line for line in member.log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:240]}" if lines else ""
