"""A small disk that can be filled: a tmpfs where this user may mount one, else a limit on what the processes may write.
The first says ENOSPC as a full disk does; the second says EFBIG at the first byte, as near as one gets without.
"""

import resource
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MEGABYTES = 192
BLOCK = 1 << 20


class Disk:
    """At `folder`, which it makes. `real`: a file system of its own."""

    def __init__(self, folder: Path, megabytes: int = MEGABYTES) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "headrace-chaos", str(folder)],
            capture_output=True, check=False,
        )  # fmt: skip
        self.real = mounted.returncode == 0

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self, pids: Iterable[int]) -> None:
        """No byte more fits; `pids`: who writes there, for a disk that is not real."""
        if not self.real:
            for pid in pids:
                limit_files(pid, 0)
            return
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(512))

    def empty(self, pids: Iterable[int]) -> None:
        """Room again."""
        if not self.real:
            for pid in pids:
                limit_files(pid, None)
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        if self.real:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


def limit_files(pid: int, most: int | None) -> None:
    """On the length of files that it writes; None: as long as it may ask for."""
    with suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if most is None else most, hard))
