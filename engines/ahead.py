"""Compiling ahead: a release's graphs are compiled in a process of its own at the lowest priority, and come back as
blobs that the serving process only loads. It shares no lock with what serves, and a compiler that crashes ends alone.
"""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.compiled import Build, compile_graph, read
from schemas.errors import EngineError, HeadraceError

if TYPE_CHECKING:  # loading it would take the process that compiles a fifth of its time
    from engines.releases import Release

PATIENCE_S = 300.0
SIZE = struct.Struct(">Q")  # bytes of the blob that follows
LOWEST = 19


def compiled_ahead(release: "Release", builds: Sequence[Build], *, patience_s: float = PATIENCE_S) -> "Release":
    """The release, with these of its graphs compiled. Raises EngineError where one cannot be, or takes too long."""
    wanted = [[str(release.file(build.file)), *build[1:]] for build in builds]
    command = [sys.executable, "-m", "engines.ahead", json.dumps(wanted)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            give_way(process.pid)
            try:
                out, err = process.communicate(timeout=patience_s)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise failure(release, f"it took longer than {patience_s:g} s") from error
    except OSError as error:
        raise failure(release, f"no process for it could be started: {error}") from error
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        raise failure(release, said[-1] if said and process.returncode > 0 else f"it ended by {ended_by(process)}")
    blobs = list(unpacked(out))
    if len(blobs) != len(builds):
        raise failure(release, f"{len(blobs)} of {len(builds)} graphs came back")
    return replace(release, compiled={build.name: blob for build, blob in zip(builds, blobs, strict=True)})


def give_way(pid: int) -> None:
    """Linux: runs only where nobody else would, and steps aside at once; elsewhere the lowest niceness."""
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST)
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def unpacked(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + SIZE.size <= len(data):
        (size,) = SIZE.unpack_from(data, at)
        at += SIZE.size
        if at + size > len(data):
            return
        yield data[at : at + size]
        at += size


def failure(release: "Release", why: str) -> EngineError:
    return EngineError(
        f"the graphs of {release.task}/{release.version} were not compiled: {why}",
        where="python -m engines.ahead",
        todo="the release that serves goes on; see whether memory was short, and swap again",
    )


def ended_by(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """The other process: blobs go to stdout, in the order asked for, and nothing else does."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    graphs: dict[str, Any] = {}
    try:
        for path, precision, threads, shapes in json.loads(sys.argv[1]):
            if path not in graphs:
                graphs[path] = read(Path(path))
            model = compile_graph(graphs[path], precision=precision, threads=threads, shapes=shapes)
            blob = model.export_model().getvalue()
            out.write(SIZE.pack(len(blob)) + blob)
        out.flush()
    except HeadraceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
