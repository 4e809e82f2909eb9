"""`python -m streams.learner.child NICENESS PLAN`: becomes the fine-tune, a nice one that ends with its parent.
Two of them would write the same folder: one that outlived a killed learner must not go on beside the next one's.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)


def command(niceness: int, plan: Path) -> list[str]:
    return [sys.executable, "-m", "streams.learner.child", str(niceness), str(plan)]


def main(niceness: str, plan: str) -> None:
    parent = os.getppid()
    with suppress(AttributeError, OSError):  # Linux alone has it; elsewhere an orphan ends with its plan
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)
    os.nice(int(niceness))
    # Threads that spin while they wait take the processor from what serves.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.execv(sys.executable, [sys.executable, "-m", "finetune.run", plan])


if __name__ == "__main__":
    main(*sys.argv[1:])
