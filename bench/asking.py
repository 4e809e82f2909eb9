"""From a request that is due to its answer, while the stream runs: `python -m bench.asking` prints one line of JSON.
Open loop, orders of users with full histories, one worker with real engines; the broker and the client on this machine.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import aiohttp
import numpy as np

from bench import open_loop, testbed
from bench.latency import WARM_S, absorbed, quantiles
from bench.measure import cpu_seconds, rss_mb
from bench.report import show
from bench.testbed import NEVER_MS, furnish, process, publish, say
from schemas.values import to_json
from streams.access.accounts import Accounts
from streams.config import Settings
from streams.demo.stage import environment, wait_ready
from streams.sources.load import history_load, uniform_load

RATE, STREAM, SECONDS, RUNS, USERS = 200, 200, 20, 3, 2_000
TARGETS = {"p99_ms": 25.0, "lost": 0}
ORDERS_ONLY = (0.0, 1.0, 0.0)
PATIENCE_S = 30.0


class Asked(NamedTuple):
    """A request: what became of it, and how long after it was due, ms."""

    due: float
    result: str
    ms: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.asking", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--rate", type=int, default=RATE, help="requests a second")
    parser.add_argument("--stream", type=int, default=STREAM, help="events a second beside them")
    parser.add_argument("--deadline-ms", type=int, default=1_000)
    arguments = parser.parse_args()
    with testbed.testbed(deadlines_ms=dict.fromkeys(testbed.TASKS, NEVER_MS)) as settings:
        furnish(settings)
        published = publish(settings, history_load(USERS, 1))
        log = settings.data_dir / "worker.log"
        with process(["streams", "worker"], settings, log) as worker:
            wait_ready(settings, worker, log)
            absorbed(settings, published)
            runs = []
            for number in range(arguments.runs):
                runs.append(one_run(settings, worker.pid, number + 2, arguments))
                say(json.dumps(runs[-1]))
    figures = {name: median(run[name] for run in runs) for name in runs[0]}
    worst = {name: max(run[name] for run in runs) for name in ("lost", "fallback")}
    load = {"rate": arguments.rate, "stream": arguments.stream, "runs": arguments.runs}
    show("sync", {**load, **figures, **worst}, TARGETS)


def one_run(settings: Settings, pid: int, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """One open-loop stretch of both loads; the first WARM_S seconds of it do not count."""
    folder = settings.data_dir / f"run-{seed}"
    folder.mkdir(parents=True)
    rate, stream, seconds = arguments.rate, arguments.stream, arguments.seconds
    start = int(time.time() * 1000)
    beside = testbed.encoded(settings, uniform_load(stream * seconds, USERS, seed, start=start))
    open_loop.save(folder / "messages.npz", beside, stream)
    orders = uniform_load(rate * seconds, USERS, seed + 100, ORDERS_ONLY, start=start)
    bodies = [json.dumps(to_json("order", event.record)).encode() for event in orders]
    command, env = [sys.executable, "-m", "bench.open_loop"], os.environ | environment(settings)
    publisher = subprocess.Popen([*command, str(folder / "messages.npz")], env=env, stdout=subprocess.PIPE)
    try:
        began, cpu = time.monotonic(), cpu_seconds(pid)
        url = f"http://127.0.0.1:{settings.web.port}/v1/score/fraud?deadline_ms={arguments.deadline_ms}"
        answers = asyncio.run(asked(url, bodies, rate, token(settings)))
        cores = (cpu_seconds(pid) - cpu) / (time.monotonic() - began)
        publisher.wait(seconds + PATIENCE_S)
    finally:
        publisher.kill()
        publisher.wait()
    return {**figures(answers, WARM_S), "cpu_cores": cores, "rss_mb": rss_mb(pid)}


def token(settings: Settings) -> str:
    """As a checkout has one, looked up by the worker."""
    now_ms = time.time_ns() // 1_000_000
    with Accounts(settings) as accounts:
        if accounts.users.find("checkout") is None:
            accounts.users.add("checkout", "operator", None, by="bench", now_ms=now_ms)
        return accounts.tokens.make("checkout", "", days=1, only=["score"], by="bench", now_ms=now_ms)[1]


async def asked(url: str, bodies: Sequence[bytes], rate: float, token: str) -> list[Asked]:
    """Request i goes out i / rate seconds after the first, however late the others are."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as http:
        started, waiting = time.perf_counter(), []
        for number, body in enumerate(bodies):
            due = number / rate
            await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
            waiting.append(asyncio.ensure_future(_one(http, url, body, started, due)))
        return await asyncio.gather(*waiting)


async def _one(http: aiohttp.ClientSession, url: str, body: bytes, started: float, due: float) -> Asked:
    try:
        async with http.post(url, data=body) as answer:
            said = json.loads(await answer.read())
            result = str(answer.status) if answer.status != 200 else "fallback" if said["fallback"] else "model"
    except (aiohttp.ClientError, TimeoutError) as error:
        result = type(error).__name__
    return Asked(due, result, 1e3 * (time.perf_counter() - started - due))


def figures(answers: Sequence[Asked], warm_s: float) -> dict[str, float]:
    """Of the requests that were due from `warm_s` on. One that got no answer is infinitely late."""
    counted = [each for each in answers if each.due >= warm_s]
    results = Counter(each.result for each in counted)
    answered = results["model"] + results["fallback"]
    times = np.array([each.ms if each.result in ("model", "fallback") else np.inf for each in counted])
    return {
        **quantiles(times), "answered": answered, "fallback": results["fallback"], "lost": len(counted) - answered,
    }  # fmt: skip


if __name__ == "__main__":
    main()
