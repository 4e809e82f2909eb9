"""On a machine with a GPU: TensorRT beside torch eager and torch.compile on the same card, at the same precision, each
in a process of its own. `python -m bench.gpu`; without a GPU it says so in one line and ends with 0.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from bench.engines import CATALOG, TASKS, make
from bench.report import show
from engines import open_engine
from engines.base import Array
from engines.cuda import open_device
from engines.eager import EagerEngine
from engines.parity import BOUNDS, outputs, parity
from engines.releases import Release, ReleaseStore
from engines.samples import sample
from schemas.errors import EngineError

PRECISIONS = ("f32", "bf16")
BUCKETS = (1, 8, 64, 256)
SIZES = {"layers": 2, "width": 64, "fields": 48}
WARM, CALLS = 20, 200
CERTIFIED_ROWS = 512
TARGETS = {
    f"{task}_{precision}_b64_tensorrt_over_{other}": most
    for task in TASKS for precision in PRECISIONS for other, most in (("eager", 1 / 3), ("compile", 1 / 1.2))
}  # fmt: skip
Call = Callable[[dict[str, Array]], object]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--look", action="store_true", help="only say whether there is a GPU: ends with 1 if not")
    parser.add_argument("--step", nargs=4, metavar=("WHAT", "TASK", "PRECISION", "STORE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(*given.step)))
        return
    try:
        device = open_device()
        versions = found_versions()
    except EngineError as error:
        print(f"No GPU was measured: {error}")
        sys.exit(1 if given.look else 0)
    if given.look:
        return
    facts: dict[str, Any] = {"card": device.name, "driver": device.driver, **versions}
    with tempfile.TemporaryDirectory() as folder:
        make(folder, SIZES)
        for task in TASKS:
            for precision in PRECISIONS:
                for what in ("tensorrt", "eager", "compile"):
                    facts |= in_process(what, task, precision, folder)
                    print(f"{task} {precision} {what} done", file=sys.stderr)
    show("gpu", {**facts, **ratios(facts)}, TARGETS)


def found_versions() -> dict[str, str]:
    from engines.tensorrt import library

    return {"tensorrt": str(library().__version__)}


def in_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.gpu", "--step", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def step(what: str, task: str, precision: str, store: str) -> dict[str, Any]:
    release, facts = ReleaseStore(store).open(task, "bench"), dict[str, Any]()
    started = time.monotonic()
    call = tensorrt(release, precision, facts) if what == "tensorrt" else torch_on_gpu(release, precision, what)
    facts[f"{task}_{precision}_{what}_open_s"] = time.monotonic() - started
    for rows in BUCKETS:
        inputs = sample(release.manifest.signature, rows, catalog=CATALOG, full=True)
        p50, p99 = latency(call, inputs)
        name = f"{task}_{precision}_b{rows}_{what}"
        facts |= {f"{name}_p50_us": p50, f"{name}_p99_us": p99, f"{name}_rows_per_s": 1e6 * rows / p50}
    return facts


def tensorrt(release: Release, precision: str, facts: dict[str, Any]) -> Call:
    """Its certificate, of made-up rows, goes into the facts. Raises EngineError if it fails."""
    engine = open_engine("tensorrt", release, precision=precision, buckets=BUCKETS, threads=1)
    oracle = EagerEngine(release, precision="f32", buckets=(64,), threads=4)
    report = parity(engine, oracle, sample(engine.signature, CERTIFIED_ROWS, catalog=CATALOG))
    facts[f"{release.task}_{precision}_certificate"] = report.as_dict()
    report.check(BOUNDS[precision])
    again = open_engine(
        "tensorrt", release, precision=precision, buckets=BUCKETS, threads=1
    )  # from the plan that was kept
    rows = sample(engine.signature, 8, catalog=CATALOG, seed=3)
    for name, array in outputs(again, rows).items():
        np.testing.assert_allclose(array, outputs(engine, rows)[name], rtol=1e-3, atol=1e-3)
    again.close()
    return engine.infer


def torch_on_gpu(release: Release, precision: str, what: str) -> Call:
    """Arrays in, arrays out, as the engine has it: the copies to the card and back are in the time."""
    import torch

    from engines.model import load_model

    model: Any = load_model(release.folder)
    model = model.to("cuda")
    run = torch.compile(model, mode="reduce-overhead") if what == "compile" else model

    def call(inputs: dict[str, Array]) -> object:
        held = {name: torch.from_numpy(array).to("cuda", non_blocking=True) for name, array in inputs.items()}
        cast = torch.autocast("cuda", torch.bfloat16) if precision == "bf16" else nullcontext()
        with torch.inference_mode(), cast:
            return {name: value.float().cpu().numpy() for name, value in run(**held).items()}

    return call


def latency(call: Call, inputs: dict[str, Array]) -> tuple[float, float]:
    """Median and 99th percentile of one call's wall time, in microseconds."""
    for _ in range(WARM):
        call(inputs)
    times = np.empty(CALLS)
    for index in range(CALLS):
        started = time.perf_counter()
        call(inputs)
        times[index] = time.perf_counter() - started
    return float(1e6 * np.median(times)), float(1e6 * np.percentile(times, 99))


def ratios(facts: dict[str, Any]) -> dict[str, float]:
    """TensorRT's median over the other's at 64 rows: a third is three times as fast."""
    return {
        f"{task}_{precision}_b64_tensorrt_over_{other}": facts[f"{task}_{precision}_b64_tensorrt_p50_us"]
        / facts[f"{task}_{precision}_b64_{other}_p50_us"]
        for task in TASKS for precision in PRECISIONS for other in ("eager", "compile")
    }  # fmt: skip


if __name__ == "__main__":
    main()
