"""CPU time of the engines per event: `python -m bench.engines` prints one line of JSON.
Each backend runs in a process of its own, for two inference libraries in one process slow each other down.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import show
from engines import open_engine
from engines.base import Engine
from engines.releases import Release, ReleaseStore
from engines.samples import sample

TASKS = ("fraud", "recommendations", "ctr")
BUCKETS = (1, 8, 64, 256)
RUNS = (("openvino", "bf16"), ("openvino", "f32"), ("eager", "f32"))
CATALOG = 5_000
ROUNDS, SECONDS = 5, 0.15  # the fastest of some rounds: what else runs on the machine only adds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--fields", type=int, default=48)
    parser.add_argument("--step", nargs=3, metavar=("WHAT", "PRECISION", "STORE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = {"layers": arguments.layers, "width": arguments.width, "fields": arguments.fields}
    if arguments.step:
        what, precision, folder = arguments.step
        print(json.dumps(make(folder, sizes) if what == "make" else measure_all(what, precision, folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        facts = step(folder, sizes, "make", "-")
        for backend, precision in RUNS:
            facts |= step(folder, sizes, backend, precision)
    show("engines", facts)


def step(folder: str, sizes: dict[str, int], what: str, precision: str) -> dict[str, Any]:
    options = [part for name, size in sizes.items() for part in (f"--{name}", str(size))]
    command = [sys.executable, "-m", "bench.engines", *options, "--step", what, precision, folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def make(folder: str, sizes: dict[str, int]) -> dict[str, Any]:
    """Exports a release a task, with random weights."""
    import torch

    from engines.export import export
    from engines.model import HeadraceConfig, HeadraceModel

    for task in TASKS:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as made:
            started = time.process_time()
            config: Any = HeadraceConfig(task=task, **sizes)  # type: ignore[arg-type]  # sizes are its int fields
            description = export(HeadraceModel(config), Path(made))
            exported = time.process_time() - started
            ReleaseStore(folder).publish(task, Path(made), description, version="bench")
    return {**sizes, "history": config.history, "catalog_rows": CATALOG, "export_cpu_s": round(exported, 2)}


def measure_all(backend: str, precision: str, folder: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for task in TASKS:
        release = ReleaseStore(folder).open(task, "bench")
        started = time.process_time()
        engine = open_engine(backend, release, precision=precision, buckets=BUCKETS, threads=1)
        facts[f"{backend}_{precision}_{task}_open_cpu_ms"] = round(1e3 * (time.process_time() - started))
        for bucket in BUCKETS:
            facts[f"{backend}_{precision}_{task}_b{bucket}_us"] = round(measure(engine, release, bucket), 1)
    return {
        **facts,
        f"{backend}_{precision}_target": engine.target,
        f"{backend}_{precision}_runs_in": engine.precision,
    }


def measure(engine: Engine, release: Release, rows: int) -> float:
    """CPU microseconds an event, the whole call included, all histories full."""
    inputs = sample(release.manifest.signature, rows, catalog=CATALOG, full=True)
    for _ in range(3):
        engine.infer(inputs)
    best = np.inf
    for _ in range(ROUNDS):
        calls, started = 0, time.process_time()
        while time.process_time() - started < SECONDS:
            engine.infer(inputs)
            calls += 1
        best = min(best, (time.process_time() - started) / (calls * rows))
    return 1e6 * float(best)


if __name__ == "__main__":
    main()
