"""Equal features: replaying the input topics to each score's cut gives the bytes that were served, entities excepted.
A crowd of users on three topics, real engines, and a worker that is killed in mid-stream; then one undisturbed pass.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.replay import replayed
from streams.config import Settings
from streams.demo.stage import servers
from streams.topics import create_topics
from tests import shop
from tests.chaos.harness import PATIENT, Stream, crew, crowd, kill

TARGETS = {"scores": 10_000, "differences": 0}


def measure(events: int, folder: Path) -> dict[str, Any]:
    rng = random.Random(7)
    with servers(folder / "servers", folder / "java", lambda _: None) as (brokers, registry_url):
        store, _ = shop.releases()
        settings = Settings(
            brokers=brokers, registry_url=registry_url, release_store=store, data_dir=folder / "data",
            deadlines_ms=PATIENT, session_timeout_s=6.0, partitions=4, app_id="bench-features",
        )  # fmt: skip
        create_topics(settings)
        shop.furnish(settings)
        with crew(settings, folder) as group:
            worker = group.start("a")
            with Stream(settings, crowd(rng, events, users=400), rate=1000) as stream:
                stream.wait_for(0.4)
                time.sleep(rng.random())
                kill(worker)
                group.start("b")
            group.finish(300)
            half_said = sum(group.half_said())
        found = replayed(settings)
    return {
        "bench": "features",
        "scores": found.compared,
        "by_task": found.by_task,
        "half_said": half_said,
        "differences": len(found.differences),
        "differing_cuts": len(found.cuts),
        "such_as": found.differences[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(parser.parse_args().events, Path(folder))
    missed = ["scores"] if figures["scores"] < TARGETS["scores"] else []
    missed += ["differences"] if figures["differences"] or figures["differing_cuts"] else []
    print(json.dumps({**figures, "targets": TARGETS, "missed": missed}))


if __name__ == "__main__":
    main()
