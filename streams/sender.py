"""Sends what the loop makes, in its two waves, and remembers how far each score topic is acknowledged.
The second wave leaves when the first is acknowledged: a score is the proof of what was said.
"""

from collections.abc import Callable, Sequence

from streams.producer import Producer
from streams.work import Outgoing


class Sender:
    """`ends`: by task and partition, the score offset after the newest acknowledged one."""

    def __init__(self, producer: Producer, score_topics: dict[str, str]) -> None:
        self._producer = producer
        self._task_of = {topic: task for task, topic in score_topics.items()}
        self.ends: dict[str, dict[int, int]] = {task: {} for task in score_topics}

    async def send(
        self, first: Sequence[Outgoing], second: Sequence[Outgoing], scored: Callable[[], None] = lambda: None
    ) -> None:
        """Returns when all is acknowledged; `scored` is called between the waves. Raises ProduceFailed, Fenced."""
        await self._wave(first)
        scored()
        await self._wave(second)

    async def _wave(self, outgoing: Sequence[Outgoing]) -> None:
        for (topic, partition), offset in (await self._producer.send_all(outgoing)).items():
            if (task := self._task_of.get(topic)) is not None:
                ends = self.ends[task]
                ends[partition] = max(ends.get(partition, 0), offset + 1)
