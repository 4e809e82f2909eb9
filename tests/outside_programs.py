"""Programs of other projects that judge our files, fetched from their registries into the cache; nothing is installed.
Where one cannot be had the test that asks is skipped and says why; where it is had, nothing is skipped.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from streams.config import default_data_dir
from streams.java import exclusive

HELM = "v3.22.0"
FETCH_S = 900


@cache
def promtool() -> Path:
    """Prometheus's own checker, out of Debian's package `prometheus`."""
    found = shutil.which("promtool")
    return Path(found) if found else _from_debian("prometheus", "usr/bin/promtool")


@cache
def helm() -> Path:
    """Helm, built by Go from its module: a minute or two, once."""
    found = shutil.which("helm")
    return Path(found) if found else _from_go(f"helm.sh/helm/v3/cmd/helm@{HELM}", "helm")


def ran(program: Path | str, *arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=FETCH_S)


def _from_debian(package: str, path: str) -> Path:
    """One file of a package, unpacked without being installed. Its package list must be there (`apt-get update`)."""
    folder = _tools() / package
    if not (folder / path).exists():
        _needs("apt-get", "dpkg-deb")
        with exclusive(folder):
            _done("apt-get", "download", package, cwd=folder)
            [archive] = folder.glob("*.deb")
            _done("dpkg-deb", "-x", str(archive), str(folder), cwd=folder)
            archive.unlink()
    return folder / path


def _from_go(module: str, name: str) -> Path:
    folder = _tools() / module.replace("/", "+")
    if not (folder / name).exists():
        _needs("go")
        with exclusive(folder):
            _done("go", "install", module, cwd=folder, GOBIN=str(folder), GOFLAGS="")
    return folder / name


def _tools() -> Path:
    """Kept between runs, as the Java files of the broker are."""
    return default_data_dir() / "tools"


def _needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine to fetch it with")


def _done(*command: str, cwd: Path, **variables: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=os.environ | variables, timeout=FETCH_S
    )
    if done.returncode:
        pytest.skip(f"`{' '.join(command[:3])}` failed: {done.stderr.strip().splitlines()[-1][:200]}")
