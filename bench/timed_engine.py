"""CPU time of one release's engine, in a process of its own: `python -m bench.timed_engine STORE TASK VERSION`.
Two inference libraries in one process slow each other down, so this one imports nothing that brings torch.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from bench.engines import measure
from engines import open_engine
from engines.releases import Release, ReleaseStore

BUCKET = 64


def timed(store: ReleaseStore, release: Release) -> dict[str, Any]:
    """As `main` prints it, of a release in the store."""
    command = [sys.executable, "-m", "bench.timed_engine", store.url, release.task, release.version]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.timed_engine", description=__doc__)
    for name in ("store", "task", "version"):
        parser.add_argument(name)
    given = parser.parse_args()
    release = ReleaseStore(given.store).open(given.task, given.version)
    engine = open_engine("openvino", release, precision="bf16", buckets=(BUCKET,), threads=1)
    microseconds = BUCKET * measure(engine, release, BUCKET)
    print(json.dumps({f"b{BUCKET}_us": round(microseconds), "runs_in": engine.precision}))


if __name__ == "__main__":
    main()
