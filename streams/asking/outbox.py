"""Answered events on their way to their topics, each with its answer in a header.
One that the broker does not take is forgotten, and counted: it may be asked about anew.
"""

import asyncio
import logging

from schemas.errors import HeadraceError
from streams.asking.answers import Answers, Given, Key
from streams.asking.problems import NOT_PUBLISHED, Problem
from streams.metrics import Metrics
from streams.notices import Notices
from streams.producer import Acknowledged, Producer
from streams.telemetry.context import Headers
from streams.work import Outgoing

log = logging.getLogger(__name__)


class Outbox:
    """On the loop's thread."""

    def __init__(self, producer: Producer, answers: Answers, topics: tuple[str, ...], metrics: Metrics) -> None:
        """`topics`: the inputs, by index."""
        self._producer, self._answers, self._topics, self._metrics = producer, answers, topics, metrics
        self._under_way: set[asyncio.Future[Acknowledged]] = set()
        self._notices = Notices(log)

    def publish(self, key: Key, value: bytes, given: Given, headers: Headers) -> None:
        """Hands the event to the producer, before anybody hears of the answer, which is one of the headers."""
        record = Outgoing(self._topics[key.topic], key.user_id.encode(), value, given.partition, headers)
        given.published = published = self._producer.send_all([record])
        self._under_way.add(published)
        published.add_done_callback(lambda done: self._published(key, given, done))

    async def published(self, given: Given) -> None:
        """Returns when the event is on its topic. Raises Problem."""
        if given.published is not None:
            try:
                await asyncio.shield(given.published)
            except HeadraceError as error:
                raise Problem(NOT_PUBLISHED, error.what, todo="ask again") from None

    async def drain(self, seconds: float) -> None:
        """Returns when all is published, or the time is over."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)

    def _published(self, key: Key, given: Given, done: "asyncio.Future[Acknowledged]") -> None:
        self._under_way.discard(done)
        error = None if done.cancelled() else done.exception()
        if error is None:
            given.published = None
        else:
            self._answers.forget(key)
            self._metrics.asked_lost.labels(given.answer.task).inc()
            self._notices.say("an answered event is not published", str(error))
