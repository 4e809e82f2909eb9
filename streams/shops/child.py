"""`python -m streams.shops.child PARENT ARGUMENTS`: `headrace ARGUMENTS`, in the process of one shop.
It is asked to end, in order, when its parent is gone: a parent that is started again must find ports and folders free.
"""

import ctypes
import os
import runpy
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # prctl(2)


def main(parent: str, *arguments: str) -> None:
    with suppress(AttributeError, OSError):  # Linux alone has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before it could be watched
        sys.exit(1)
    sys.argv[1:] = arguments
    runpy.run_module("streams", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
