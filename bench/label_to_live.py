"""From labels to the first score of who learned from them: `python -m bench.label_to_live` prints one line of JSON.
A worker has scored 27,000 orders; their labels come at once, and silence with them, while it scores 200 events/s.
Broker, registry, worker, learner, fine-tune and load are all on this machine.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench import testbed
from bench.measure import cpu_seconds, rss_mb
from bench.report import show
from bench.testbed import NEVER_MS, process, say
from schemas.confluent import ConfluentRegistry
from schemas.wire import Decoder
from streams.config import Settings, default_data_dir
from streams.config_sections import LearningSettings
from streams.demo.models import ModelPlan
from streams.demo.models import command as training
from streams.demo.stage import MADE_AS, furnish, wait_for_answer, wait_ready
from streams.labels.derive import heartbeat
from streams.learner.control import command
from streams.output_columns import FEATURES_FORMAT
from streams.pointers import live_pointers
from streams.ports import free_port
from streams.sources.publisher import Message, Publisher
from streams.sources.replay import Pace, replay
from streams.sources.telling import Timed
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tail import tail

TASK, SEED, ORDERS_A_DAY = "fraud", 11, 500.0
TRAIN, SERVE, LABELLED, LAST = "2011-01-15", "2011-04-01", "2011-05-25", "2011-07-15"
EXAMPLES, RATE, DAY_MS = 20_000, 200, 86_400_000
LIMITS = {"head": 60.0, "lora": 60.0, "full": 180.0}
LONGEST_S = 600


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.label_to_live", description=__doc__)
    parser.add_argument("--mode", choices=sorted(LIMITS), default="lora")
    parser.add_argument("--orders-a-day", type=float, default=ORDERS_A_DAY)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="new examples that trigger the fine-tune")
    arguments = parser.parse_args()
    config = {
        "start": TRAIN, "end": LAST, "shop": "generated", "orders_a_day": arguments.orders_a_day,
        "fraud_rate": 0.03, "browse": 0.05, "guests": 0.0,
    }  # fmt: skip
    learning = LearningSettings(
        examples=arguments.examples, positives=50, interval_s=0, mode=arguments.mode, drift=False
    )  # drift would begin with fewer
    with testbed.testbed(
        deadlines_ms=dict.fromkeys(testbed.TASKS, NEVER_MS), learning=learning.model_dump(),
        web={"port": free_port()}, learner_web={"port": free_port()}, tasks=testbed.TASKS,
    ) as settings:  # fmt: skip
        versions, vectors = first_models(config, settings)
        world = World(WorldConfig(**config), SEED)
        publisher = furnish(settings, world, vectors, versions)
        folder = settings.data_dir
        with process(["streams", "worker"], settings, folder / "worker.log") as worker:
            wait_ready(settings, worker, folder / "worker.log")
            with process(["streams", "learner"], settings, folder / "learner.log") as learner:
                url = f"http://127.0.0.1:{settings.learner_web.port}/healthz"
                wait_for_answer(url, "learner", learner, folder / "learner.log")
                for other in set(testbed.TASKS) - {TASK}:  # one fine-tune at a time: theirs would be waited for
                    command(settings, other, time.time_ns() // 1_000_000, paused=True, by="bench")
                orders = serve_history(settings, world, publisher, (worker, learner))
                figures = label(settings, world, publisher, worker.pid, learner.pid, versions[TASK], arguments.examples)
    show(
        "label_to_live", {"mode": arguments.mode, "orders": orders, "rate": RATE, **figures},
        {"label_to_live_s": LIMITS[arguments.mode]},
    )  # fmt: skip


def first_models(config: dict[str, Any], settings: Settings) -> tuple[dict[str, str], Path]:
    """Versions by task and the catalogue's vectors; kept for the next run of the same sizes."""
    made_as = json.dumps([MADE_AS, FEATURES_FORMAT, config], sort_keys=True)
    digest = hashlib.sha256(made_as.encode()).hexdigest()[:16]
    kept = default_data_dir() / "bench-label-to-live" / digest
    kept.mkdir(parents=True, exist_ok=True)
    store, encoder, vectors = kept / "store", default_data_dir() / "encoder", kept / "vectors.npz"
    plan = ModelPlan(config, TRAIN, SERVE, str(store), str(encoder), str(vectors))
    note = kept / "versions.json"
    if not note.exists():
        say("training the first models; this is done once")
        versions = {}
        with subprocess.Popen(training(plan), stdout=subprocess.PIPE, text=True) as made:
            assert made.stdout is not None
            for line in made.stdout:
                if (step := json.loads(line))["what"] == "release":
                    versions[step["task"]] = step["version"]
        if made.returncode:
            sys.exit(f"the first models could not be trained: {asdict(plan)}")
        note.write_text(json.dumps(versions))
    shutil.copytree(store, settings.release_store)
    return dict(json.loads(note.read_text())), vectors


def serve_history(
    settings: Settings, world: World, publisher: Publisher, parts: Sequence[subprocess.Popen[bytes]]
) -> int:
    """Scores all events of the span; how many orders there were."""
    say("scoring the orders that will be labelled")
    sent = {"clicks": 0, "orders": 0, "impressions": 0}
    for event in world.history_records(SERVE, LABELLED):
        if event.topic in sent:
            publisher.publish(event)
            sent[event.topic] += 1
    publisher.flush()
    while (joined := read(settings.learner_web.port, "headrace_join_total", "result").get("served", 0)) < sent[
        "orders"
    ]:
        if any(part.poll() is not None for part in parts):
            raise RuntimeError("a process ended before all was scored")
        time.sleep(0.5)
    say(f"{joined:,.0f} orders wait for their labels")
    return sent["orders"]


def label(
    settings: Settings, world: World, publisher: Publisher, worker: int, learner: int, before: str, examples: int
) -> dict[str, Any]:
    """Sends the labels, and waits for the first score of a release that learned from them."""
    known = list(labels(world))
    first = threading.Event()
    seen: dict[str, float] = {}
    watcher = threading.Thread(target=watch, args=(settings, before, seen, first), daemon=True)
    watcher.start()
    with loaded(settings, world):
        time.sleep(5)
        cpu = cpu_seconds(worker)
        began = time.time()
        for event in known:
            publisher.publish(event)
        silence = publisher.encode_record("labels", heartbeat(TASK, "chargeback", milliseconds(LABELLED) + 30 * DAY_MS))
        publisher.send(Message(silence.topic, b"heartbeat", silence.value))
        publisher.flush()
        steps = follow(settings, began, first, examples)
        cores = (cpu_seconds(worker) - cpu) / (time.time() - began)
    pointer = live_pointers(settings)[TASK]
    parts = read(settings.learner_web.port, "headrace_finetune_seconds")
    swap = read(settings.web.port, "headrace_swap_seconds")
    return {
        "labels": len(known),
        "label_to_live_s": seen["scored"] - began,
        "join_s": steps["joined"] - began,
        "trigger_s": steps["begun"] - steps["joined"],
        **{f"{part}_s": seconds for part, seconds in parts.items()},
        "fine_tune_s": pointer.announced_at / 1000 - steps["begun"],
        "swap_s": seen["scored"] - pointer.announced_at / 1000,
        **{f"swap_{part}_s": seconds for part, seconds in swap.items()},
        "worker_cores": cores,
        "learner_rss_mb": rss_mb(learner),
    }


def labels(world: World) -> Iterator[Timed]:
    """What was said of the orders of the span within the window of a chargeback; by when it was said."""
    begin, end = milliseconds(SERVE), milliseconds(LABELLED)
    orders: set[str] = set()
    for event in world.history_records(SERVE, end + 28 * DAY_MS):
        if event.topic == "orders" and begin <= event.time < end:
            orders.add(event.record["order_id"])
        elif event.topic == "labels" and event.record["target_id"] in orders:
            yield event


@contextmanager
def loaded(settings: Settings, world: World) -> Iterator[None]:
    """RATE events a second of the days after, until the block ends."""
    stop = threading.Event()

    def run() -> None:
        with closing(ConfluentRegistry(settings.registry())) as registry, Publisher(settings, registry) as load:
            events = (event for event in world.history_records(LABELLED, LAST) if event.topic != "labels")
            replay(events, load, Pace(rate=RATE), stop=stop)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def watch(settings: Settings, before: str, seen: dict[str, float], first: threading.Event) -> None:
    """Notes when the broker has the first score of another release."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        decode = Decoder(registry, "fraud_score")
        for message in tail(settings, [settings.topics.scores(TASK)]):
            if decode(message.value)["release"] != f"{TASK}/{before}":
                seen["scored"] = message.timestamp / 1000
                first.set()
                return


def follow(settings: Settings, began: float, first: threading.Event, examples: int) -> dict[str, float]:
    """When enough examples were joined, and when the fine-tune began. Ends the benchmark where nothing goes live."""
    steps: dict[str, float] = {}
    while not first.wait(0.2):
        if "joined" not in steps and read(settings.learner_web.port, "headrace_new_examples").get("", 0) >= examples:
            steps["joined"] = time.time()
            say(f"{examples:,} examples were joined {steps['joined'] - began:.1f} s after the first label")
        if "begun" not in steps and read(settings.learner_web.port, "headrace_finetunes_total"):
            steps["begun"] = time.time()
            say(f"the fine-tune began {steps['begun'] - began:.1f} s after the first label")
        if time.time() - began > LONGEST_S:
            log = (settings.data_dir / "learner.log").read_text()
            sys.exit(f"nothing went live in {LONGEST_S} s:\n{log[-3_000:]}")
    return steps


def read(port: int, name: str, label: str = "part") -> dict[str, float]:
    """A series of a metrics page for the task, by a label of it; empty while it is 0 everywhere."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        text = page.read().decode()
    return {
        sample.labels.get(label, ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.get("task") == TASK and sample.value > 0
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
