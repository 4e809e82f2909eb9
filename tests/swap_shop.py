"""Swaps without a broker and without models: engines that answer what they are told, builds that wait to be let on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import numpy as np

from bench.scoring import SETTINGS, Feed, make_scorer
from engines.base import Array, Arrays
from engines.null import NullEngine, null_release, null_tower
from engines.slot import Loaded
from engines.turns import Turns
from schemas.errors import EngineError, ReleaseError, StoreUnavailable
from schemas.wire import Decoder
from streams.config_sections import Swap as SwapSettings
from streams.metrics import Metrics
from streams.shadow import Shadows
from streams.sources.load import START_MS, uniform_load
from streams.swap import Swaps
from streams.tasks.fraud import FIELDS
from streams.work import Outgoing, Work

ORDERS_ONLY = (0.0, 1.0, 0.0)


class ToldEngine(NullEngine):
    """Answers `logit` everywhere, or raises EngineError in the words of `fails`."""

    precision = "f32"
    logit = 0.0
    fails = ""

    def _run(self, bucket: int, arrays: dict[str, Array]) -> Arrays:
        if self.fails:
            raise EngineError(self.fails, where="engine told")
        zeros: Any = super()._run(bucket, arrays)
        return {
            name: array + np.float32(self.logit) if array.dtype == np.float32 else array
            for name, array in zeros.items()
        }


class Later(Executor):
    """What is submitted waits until `go`, and runs on its thread."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def submit(self, job: Callable[..., Any], /, *args: Any, **named: Any) -> "Future[Any]":
        self.waiting.append(lambda: job(*args, **named))
        return Future()

    def go(self) -> None:
        jobs, self.waiting = self.waiting, []
        for job in jobs:
            job()


class SwapShop:
    """A scorer of fraud whose releases are swapped. `now`: monotonic seconds, moved by the test."""

    def __init__(self, *, first: str | None = "v1", stagger: float = 0.0, **over: Any) -> None:
        self.now, self.stagger, self.epoch, self.seed = 1000.0, stagger, 0, 0
        self.made: dict[str, ToldEngine] = {}
        self.answers: dict[str, float] = {}
        self.away = False
        self.broken: set[str] = set()
        self.uncertified: set[str] = set()
        self.opened: list[str] = []
        self.failures: list[BaseException] = []
        self.builds, self.engines, self.metrics = Later(), Turns(), Metrics()
        self.scorer, self.registry = make_scorer([1, 8, 64])
        self.feed = Feed(self.registry)
        scorer, codecs = self.scorer, self.scorer.codecs
        self.shadows = Shadows(
            scorer.tasks,
            scorer.catalog,
            codecs.shadow,
            scorer.names.shadow,
            self.engines,
            self.metrics,
            scorer.policies,
            lambda: 77,
        )
        self.swaps = Swaps(
            SwapSettings(**over), scorer.catalog, self._load, self._table,
            engines=self.engines, builds=self.builds, shadows=self.shadows, metrics=self.metrics,
            on_failure=self.failures.append, stagger=lambda: self.stagger, clock=lambda: self.now,
        )  # fmt: skip
        scorer.slots = self.swaps.slots
        self.decode = Decoder(self.registry, "shadow_score")
        self.swaps.start()
        if first:
            self.point(first)
            self.settle()

    def close(self) -> None:
        self.engines.close()

    @property
    def live(self) -> str:
        return self.swaps.slots["fraud"].live.release

    @property
    def shadow(self) -> str | None:
        shadow = self.swaps.slots["fraud"].shadow
        return shadow.release if shadow else None

    def point(self, version: str, epoch: int | None = None) -> None:
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.swaps.point("fraud", version, self.epoch)

    def settle(self) -> None:
        """Whatever has begun goes as far as it can without time or events."""
        for _ in range(5):
            self.swaps.tick(self.now)
            self.builds.go()
            self.engines.submit(int).result()

    def serve(self, count: int = 8) -> Work:
        """New orders, answered as the loop does; then their outputs are acknowledged."""
        self.seed += 1
        load = uniform_load(count, 5, self.seed, ORDERS_ONLY, start=START_MS + 1_000_000 * self.seed)
        [batch] = self.feed.batches(load, count)
        parts = [(topic, records, self.scorer.decode(topic, records)) for topic, records in batch]
        work = self.scorer.prepare(parts, int(batch[0][1][0].timestamp) + 5)
        self.engines.submit(self.scorer.infer, work).result()
        self.scorer.outputs.waves(work)
        self.shadows.after(work)
        return work

    def asked(self) -> list[dict[str, Any]]:
        """The shadow records of all that waits."""
        sent: list[Outgoing] = []

        async def drain() -> None:
            while records := await self.shadows.step():
                sent.extend(records)

        asyncio.run(drain())
        assert {record.topic for record in sent} <= {self.scorer.names.shadow}
        found = [self.decode(record.value or b"") for record in sent]
        assert [record.key for record in sent] == [each["target_id"].encode() for each in found]
        return found

    def total(self, name: str) -> dict[tuple[str, ...], float]:
        return self.metrics.total(name)

    def _load(self, task: str, version: str) -> Loaded:
        self.opened.append(version)
        if self.away:
            raise StoreUnavailable("the store does not answer", where="the test")
        if version in self.broken:
            raise ReleaseError(f"no release {task}/{version}", where="the test")
        if version in self.uncertified:
            raise EngineError("the engine differs from the oracle", where="the test")
        source = null_release(task, fields=len(FIELDS))
        source = replace(source, manifest=source.manifest.model_copy(update={"version": version}))
        engine = self.made[version] = ToldEngine(source, precision="f32", buckets=(1, 8, 64), threads=1)
        engine.logit = self.answers.get(version, 0.0)
        loaded = Loaded(source, engine, null_tower())
        loaded.settings = SETTINGS
        return loaded

    def _table(self, loaded: Loaded) -> None:
        catalog = self.scorer.catalog
        loaded.refresh(catalog.text, catalog.scalars, catalog.kind, catalog.candidate_bias())
