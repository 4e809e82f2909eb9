"""A publisher that keeps to its clock: `python -m bench.open_loop FILE`, settings from the environment.
FILE is an npz of encoded messages; a line of JSON says when message 0 was due, and how well the clock was kept.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from schemas.confluent import ConfluentRegistry
from streams.config import Settings
from streams.sources.publisher import Message, Publisher
from streams.sources.replay import OpenLoop


def save(path: Path, messages: Sequence[Message], rate: float) -> None:
    topics, keys, values = zip(*messages, strict=True)
    np.savez(
        path, topics=np.array(topics), keys=np.array(keys), sizes=np.array([len(value) for value in values]),
        values=np.frombuffer(b"".join(values), np.uint8), rate=np.array(rate),
    )  # fmt: skip


def load(path: Path) -> tuple[list[Message], float]:
    with np.load(path) as saved:
        topics, keys, sizes = saved["topics"].tolist(), saved["keys"].tolist(), saved["sizes"]
        values, rate = saved["values"].tobytes(), float(saved["rate"])
    ends = np.cumsum(sizes).tolist()
    starts = [0, *ends[:-1]]
    return [Message(t, k, values[a:b]) for t, k, a, b in zip(topics, keys, starts, ends, strict=True)], rate


def main(file: str) -> None:
    settings = Settings()
    messages, rate = load(Path(file))
    with (
        closing(ConfluentRegistry(settings.registry())) as registry,
        Publisher(settings, registry, linger_ms=0) as publisher,
    ):
        print(json.dumps(asdict(OpenLoop(rate).run(messages, publisher))))


if __name__ == "__main__":
    main(*sys.argv[1:])
