"""`python -m streams.learner.child NICENESS`: a fine-tune that stands by, a nice one that ends with its parent.
Its libraries take seconds to load: it loads them, then waits for the path of its plan on stdin.

Two of them would write the same folder: one that outlived a killed learner must not go on beside the next one's.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
SAID, COMPLAINT = "said.txt", "log.txt"
STOP_S = 5.0


def command(niceness: int) -> list[str]:
    return [sys.executable, "-m", "streams.learner.child", str(niceness)]


class Standby:
    """At most one process that waits for a plan. What it says before it has one goes to `complaint`."""

    def __init__(self, niceness: int, complaint: Path) -> None:
        self._niceness, self.complaint = niceness, complaint
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Has one load its libraries, unless one is there."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        self.complaint.parent.mkdir(parents=True, exist_ok=True)
        with self.complaint.open("wb") as complaint:
            self._process = subprocess.Popen(
                command(self._niceness), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaint
            )

    def start(self, plan: Path) -> subprocess.Popen[bytes]:
        """Has it run the plan; it is the caller's from now on. It writes SAID and COMPLAINT beside the plan."""
        self.prepare()
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: its exit code says so
            process.stdin.write(f"{plan}\n".encode())
            process.stdin.flush()
        with suppress(BrokenPipeError):
            process.stdin.close()
        return process

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None


def end(process: subprocess.Popen[bytes]) -> None:
    """Returns when it has ended."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(niceness: str) -> None:
    parent = os.getppid()
    with suppress(AttributeError, OSError):  # Linux alone has it; elsewhere an orphan ends with its plan
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)
    os.nice(int(niceness))
    # Threads that spin while they wait take the processor from what serves.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from finetune.run import main as tune  # here, where it is a nice process

    if (plan := taken()) is not None:
        sys.exit(tune([str(plan)], alone=True))


def taken() -> Path | None:
    """The plan, once there is one; from then on what is said goes beside it. None where nobody wants it any more."""
    if not (line := sys.stdin.readline().strip()):
        return None
    plan = Path(line)
    for number, name, mode in ((1, SAID, "wb"), (2, COMPLAINT, "ab")):
        with (plan.parent / name).open(mode) as file:
            os.dup2(file.fileno(), number)
    return plan


if __name__ == "__main__":
    main(*sys.argv[1:])
