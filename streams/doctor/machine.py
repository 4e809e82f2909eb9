"""Checks of this machine: room, ports, the engine's library, and releases that a worker could serve with."""

import os
import shutil
import urllib.request
from collections.abc import Iterator
from importlib import import_module

from engines import BACKENDS
from engines.releases import ReleaseStore
from schemas.errors import ReleaseError
from streams.config import Settings
from streams.doctor.finding import Finding
from streams.ports import accepts

GIB = 1 << 30
# RocksDB compacts by writing anew: below this a worker may end in the middle of a flush.
LEAST, ROOM = GIB, 5 * GIB


def disk(settings: Settings) -> Iterator[Finding]:
    """Room and rights where state is kept; of the nearest folder that exists."""
    folder = settings.data_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding("disk", "problem", f"{there} cannot be written", "set HEADRACE_DATA_DIR, or mend its rights")
        return
    free = shutil.disk_usage(there).free
    said = f"{free / GIB:.1f} GiB free for {folder}"
    if free < LEAST:
        yield Finding("disk", "problem", said, "make room: below 1 GiB a flush of state may fail and end the worker")
    elif free < ROOM:
        yield Finding("disk", "warning", said, "state is one packed row a user, twice while it is compacted")
    else:
        yield Finding("disk", "well", said)


def ports(settings: Settings) -> Iterator[Finding]:
    """A port that is taken by one of ours is well: it runs already."""
    named = {
        "web.port": settings.web,
        "learner_web.port": settings.learner_web,
        "webhooks_web.port": settings.webhooks_web,
        "mapping_web.port": settings.mapping_web,
    }
    for name, web in named.items():
        host = "127.0.0.1" if web.host in ("0.0.0.0", "::") else web.host
        address = f"{host}:{web.port}"
        if not web.port or not accepts(address, timeout=1):
            yield Finding("ports", "well", f"{name} {web.port or 'any'} is free")
        elif _ours(address):
            yield Finding("ports", "well", f"{name}: Headrace listens on {address}")
        else:
            todo = f"set HEADRACE_{name.upper().replace('.', '__')} to another, or 0 for any free one"
            yield Finding("ports", "problem", f"{name}: something else listens on {address}", todo)


def _ours(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=3) as reply:
            return b"headrace_" in reply.read(1 << 20)
    except (OSError, ValueError):
        return False


def engine(settings: Settings) -> Iterator[Finding]:
    backend = settings.engine.backend
    if backend not in BACKENDS:
        yield Finding(
            "engine", "problem", f"no engine {backend!r}", f"set engine.backend to one of {', '.join(BACKENDS)}"
        )
        return
    try:
        import_module(BACKENDS[backend].partition(":")[0])
    except (ImportError, OSError) as error:
        yield Finding(
            "engine", "problem", f"engine {backend} cannot be loaded: {error}", "run `make env`, or choose another"
        )
        return
    cores = os.cpu_count() or 1
    if settings.engine.threads > cores:
        said = f"engine.threads is {settings.engine.threads}, and there are {cores} cores"
        yield Finding("engine", "warning", said, "more threads than cores wait for each other")
    yield Finding("engine", "well", f"{backend} {settings.engine.precision} can be loaded")


def releases(settings: Settings) -> Iterator[Finding]:
    """The newest of each task is opened: its files are verified against its manifest."""
    store = ReleaseStore(settings.release_store, cache=settings.data_dir / "release-cache")
    for task in settings.tasks:
        try:
            found = store.latest(task)
        except ReleaseError as error:
            todo = error.todo or "copy it again from where it was made, or train a first one (docs/operate.md)"
            yield Finding("releases", "problem", f"{task}: {error.what}", todo)
        else:
            yield Finding("releases", "well", f"{found.task}/{found.version}, whole")
