"""Swaps: how a worker takes a release over while events flow, step by step: built, certified, warmed, shadowed, live.
It knows no Kafka: it is told which version each task points to, and when time has passed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager

from engines.slot import Canary, Loaded, Slot
from engines.turns import Turns
from schemas.errors import EngineError, HeadraceError, StoreUnavailable
from streams.catalog import Catalogue
from streams.config_sections import Swap as SwapSettings
from streams.metrics import Metrics
from streams.shadow import Shadows
from streams.swap_state import Swap

log = logging.getLogger(__name__)

RETRY_S = 1.0


class Swaps:
    """Each task's slot, and the swap that changes it next.

    `point` from any thread, `tick` now and then. Building goes through `builds`; all else that touches engines takes
    turns in `engines`, so that a flip or a new table always falls between two micro-batches. Whatever is wrong with a
    release, the live one stays; `on_failure` hears of one whose task has none.
    """

    def __init__(
        self,
        settings: SwapSettings,
        catalog: Catalogue,
        load: Callable[[str, str], Loaded],
        table: Callable[[Loaded], None],
        *,
        engines: Turns,
        builds: Executor,
        shadows: Shadows,
        metrics: Metrics,
        on_failure: Callable[[BaseException], object],
        stagger: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`load` opens and builds a version of a task; `table` brings its vectors up to the catalogue; `stagger` says
        for how many seconds this worker lets others go first."""
        self.slots: dict[str, Slot] = {}
        self.epochs: dict[str, int] = {}
        self.waits: dict[str, str] = {}  # of tasks without an engine: what their release waits for
        self._settings, self._catalog, self._load, self._table = settings, catalog, load, table
        self._engines, self._builds, self._shadows, self._metrics = engines, builds, shadows, metrics
        self._on_failure, self._stagger, self._clock = on_failure, stagger, clock
        self._swaps: dict[str, Swap] = {}
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Pointers have been read to their end: what they point to now is taken. May be called again."""
        with self._lock:
            self._started = True
            for swap in self._swaps.values():
                if swap.task not in self.slots:
                    self._begin(swap)

    def point(self, task: str, version: str, epoch: int) -> None:
        """Takes the version over, unless a higher epoch was seen. One that is still kept is live at once."""
        with self._lock:
            if epoch <= self.epochs.get(task, -1):
                return
            self.epochs[task] = epoch
            slot, under_way = self.slots.get(task), self._swaps.get(task)
            if under_way is not None:
                if under_way.version == version:
                    return
                self._drop(under_way)
                if under_way.state != "waiting":
                    self._count(task, "superseded")
                    log.info("release %s/%s is superseded by %s", task, under_way.version, version)
            if slot is not None and slot.live.release == version:
                return
            swap = self._swaps[task] = Swap(task, version, self._clock() + self._stagger() if slot else 0.0)
            if slot is not None and any(kept.release == version for kept in slot.kept):
                self._submit(self._go_back, swap)
            elif slot is None and self._started:
                self._begin(swap)

    def tick(self, now: float) -> None:
        """Goes on with what has waited or shadowed long enough; ends watches that are over. `now`: monotonic s."""
        with self._lock:
            for swap in list(self._swaps.values()):
                if swap.state == "waiting" and self._started and now >= swap.due:
                    self._begin(swap)
                elif swap.state == "shadowing":
                    self._judge(swap, now)
                elif swap.state == "canary":
                    self._follow_canary(swap, now)
            self._end_watches(now)

    def refresh(self) -> Future[None]:
        """Takes over a changed catalogue: new rows are encoded, candidates counted anew."""
        return self._engines.submit(self._refresh_all)

    # -- steps: each is handed on to the thread of the next ---------------------------------------------------

    def _begin(self, swap: Swap) -> None:
        if swap.state == "waiting":
            swap.state = "under way"
            self._builds.submit(self._guarded, self._build, swap)

    def _submit(self, step: Callable[[Swap], None], swap: Swap) -> None:
        swap.state = "under way"
        self._engines.submit(self._guarded, step, swap)

    def _guarded(self, step: Callable[[Swap], None], swap: Swap) -> None:
        if self._swaps.get(swap.task) is not swap:
            return
        try:
            step(swap)
        except Exception as error:  # noqa: BLE001  a release may be broken in any way: none of them stops serving
            self._refuse(swap, error)

    def _build(self, swap: Swap) -> None:
        with self._timed(swap, "build"):
            loaded = self._load(swap.task, swap.version)
            self._bring_up(swap, loaded)
        with self._timed(swap, "warm"):
            loaded.warm()  # it was certified where it was opened, with another catalogue than ours
        swap.loaded = loaded
        self._submit(self._shadow, swap)

    def _shadow(self, swap: Swap) -> None:
        """Between two micro-batches: from now on it is asked too, until `tick` finds that it is enough."""
        loaded, slot, wanted = swap.loaded, self.slots.get(swap.task), self._settings.shadow_events
        assert loaded is not None
        self._bring_up(swap, loaded)
        if slot is None or not wanted:
            self._flip(swap)
            return
        with self._lock:
            if self._swaps.get(swap.task) is not swap:
                return
            if swap.pair is None:
                swap.before = self._shadows.pairs.get(swap.task)
            slot.shadow, swap.since = loaded, self._clock()
            swap.pair = self._shadows.begin(swap.task, slot.live, loaded, wanted=wanted)
            swap.state = "shadowing"
        log.info("release %s/%s shadows %s", swap.task, swap.version, slot.live.release)

    def _judge(self, swap: Swap, now: float) -> None:
        pair = swap.pair
        assert pair is not None
        if pair.live is not self.slots[swap.task].live:
            self._submit(self._shadow, swap)  # the live one failed meanwhile: it shadows the one that serves now
        elif pair.failed or pair.compared >= pair.wanted or now - swap.since >= self._settings.shadow_wait_s:
            self._metrics.swap_seconds.labels(swap.task, "shadow").set(now - swap.since)
            self._submit(self._serve_some if self._settings.canary_share else self._flip, swap)

    def _serve_some(self, swap: Swap) -> None:
        """Between two micro-batches: from now on it serves a share of the users, and the live one is asked of them."""
        loaded, slot, settings = swap.unbroken(), self.slots[swap.task], self._settings
        with self._lock:
            if self._swaps.get(swap.task) is not swap:
                return
            slot.canary, slot.shadow = Canary(loaded, settings.canary_share), None
            swap.pair = self._shadows.begin(swap.task, loaded, slot.live)
            swap.since, swap.state = self._clock(), "canary"
        log.info("release %s/%s serves %.1f %% of users", swap.task, swap.version, 100 * settings.canary_share)

    def _follow_canary(self, swap: Swap, now: float) -> None:
        if self.slots[swap.task].canary is None:
            self._engines.submit(self._refuse, swap, EngineError("it failed while it served some of the users"))
        elif now - swap.since >= self._settings.canary_s:
            self._submit(self._flip, swap)

    def _flip(self, swap: Swap) -> None:
        loaded, leaving = swap.unbroken(), self._held(swap)
        with self._timed(swap, "flip"), self._lock:
            if self._swaps.get(swap.task) is not swap:
                return
            del self._swaps[swap.task]
            slot = self.slots.get(swap.task)
            if slot is None:
                self.slots[swap.task] = Slot(loaded)
                self.waits.pop(swap.task, None)
            else:
                self._watch(slot, slot.flip(loaded))
        self._builds.submit(leaving.clear)
        self._count(swap.task, "live")
        swap.say_live()

    def _held(self, swap: Swap) -> list[Loaded]:
        """What a flip may let go of. Freeing an engine takes 60 ms: not in a turn that live events wait for."""
        slot = self.slots.get(swap.task)
        pairs = (self._shadows.pairs.get(swap.task), swap.before, swap.pair)
        held = [loaded for pair in pairs if pair is not None for loaded in (pair.live, pair.shadow)]
        return [*held, *slot.ready] if slot else held

    def _go_back(self, swap: Swap) -> None:
        """To a release that is ready still: nothing is built and nothing shadows, neither it nor what it replaces."""
        with self._lock:
            slot = self.slots[swap.task]
            loaded = next((kept for kept in slot.kept if kept.release == swap.version), None)
            if self._swaps.get(swap.task) is not swap:
                return
            if loaded is None:  # it failed in this moment, and was dropped
                swap.state = "waiting"
                return
            del self._swaps[swap.task]
            slot.flip(loaded)
            slot.shadow = None
            self._shadows.end(swap.task)
        self._count(swap.task, "rolled_back")
        swap.say_live()

    def _refuse(self, swap: Swap, error: Exception) -> None:
        with self._lock:
            if self._swaps.get(swap.task) is not swap:
                return
            cold = swap.task not in self.slots
            if cold and isinstance(error, StoreUnavailable):
                self._wait_for_store(swap, error)
                return
            self._drop(swap)
        self._count(swap.task, "kept")
        unexpected = error if not isinstance(error, HeadraceError) else None
        log.error("release %s/%s is not taken: %s", swap.task, swap.version, error, exc_info=unexpected)
        if cold:
            self._on_failure(error)

    def _wait_for_store(self, swap: Swap, error: StoreUnavailable) -> None:
        """Without an engine there is nothing else to do."""
        if swap.task not in self.waits:
            log.warning("release %s/%s waits: %s", swap.task, swap.version, error)
        self.waits[swap.task] = str(error)
        swap.state, swap.due = "waiting", self._clock() + RETRY_S

    # -- shadows: all under the lock --------------------------------------------------------------------------

    def _drop(self, swap: Swap) -> None:
        """What its shadow took the place of goes on."""
        del self._swaps[swap.task]
        if swap.pair is None:
            return
        slot = self.slots[swap.task]
        slot.canary = None
        if swap.before is not None and swap.before.live is slot.live:
            slot.shadow = swap.before.shadow
            self._shadows.resume(swap.before)
        else:
            slot.shadow = None
            self._shadows.end(swap.task)

    def _watch(self, slot: Slot, before: Loaded) -> None:
        """After a flip, the champion before is asked about a share of the events."""
        live, settings = slot.live, self._settings
        if settings.sample and settings.watch_s:
            slot.shadow, until = before, self._clock() + settings.watch_s
            self._shadows.begin(live.source.task, live, before, share=settings.sample, until=until)
        else:
            slot.shadow = None
            self._shadows.end(live.source.task)

    def _end_watches(self, now: float) -> None:
        for task, pair in self._shadows.pairs.items():
            swap, slot = self._swaps.get(task), self.slots[task]
            if swap is not None and swap.pair is pair:
                continue
            if pair.failed is not None:
                log.warning("release %s/%s is not compared any more: %s", task, pair.shadow.release, pair.failed)
            elif now < pair.until and slot.live is pair.live:
                continue
            self._shadows.end(task)
            if slot.shadow is pair.shadow:
                slot.shadow = None

    # -- tables and figures -----------------------------------------------------------------------------------

    def _bring_up(self, swap: Swap, loaded: Loaded) -> None:
        if swap.catalog_version != (version := self._catalog.version):
            self._table(loaded)
            swap.catalog_version = version

    def _refresh_all(self) -> None:
        for slot in list(self.slots.values()):
            for loaded in slot.ready:
                self._table(loaded)

    @contextmanager
    def _timed(self, swap: Swap, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._metrics.swap_seconds.labels(swap.task, part).set(time.perf_counter() - started)

    def _count(self, task: str, result: str) -> None:
        self._metrics.swaps.labels(task, result).inc()
