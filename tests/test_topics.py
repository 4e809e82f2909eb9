"""Topics: what is asked of a cluster, what is created, and what is said about topics that differ."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient

from schemas.errors import BrokerUnavailable, SettingsError
from streams.app import check_topics
from streams.config import Settings
from streams.ports import free_port
from streams.topics import (
    TopicSpec,
    clock_warning,
    create_topics,
    list_topics,
    require_topics,
    topic_specs,
)
from tests.observer import new_topic

FreshSettings = Callable[..., Settings]


def specs(**over: Any) -> dict[str, TopicSpec]:
    return {spec.name: spec for spec in topic_specs(Settings(**over))}


def test_every_topic_of_the_settings_is_planned_once() -> None:
    planned = [spec.name for spec in topic_specs(Settings())]
    assert sorted(planned) == sorted(Settings().topics.model_dump().values())


def test_topics_that_meet_by_user_have_one_partition_count() -> None:
    names = Settings().topics
    together = (*names.inputs, names.state, *(names.scores(task) for task in Settings().tasks))
    assert {specs(partitions=7)[name].partitions for name in together} == {7}


def test_the_audit_log_is_one_partition_that_is_never_deleted() -> None:
    audit = specs(partitions=7)["audit.log"]
    assert (audit.partitions, audit.config["retention.ms"]) == (1, "-1")


@pytest.mark.parametrize("limit", [1_000, 1_000_000, 20_000_000])
def test_a_dead_letter_may_be_larger_than_any_input(limit: int) -> None:
    planned = specs(max_message_bytes=limit)
    inputs = int(planned["events.orders"].config["max.message.bytes"])
    assert limit < inputs < int(planned["deadletters"].config["max.message.bytes"])


def test_a_task_of_ones_own_gets_its_topics() -> None:
    planned = specs(tasks=("fraud", "returns"))
    assert {"scores.returns", "served.returns"} <= planned.keys()


def test_state_is_compacted_and_kept_by_the_brokers_clock() -> None:
    config = specs()["state.users"].config
    assert (config["cleanup.policy"], config["message.timestamp.type"]) == ("compact", "LogAppendTime")


def test_created_topics_are_as_planned(fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    report = create_topics(settings)
    planned = {spec.name: spec for spec in topic_specs(settings)}
    assert set(report.created) == planned.keys()
    assert not report.present
    assert not report.problems
    for state in list_topics(settings):
        spec = planned[state.name]
        assert (state.partitions, state.replication) == (spec.partitions, spec.replication)
        assert spec.config.items() <= state.config.items()


def test_creating_again_changes_nothing(settings: Settings) -> None:
    report = create_topics(settings)
    assert not report.created
    assert len(report.present) == len(topic_specs(settings))
    require_topics(settings)


def test_another_partition_count_is_reported_and_refused(settings: Settings) -> None:
    more = settings.model_copy(update={"partitions": 5})
    problems = create_topics(more).problems
    assert f"topic {settings.topics.clicks} has 2 partitions and must have 5" in problems
    with pytest.raises(SettingsError, match="has 2 partitions and must have 5"):
        require_topics(more)


def test_a_state_topic_that_deletes_is_reported(fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    admin = KafkaAdminClient(**settings.kafka_python())
    admin.create_topics({settings.topics.state: {"num_partitions": 2, "replication_factor": 1}})
    admin.close()
    assert create_topics(settings).problems == [
        f"topic {settings.topics.state} deletes old records and must be compacted (cleanup.policy=compact)"
    ]


def test_topics_of_others_that_keep_the_producers_time_are_a_warning_and_no_refusal(
    fresh_settings: FreshSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = fresh_settings(create=False)
    clicks, orders, impressions = settings.topics.inputs
    for topic in (clicks, orders):
        new_topic(settings, topic, {"message.timestamp.type": "CreateTime"})
    report = create_topics(settings)
    assert not report.problems
    [said] = report.warnings
    listed = {state.name for state in list_topics(settings) if state.warning}
    assert listed == {clicks, orders}
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_topics(settings, settings.topics.inputs, partitions=2)
    assert caplog.messages == [said]
    for word in (clicks, orders, "is CreateTime", "expected LogAppendTime", "deadlines", "kafka-configs.sh"):
        assert word in said
    assert impressions not in said


def test_the_brokers_clock_and_a_configuration_that_is_not_told_are_no_warning(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert clock_warning({"a": {"message.timestamp.type": "LogAppendTime"}, "b": {}}) == ""
    with caplog.at_level(logging.WARNING):
        check_topics(settings, settings.topics.inputs, partitions=2)
    assert not caplog.messages


def test_missing_topics_are_named_with_what_to_do(fresh_settings: FreshSettings) -> None:
    with pytest.raises(SettingsError, match=r"does not exist; .* and 26 more; .*headrace topics create"):
        require_topics(fresh_settings(create=False))


def test_more_replicas_than_brokers_is_a_settings_error(fresh_settings: FreshSettings) -> None:
    with pytest.raises(SettingsError, match=r"could not be created: .*replicat"):
        fresh_settings(replication=3)


def test_no_broker_is_said_with_its_address() -> None:
    settings = Settings(brokers=f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerUnavailable, match=f"{settings.brokers}.*headrace broker start"):
        list_topics(settings)
