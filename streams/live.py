"""What the models stand on while events flow: the catalogue and the live releases, followed from their topics.
Changes are prepared beside the scoring loop and take effect between two micro-batches.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.releases import ReleaseStore
from engines.slot import Loaded, Slot, load
from engines.turns import Turns
from schemas.errors import HeadraceError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.catalog import AD, ITEM, NOT_A_CANDIDATE, Catalogue
from streams.compacted import Compacted
from streams.config import Settings

log = logging.getLogger(__name__)

PRIOR = "prior.json"


class CatalogueFeed:
    """Reads catalog.items, catalog.ads and catalog.vectors; `drain` applies what came, on the caller's thread."""

    def __init__(self, settings: Settings, registry: Registry, catalog: Catalogue) -> None:
        self.catalog = catalog
        self._queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        topics = settings.topics
        withdraw_item, withdraw_ad = partial(catalog.withdraw, ITEM), partial(catalog.withdraw, AD)
        self._readers = [
            self._reader(settings, topics.items, Decoder(registry, "catalog_item"), catalog.apply_item, withdraw_item),
            self._reader(settings, topics.ads, Decoder(registry, "catalog_ad"), catalog.apply_ad, withdraw_ad),
            self._reader(settings, topics.vectors, Decoder(registry, "catalog_vector"), catalog.apply_vector, _keep),
        ]

    def _reader(
        self,
        settings: Settings,
        topic: str,
        decode: Decoder,
        apply: Callable[[Any], None],
        withdraw: Callable[[str], None],
    ) -> Compacted:
        def take(key: bytes, value: bytes | None) -> None:
            if value is None:
                self._queue.append((withdraw, key.decode(errors="replace")))
            else:
                self._queue.append((apply, decode(value)))

        return Compacted(settings, topic, take)

    def wait_current(self, timeout: float) -> None:
        for reader in self._readers:
            reader.wait_current(timeout)

    def drain(self) -> bool:
        """True if the catalogue changed."""
        before = self.catalog.version
        while self._queue:
            apply, record = self._queue.popleft()
            apply(record)
        return self.catalog.version != before

    def stop(self) -> None:
        for reader in self._readers:
            reader.stop()


def _keep(key: str) -> None:
    """A vector's row is never taken back: what was served must stay readable."""


class LiveReleases:
    """Follows models.releases: for each task the pointer of the highest epoch is loaded, warmed and made live.

    All engine work, inference included, takes turns in `engines`, so that a flip or a new table always falls between
    two micro-batches; building goes through `builds`, beside it.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        tasks: Sequence[str],
        catalog: Catalogue,
        *,
        engines: Turns,
        builds: Executor,
        on_failure: Callable[[BaseException], object],
    ) -> None:
        self.slots: dict[str, Slot] = {}
        self._settings, self._catalog, self._tasks = settings, catalog, tuple(tasks)
        self._engines, self._builds, self._on_failure = engines, builds, on_failure
        self._store = ReleaseStore(settings.release_store, cache=settings.data_dir / "release-cache")
        self._epochs: dict[str, int] = {}
        self._priors: dict[str, NDArray[np.float32]] = {}
        self._decode = Decoder(registry, "model_release")
        self._reader = Compacted(settings, settings.topics.releases, self._apply)

    @property
    def cold(self) -> tuple[str, ...]:
        """Tasks that have no warm engine yet."""
        return tuple(task for task in self._tasks if task not in self.slots)

    def wait_current(self, timeout: float) -> None:
        """Returns when the topic was read to its end."""
        self._reader.wait_current(timeout)

    def adopt_newest(self) -> None:
        """A task that no pointer was ever written for takes the store's newest release, if there is one."""
        for task in self._tasks:
            if task not in self._epochs and (versions := self._store.list(task)):
                log.warning("no release of %s is pointed to; taking the newest, %s", task, versions[-1])
                self._epochs[task] = 0
                self._builds.submit(self._swap, task, versions[-1], 0)

    def stop(self) -> None:
        self._reader.stop()

    def refresh(self) -> Future[None]:
        """Takes over a changed catalogue: new rows are encoded, candidates counted anew."""
        return self._engines.submit(self._refresh_all)

    def _apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = self._decode(value)
        task, epoch = record["task"], record["epoch"]
        if record["kind"] != "pointer" or task not in self._tasks or epoch <= self._epochs.get(task, -1):
            return
        self._epochs[task] = epoch
        self._builds.submit(self._swap, task, record["version"], epoch)

    def _swap(self, task: str, version: str, epoch: int) -> None:
        """On the build thread. A release that cannot be loaded leaves the live one where it is, and says so."""
        if epoch < self._epochs[task]:
            return
        engine = self._settings.engine
        try:
            loaded = load(
                self._store.open(task, version),
                backend=engine.backend,
                precision=engine.precision,
                buckets=engine.buckets,
                threads=engine.threads,
            )
            self._table(loaded)
            loaded.warm()
        except HeadraceError as error:
            log.error("release %s/%s is not taken: %s", task, version, error)
            if task not in self.slots:
                self._on_failure(error)
            return
        self._engines.submit(self._flip, task, loaded).result()
        log.info("release %s/%s is live", task, version, extra={"task": task, "release": version})

    def _flip(self, task: str, loaded: Loaded) -> None:
        if len(loaded.table) != len(self._catalog):
            self._table(loaded)
        if task in self.slots:
            self.slots[task].flip(loaded)
        else:
            self.slots[task] = Slot(loaded)

    def _refresh_all(self) -> None:
        for slot in self.slots.values():
            for loaded in slot.kept:
                self._table(loaded)

    def _table(self, loaded: Loaded) -> None:
        catalog = self._catalog
        rows = len(catalog)
        bias = catalog.candidate_bias()[:rows] + prior_of(loaded, catalog.items, rows)
        loaded.refresh(
            catalog.text[:rows], catalog.scalars[:rows], catalog.kind[:rows], np.maximum(bias, NOT_A_CANDIDATE)
        )


def prior_of(loaded: Loaded, items: Mapping[str, int], rows: int) -> NDArray[np.float32]:
    """(rows,) the release's popularity prior by catalogue row; 0 for items that it has not seen."""
    prior = np.zeros(rows, np.float32)
    path: Path = loaded.source.folder / PRIOR
    if PRIOR in loaded.source.manifest.files:
        for ident, value in json.loads(path.read_text()).items():
            row = items.get(ident, 0)
            if 0 < row < rows:
                prior[row] = value
    return prior
