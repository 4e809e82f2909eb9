"""How far the workers are behind on the event topics, as the brokers know it: it joins no group and reads no record."""

import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import SettingsError
from streams.backfill.pacing import Standing
from streams.config import Settings
from streams.offsets import TIMEOUT_S, Place, kafka_error, places

log = logging.getLogger(__name__)


class Workers:
    """Called again and again; each call is three or four requests."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._group = settings, settings.app_id
        self._admin = AdminClient({**settings.librdkafka(), "logger": log})
        self._places: list[Place] = []

    def __call__(self) -> Standing:
        """Raises BrokerUnavailable, SettingsError."""
        try:
            if not self._places:
                self._places = [
                    place for topic in self._settings.topics.inputs for place in places(self._settings, topic)
                ]
            return Standing(self._lag(), self._members())
        except KafkaException as error:
            cause = kafka_error(error.args[0], f"group {self._group}")
            if cause.retriable:
                raise cause from error
            raise SettingsError(
                cause.what, where=f"group {self._group}", expected="the right to describe the workers' group",
                todo="allow it, or set backfill_lag to 0: then history does not wait for live events",
            ) from error  # fmt: skip

    def _lag(self) -> int:
        [answer] = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self._group)], request_timeout=TIMEOUT_S
        ).values()
        read = {
            (each.topic, each.partition): each.offset for each in answer.result().topic_partitions if each.offset >= 0
        }
        unread = [place for place in self._places if place not in read]
        read |= self._offsets(unread, OffsetSpec.earliest()) if unread else {}
        ends = self._offsets(self._places, OffsetSpec.latest())
        return sum(max(0, end - read[place]) for place, end in ends.items())

    def _offsets(self, wanted: list[Place], which: OffsetSpec) -> Mapping[Place, int]:
        asked: dict[Any, OffsetSpec] = {TopicPartition(*place): which for place in wanted}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT_S
        )
        return {(each.topic, each.partition): int(answer.result().offset) for each, answer in answers.items()}

    def _members(self) -> int:
        [answer] = self._admin.describe_consumer_groups([self._group], request_timeout=TIMEOUT_S).values()
        try:
            return len(answer.result().members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise
