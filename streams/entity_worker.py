"""The owner's side of shared entities, beside the scoring loop: joins the touches of its partitions of
entities.events and publishes what is shared or tainted. It lags behind the scores by a fetch, and may.
"""

import asyncio
from collections.abc import Callable

from faust.types import TP

from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.app import App
from streams.config import Settings
from streams.entities import touched
from streams.entity_owner import EntityOwner
from streams.offsets import committed
from streams.producer import Producer
from streams.restore import until_it_works
from streams.store import UserStore
from streams.tenure import Tenure


class EntityWorker:
    """Reads through an intake of its own; acknowledges when what it publishes is acknowledged."""

    def __init__(self, settings: Settings, app: App) -> None:
        self._settings = settings
        self._topic = settings.topics.entity_events
        self._store = UserStore(settings.data_dir / "entities" / settings.app_id)
        self._intake = app.intake(self._topic)
        self._owner: EntityOwner | None = None
        self.forgotten_at: Callable[[], int] = lambda: 0  # UTC ms: since then nobody was forgotten

    def ready(self, registry: Registry) -> None:
        """Registers its contracts. Raises RegistryUnavailable: retry."""
        state = Encoder(registry, self._settings.topics.entity_state, "entity_state")
        self._owner = EntityOwner(self._store, Decoder(registry, "entity_touch"), state)

    async def restore(self, assigned: set[TP], kept: set[TP], tenure: Tenure) -> None:
        """Brings new partitions to their committed offset; lets the others go. Raises Moved where the tenure ends."""
        mine = {tp.partition for tp in assigned - kept if tp.topic == self._topic}
        self._store.close()
        places = [(self._topic, partition) for partition in sorted(mine)]
        ends = await until_it_works("entities", committed, self._settings, self._settings.app_id, places)
        assert self._owner is not None
        for topic, partition in places:
            tenure.check()
            end = ends.get((topic, partition), 0)
            await until_it_works("entities", self._owner.rebuild, self._settings, partition, end, self.forgotten_at())

    async def run(self, producer: Producer) -> None:
        """Until cancelled. A record that is no touch was not written by a worker; it is dropped."""
        assert self._owner is not None
        while True:
            batch = await self._intake.take()
            states: list[tuple[bytes, bytes | None]] = []
            for part in batch.parts:
                found = await until_it_works("entities", self._owner.process, part.tp.partition, part.records)
                states += found[0]
                if any(record.value is None and touched(record.key or b"") for record in part.records):
                    await asyncio.to_thread(self._store.purge, part.tp.partition)
                    self._store.close(part.tp.partition)
            batch.computed()
            await producer.send(self._settings.topics.entity_state, [(k, v, None, None) for k, v in states])
            batch.done()

    def close(self) -> None:
        self._store.close()
