"""Sends what the loop makes, in its two waves, and remembers how far each score topic is acknowledged.
The second wave leaves when the first is acknowledged: a score is the proof of what was said.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

from streams.producer import Output, Producer
from streams.work import Outgoing


class Sender:
    """`ends`: by task and partition, the score offset after the newest acknowledged one."""

    def __init__(self, producer: Producer, score_topics: dict[str, str]) -> None:
        self._producer = producer
        self._task_of = {topic: task for task, topic in score_topics.items()}
        self.ends: dict[str, dict[int, int]] = {task: {} for task in score_topics}

    async def send(
        self, first: Iterable[Outgoing], second: Iterable[Outgoing], scored: Callable[[], None] = lambda: None
    ) -> None:
        """Returns when all is acknowledged; `scored` is called between the waves. Raises ProduceFailed, Fenced."""
        await self._wave(first)
        scored()
        await self._wave(second)

    async def _wave(self, outgoing: Iterable[Outgoing]) -> None:
        by_topic: defaultdict[str, list[Output]] = defaultdict(list)
        for record in outgoing:
            by_topic[record.topic].append((record.key, record.value, record.partition, record.headers))
        sent = [self._producer.send(topic, outputs) for topic, outputs in by_topic.items()]
        for acknowledged in await asyncio.gather(*sent):
            for (topic, partition), offset in acknowledged.items():
                if (task := self._task_of.get(topic)) is not None:
                    ends = self.ends[task]
                    ends[partition] = max(ends.get(partition, 0), offset + 1)
