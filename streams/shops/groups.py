"""Control groups: in which one the kernel counts this process's processor time, and one below it for each shop.
Linux alone has them; version 1 is only looked at.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
OURS, SHOP = "headrace-parent", "shop-"


@dataclass(frozen=True, slots=True)
class Group:
    """`folder` in the hierarchy that has the processor's controller, which is mounted at `top`."""

    folder: Path
    top: Path
    unified: bool

    @property
    def with_all(self) -> bool:
        """Whether it is the machine's own first group, of all that nobody has put elsewhere: only there do sessions
        count. In a container the top is not the machine's.
        """
        if not self.unified:
            return self.folder == self.top and (self.top / "release_agent").exists()
        chain = [each for each in (self.folder, *self.folder.parents) if each.is_relative_to(self.top)]
        return not any((each / "cpu.weight").exists() for each in chain) and not (self.top / "cgroup.type").exists()


def own_group(root: Path = ROOT) -> Group | None:
    """None where there are none, or they are not to be seen. `root`: of the file system."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    first = next((names for names in paths if "cpu" in names.split(",")), "")
    for mount in mounts:
        fields, _, kind = mount.partition(" - ")
        name, _, options = kind.split(" ", 2)
        right = name == "cgroup" and "cpu" in options.split(",") if first else name == "cgroup2"
        if right and first in paths:
            base, point = fields.split(" ")[3:5]
            top = root / point.lstrip("/")
            path = paths[first].removeprefix(base if base != "/" else "")
            return Group(top / path.lstrip("/"), top, unified=not first)
    return None


class Delegated:
    """Our own group, where it was given to us with the processor's controller: systemd does it by `Delegate=cpu`.

    Processes live in leaves alone, so this one moves into a leaf of its own first; whoever else is in the group is not
    moved, and then it is not ours.
    """

    def __init__(self, folder: Path, pid: int) -> None:
        """Raises OSError where the kernel, or who owns the group, does not let it."""
        self.folder = folder
        _write(_made(folder / OURS) / "cgroup.procs", str(pid))
        try:
            if others := (folder / "cgroup.procs").read_text().split():
                raise PermissionError(f"{len(others)} more processes are in {folder}")
            _write(folder / "cgroup.subtree_control", "+cpu")
        except OSError:
            with suppress(OSError):
                _write(folder / "cgroup.procs", str(pid))
                (folder / OURS).rmdir()
            raise

    @classmethod
    def found(cls, group: Group | None) -> "Delegated | None":
        if group is None or not group.unified or group.with_all or not _ours(group.folder):
            return None
        try:
            return cls(group.folder, os.getpid())
        except OSError:
            return None

    def put(self, name: str, pid: int, weight: int) -> None:
        """A process into its shop's group. Raises OSError."""
        shop = _made(self.folder / f"{SHOP}{name}")
        _write(shop / "cpu.weight", str(weight))
        _write(shop / "cgroup.procs", str(pid))


def _ours(folder: Path) -> bool:
    """Whether the group may be divided by us, and has the processor's controller."""
    try:
        there = "cpu" in (folder / "cgroup.controllers").read_text().split()
    except OSError:
        return False
    needed = (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control")
    return there and all(os.access(each, os.W_OK) for each in needed)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _write(file: Path, text: str) -> None:
    """In one write, as the kernel wants it."""
    with file.open("wb", buffering=0) as opened:
        opened.write(text.encode())
