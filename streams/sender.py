"""Sends what the loop makes, in its two waves, and remembers how far each score topic is acknowledged.
The second wave leaves when the first is acknowledged: a score is the proof of what was said.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from faust.types import TP

from streams.config import Settings
from streams.lease import Lease
from streams.producer import Acknowledged, Producer
from streams.work import Outgoing

#: librdkafka sends a request for each partition. Nobody waits for `served` and touches: those of several micro-batches
#: go together, or they would be most of what the broker has to answer.
PATIENT_LINGER_MS = 25.0

#: By input, the next offset to read when all of a micro-batch is said.
Positions = Callable[[], Mapping[TP, int]]


class Sender:
    """Two producers: one for what is waited for (scores, dead letters, alerts), a patient one for the rest.

    `ends`: by task and partition, the score offset after the newest acknowledged one. (A producer for each task was
    tried: more threads to take turns with, and latency half as much again.)
    """

    def __init__(self, settings: Settings, lease: Lease, score_topics: dict[str, str], urgent: Collection[str]) -> None:
        """`urgent`: topics of the second wave that are waited for."""
        self.fast = Producer(settings, lease=lease)
        self.patient = Producer(settings, lease=lease, linger_ms=PATIENT_LINGER_MS, offsets=False)
        self._task_of = {topic: task for task, topic in score_topics.items()}
        self._urgent = frozenset(urgent)
        self.ends: dict[str, dict[int, int]] = {task: {} for task in score_topics}

    async def send(
        self,
        first: Sequence[Outgoing],
        second: Sequence[Outgoing],
        scored: Callable[[], None] = lambda: None,
        alerts: Awaitable[Sequence[Outgoing]] | None = None,
        positions: Positions = dict,
    ) -> None:
        """Returns when all is acknowledged; `scored` is called between the waves, `alerts` are part of the second.

        `positions` are not sent here: the group commits them when its ledger says so. Raises ProduceFailed, Fenced.
        """
        self._acknowledged(await self.fast.send_all(first))
        scored()
        now = [record for record in second if record.topic in self._urgent]
        later = [record for record in second if record.topic not in self._urgent] if now else second
        if alerts is not None:
            now += await alerts
        await asyncio.gather(self.fast.send_all(now), self.patient.send_all(later))

    async def run(self) -> None:
        """Nothing: each list goes by itself."""

    def _acknowledged(self, newest: Acknowledged) -> None:
        for (topic, partition), offset in newest.items():
            if (task := self._task_of.get(topic)) is not None:
                ends = self.ends[task]
                ends[partition] = max(ends.get(partition, 0), offset + 1)

    async def close(self) -> None:
        """Drops what is not sent yet: its inputs are not committed."""
        await asyncio.gather(self.fast.close(abandon=True), self.patient.close(abandon=True))
