"""Shares of the processor: the kernel's means, found in folders that look like its own.
Sessions are tried on the kernel itself, where it has them; control groups are not.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import cpu_seconds
from streams.shops.groups import Delegated, own_group
from streams.shops.shares import LEAST, STEP, ByGroup, BySession, ByThread, kept_by, niceness, sessions_count

V2 = "31 23 0:28 {base} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 {base} /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n" + V2.replace(
    "/sys/fs/cgroup ", "/sys/fs/cgroup/unified "
)


class Kernel:
    """A root with the files that ours asks."""

    def __init__(self, root: Path, *, groups: str = "0::/\n", mounts: str = V2, base: str = "/", sessions: str = "1\n"):
        self.root = root
        self.file("proc/self/cgroup", groups)
        self.file("proc/self/mountinfo", mounts.format(base=base))
        if sessions:
            self.file("proc/sys/kernel/sched_autogroup_enabled", sessions)
            self.file("proc/self/autogroup", "/autogroup-9 nice 0\n")

    def file(self, name: str, text: str = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def group(self, path: str, *, controllers: str = "cpu memory\n", others: str = "") -> Path:
        folder = self.root / "sys/fs/cgroup" / path
        for name, text in (
            ("controllers", controllers),
            ("subtree_control", ""),
            ("procs", others),
            ("type", "domain"),
        ):
            self.file(f"sys/fs/cgroup/{path}/cgroup.{name}", text)
        self.file(f"sys/fs/cgroup/{path}/cpu.weight", "100\n")
        return folder


def test_a_group_that_is_delegated_gets_one_below_it_for_each_shop_by_its_share(tmp_path):
    kernel = Kernel(tmp_path, groups="0::/system.slice/shops.service\n")
    ours = kernel.group("system.slice/shops.service")
    shares = kept_by(tmp_path)
    assert isinstance(shares, ByGroup)
    assert (ours / "headrace-parent/cgroup.procs").read_text() == str(os.getpid())
    assert (ours / "cgroup.subtree_control").read_text() == "+cpu"
    assert shares.keep("north", 71, 2.5, 2.5) == "cpu.weight 250"
    assert shares.keep("south", 72, 1, 2.5) == "cpu.weight 100"
    assert (ours / "shop-north/cpu.weight").read_text() == "250"
    assert (ours / "shop-north/cgroup.procs").read_text() == "71"
    assert (ours / "shop-south/cgroup.procs").read_text() == "72"


def test_a_group_with_other_processes_or_without_the_controller_is_not_ours(tmp_path):
    kernel = Kernel(tmp_path, groups="0::/user.slice\n")
    ours = kernel.group("user.slice", others="4711\n")
    assert isinstance(kept_by(tmp_path), ByThread)
    assert (ours / "cgroup.procs").read_text() == str(os.getpid()), "moved back"
    kernel.group("user.slice", controllers="memory\n")
    assert Delegated.found(own_group(tmp_path)) is None


@pytest.mark.parametrize(
    ("mounts", "groups", "root_file"),
    [(V2, "0::/\n", None), (V1, "2:cpu,cpuacct:/\n0::/\n", "sys/fs/cgroup/cpu/release_agent")],
)
def test_sessions_count_in_the_machines_first_group_alone(tmp_path, mounts, groups, root_file):
    kernel = Kernel(tmp_path, mounts=mounts, groups=groups)
    if root_file:
        assert isinstance(kept_by(tmp_path), ByThread), "the top of a container looks like a first group"
        kernel.file(root_file)
    assert isinstance(kept_by(tmp_path), BySession)
    kernel.file("proc/self/cgroup", groups.replace(":/\n", ":/deeper\n"))
    if not root_file:
        kernel.file("sys/fs/cgroup/deeper/cpu.weight", "100\n")
    assert isinstance(kept_by(tmp_path), ByThread)


def test_in_a_container_a_session_counts_nothing(tmp_path):
    kernel = Kernel(tmp_path, base="/docker/abc", groups="0::/docker/abc\n")
    kernel.file("sys/fs/cgroup/cgroup.type", "domain\n")
    assert own_group(tmp_path) is not None
    assert isinstance(kept_by(tmp_path), ByThread)


@pytest.mark.parametrize("sessions", ["", "0\n"])
def test_without_autogroups_only_threads_are_left_and_that_is_said(tmp_path, sessions):
    shares = kept_by(Kernel(tmp_path, sessions=sessions).root)
    assert isinstance(shares, ByThread)
    assert not shares.by_shop


def test_where_there_are_no_groups_at_all_sessions_count(tmp_path):
    kernel = Kernel(tmp_path)
    (tmp_path / "proc/self/cgroup").unlink()
    assert isinstance(kept_by(kernel.root), BySession)


def test_a_session_is_told_its_niceness_on_top_of_the_parents(tmp_path):
    kernel = Kernel(tmp_path)
    kernel.file("proc/self/autogroup", "/autogroup-9 nice 4\n")
    told = kernel.file("proc/71/autogroup")
    shares = BySession(tmp_path / "proc")
    assert shares.keep("north", 71, 2, 2) == "niceness 4 of its session"
    assert shares.keep("north", 71, 1, 2) == "niceness 7 of its session"
    assert told.read_text() == "7"


@given(st.floats(1, 64), st.floats(1, 64))
def test_niceness_keeps_the_ratio_of_two_shares_within_half_a_step(one, other):
    most = max(one, other)
    weights = [STEP ** -niceness(share, most) for share in (one, other)]
    assert weights[0] / weights[1] == pytest.approx(one / other, rel=STEP**0.5 - 1 + 1e-9)
    assert niceness(one, most) >= 0
    assert niceness(1, 64, 10) == LEAST


@contextmanager
def spinning(threads: int) -> Iterator[int]:
    """A process in a session of its own that takes all it gets, on one core that both share."""
    code = f"""
import os
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {{core}})
for _ in range({threads - 1}):
    if not os.fork():
        break
while True: pass
"""
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def session_cpu(leader: int) -> float:
    """Of all processes of a session."""
    total = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                total += cpu_seconds(int(entry.name))
        except (OSError, ValueError):
            continue
    return total


@pytest.mark.skipif(not sessions_count(), reason="the kernel does not share by session here")
def test_the_kernel_keeps_the_shares_of_sessions_however_many_threads_they_have():
    shares = BySession()
    shares.base = 0  # whatever the niceness of who runs the tests
    with spinning(3) as many, spinning(1) as one:
        shares.keep("many", many, 1, 3)
        shares.keep("one", one, 3, 3)
        time.sleep(0.5)
        before, begun = [session_cpu(many), session_cpu(one)], time.monotonic()
        while time.monotonic() - begun < 60:
            time.sleep(0.5)
            got = [session_cpu(pid) - cpu for pid, cpu in zip((many, one), before, strict=True)]
            if sum(got) > 1.5:
                break
    assert 1.8 < got[1] / got[0] < 5
