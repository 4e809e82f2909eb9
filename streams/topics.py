"""The topics of the design as data, their creation, and what a cluster has of them.
Nothing here changes a topic that exists: a difference that matters is reported, and a person decides.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from schemas.errors import BrokerUnavailable, SettingsError
from streams.config import Settings
from streams.ports import accepts

NO_BROKER = "run `headrace broker start`, or set HEADRACE_BROKERS"
DAY_MS = 86_400_000
# Kafka's own default for one batch of records. Below it, clients' ordinary batches would be refused.
BATCH_BYTES = 1_048_588


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic must be. `shared` is set where the partition count is a contract with other topics."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    shared: bool = False


@dataclass(frozen=True, slots=True)
class TopicReport:
    """Topics that were created, and that were there; problems and warnings are sentences, none when all is well."""

    created: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the cluster has it; `partitions` 0 means that it does not exist. A warning is no refusal."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    problem: str = ""
    warning: str = ""


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """All topics, in the order of the design. Pure."""
    names, tasks = settings.topics, settings.tasks
    many, one = settings.partitions, 1
    inputs = max(BATCH_BYTES, settings.max_message_bytes + 4_096)
    plan: list[tuple[str, int, bool, dict[str, str]]] = [
        *((name, many, True, _kept(30, inputs)) for name in names.inputs),
        (names.labels, many, False, _kept(90)),
        # One partition: the order of the records is the order of the catalogue's rows.
        *((name, one, True, _compacted()) for name in (names.items, names.ads, names.vectors)),
        *((names.scores(task), many, True, _kept(7)) for task in tasks),
        (names.alerts, many, False, _kept(90)),
        # As long as a label may take to arrive.
        *((names.served(task), many, False, _kept(90)) for task in tasks),
        (names.entity_events, many, True, _compacted()),
        (names.entity_state, many, False, _compacted()),
        (names.examples, many, False, _kept(365)),
        (names.shadow, many, False, _kept(90)),
        (names.releases, one, True, _compacted()),
        (names.learning, one, True, _compacted()),
        (names.policies, one, True, _compacted()),
        (names.lists, one, True, _compacted()),
        (names.state, many, True, _compacted() | STATE),
        (names.label_state, many, True, _compacted() | STATE),
        (names.deadletters, many, False, _kept(30, 2 * inputs) | DEADLETTERS),
        (names.audit, one, True, {"retention.ms": "-1"}),
        (names.forgotten, one, True, _compacted()),
        (names.notes, one, True, _compacted()),
        (names.webhooks_failed, many, False, _kept(30)),
    ]
    common = COMMON | {"min.insync.replicas": "2" if settings.replication > 2 else "1"}
    specs = [
        TopicSpec(name, partitions, settings.replication, common | config, shared)
        for name, partitions, shared, config in plan
    ]
    return _with_retention(specs, settings) if settings.retention_days else specs


def _with_retention(specs: list[TopicSpec], settings: Settings) -> list[TopicSpec]:
    """With `retention_days`. SettingsError where it names what is no topic, or one that is not kept by time."""
    topics = settings.topics
    named = topics.model_dump() | {
        f"{kind}_{task}": topic
        for task in settings.tasks
        for kind, topic in (("scores", topics.scores(task)), ("served", topics.served(task)))
    }
    by_time = {name for name, topic in named.items() if topic != topics.audit and topic in _by_time(specs)}
    days = dict[str, float]()
    for name, value in settings.retention_days.items():
        if name not in by_time:
            why = "is kept for ever or compacted" if name in named else "is not a topic"
            raise SettingsError(
                f"{name} {why}", where=f"retention_days.{name}", expected=f"one of {', '.join(sorted(by_time))}"
            )
        days[named[name]] = value
    return [
        replace(spec, config={**spec.config, "retention.ms": str(round(days[spec.name] * DAY_MS))})
        if spec.name in days
        else spec
        for spec in specs
    ]


def _by_time(specs: list[TopicSpec]) -> set[str]:
    return {spec.name for spec in specs if spec.config.get("cleanup.policy") == "delete"}


# Retention and deadlines run from the broker's clock: an order of 2011 must not be deleted as it arrives.
TIMESTAMP_TYPE, BROKERS_CLOCK = "message.timestamp.type", "LogAppendTime"
COMMON = {TIMESTAMP_TYPE: BROKERS_CLOCK}
# Recovery reads this log whole: small segments and an eager cleaner keep it near one row a user.
STATE = {"segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.2"}
# A flood of bad input must not fill the disk: the oldest go, per partition.
DEADLETTERS = {"retention.bytes": str(1 << 30), "segment.bytes": str(128 << 20)}


def _kept(days: int, message_bytes: int = 0) -> dict[str, str]:
    config = {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS)}
    return config | ({"max.message.bytes": str(message_bytes)} if message_bytes else {})


def _compacted() -> dict[str, str]:
    return {"cleanup.policy": "compact"}


def create_topics(settings: Settings) -> TopicReport:
    """Creates what is missing and waits until it can be used. Raises BrokerUnavailable, SettingsError.

    Safe to run again, and by several processes at once.
    """
    specs = topic_specs(settings)
    with _admin(settings) as admin:
        missing = [state.name for state in _states(admin, specs) if not state.partitions]
        if missing:
            _create(admin, [spec for spec in specs if spec.name in missing])
        states = _states(admin, specs)
    return TopicReport(
        created=missing,
        present=[state.name for state in states if state.name not in missing],
        problems=[state.problem for state in states if state.problem],
        warnings=[warning] if (warning := clock_warning({state.name: state.config for state in states})) else [],
    )


def list_topics(settings: Settings) -> list[TopicState]:
    """Every topic of the settings as the cluster has it. Raises BrokerUnavailable, SettingsError."""
    with _admin(settings) as admin:
        return _states(admin, topic_specs(settings))


def require_topics(settings: Settings) -> None:
    """Raises SettingsError unless every topic exists with the partitions it must have.

    Faust passes over an input topic that does not exist, so a worker asks here before it starts.
    """
    bad = [state.problem for state in list_topics(settings) if state.problem]
    if bad:
        raise SettingsError(
            "; ".join(bad[:3]) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else ""),
            where=settings.brokers,
            expected="the topics of the settings",
            todo="run `headrace topics create`, or correct the settings",
        )


@contextmanager
def _admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client; Kafka's errors leave it as ours."""
    if not any(accepts(address) for address in settings.brokers.split(",")):
        raise BrokerUnavailable("no broker listens", where=settings.brokers, todo=NO_BROKER)
    try:
        client = KafkaAdminClient(**settings.kafka_python(), bootstrap_timeout_ms=10_000, client_id=settings.app_id)
        try:
            yield client
        finally:
            client.close()
    except KafkaError as error:
        if getattr(error, "retriable", False):
            raise BrokerUnavailable(f"no broker answered: {error}", where=settings.brokers, todo=NO_BROKER) from error
        raise SettingsError(f"the broker refused: {error}", where=settings.brokers) from error


def _create(admin: KafkaAdminClient, specs: list[TopicSpec]) -> None:
    request = {
        spec.name: {
            "num_partitions": spec.partitions,
            "replication_factor": spec.replication,
            "configs": dict(spec.config),
        }
        for spec in specs
    }
    reply = admin.create_topics(request, raise_errors=False)
    for topic in reply["topics"]:
        if topic["error_code"] not in (0, TopicAlreadyExistsError.errno):
            raise SettingsError(
                f"topic {topic['name']} could not be created: {topic['error_message']}",
                expected="partitions, replication and limits that the cluster allows",
            )
    admin.wait_for_topics(list(request))


def _states(admin: KafkaAdminClient, specs: list[TopicSpec]) -> list[TopicState]:
    described = {topic["name"]: topic for topic in admin.describe_topics([spec.name for spec in specs])}
    there = [name for name, topic in described.items() if not topic["error_code"]]
    configs = admin.describe_configs([ConfigResource("TOPIC", name) for name in there]) if there else {}
    return [_state(spec, described[spec.name], configs.get("topic", {}).get(spec.name, {})) for spec in specs]


def _state(spec: TopicSpec, topic: Mapping[str, Any], config: Mapping[str, Mapping[str, str]]) -> TopicState:
    partitions: list[Mapping[str, list[int]]] = topic["partitions"]
    state = TopicState(
        spec.name,
        len(partitions),
        len(partitions[0]["replica_nodes"]) if partitions else 0,
        {key: entry["value"] for key, entry in config.items()},
    )
    return replace(state, problem=_problem(spec, state), warning=clock_warning({spec.name: state.config}))


def _problem(spec: TopicSpec, state: TopicState) -> str:
    """What would go wrong on this topic as it is, in words; empty if nothing would."""
    if not state.partitions:
        return f"topic {spec.name} does not exist"
    if spec.shared and state.partitions != spec.partitions:
        return f"topic {spec.name} has {state.partitions} partitions and must have {spec.partitions}"
    wanted = spec.config.get("cleanup.policy")
    if wanted == "compact" and "compact" not in state.config.get("cleanup.policy", "delete"):
        return f"topic {spec.name} deletes old records and must be compacted (cleanup.policy=compact)"
    return ""


def clock_warning(configs: Mapping[str, Mapping[str, str]]) -> str:
    """What a clock other than the broker's means on these topics, in words; empty if all have the broker's.

    `configs`: by topic. One that was not told (no right to ask, a topic that is not there) is passed over. It is
    no refusal: with producers whose clocks are right, all works.
    """
    found = {name: config.get(TIMESTAMP_TYPE, BROKERS_CLOCK) for name, config in configs.items()}
    other = {name: kind for name, kind in found.items() if kind != BROKERS_CLOCK}
    if not other:
        return ""
    topics = "topic" if len(other) == 1 else "topics"
    return (
        f"{topics} {', '.join(other)}: {TIMESTAMP_TYPE} is {', '.join(sorted(set(other.values())))}, expected "
        f"{BROKERS_CLOCK}; deadlines, lateness, queue times and retention run from the producers' clocks; "
        f"set it with `kafka-configs.sh --alter --entity-type topics --entity-name {next(iter(other))} "
        f"--add-config {TIMESTAMP_TYPE}={BROKERS_CLOCK}`, or see to it that the producers' clocks are right"
    )
