"""Checks of brokers and registry: do they answer, whom do they let in, what are the topics, what do clocks say."""

import time
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime

import httpx
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from streams import rights as rights_of
from streams.clients import require_broker
from streams.config import Settings
from streams.doctor.finding import Finding, State
from streams.ports import accepts
from streams.security import reveal
from streams.topics import list_topics, topic_specs

ANSWER_S = 10.0
# Deadlines are fractions of a second; a second of difference makes events late that are not.
CLOCK_S, CLOCK_WRONG_S = 0.5, 5.0


def broker(settings: Settings) -> Iterator[Finding]:
    silent = [address for address in settings.brokers.split(",") if not accepts(address)]
    require_broker(settings)
    for address in silent:
        yield Finding("broker", "warning", f"{address} does not listen, others do", "start it, or correct brokers")
    try:
        found = AdminClient({**settings.librdkafka(), "log_level": 0}).list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        said = f"something listens at {settings.brokers}, but does not answer as Kafka: {error.args[0].str()}"
        yield Finding("broker", "problem", said, "look at security.protocol and at the broker's log")
        return
    for node in found.brokers.values():
        if not accepts(f"{node.host}:{node.port}"):
            said = (
                f"broker {node.id} tells clients to come to {node.host}:{node.port}, which cannot be reached from here"
            )
            yield Finding("broker", "problem", said, "correct the broker's advertised.listeners")
    if len(found.brokers) < settings.replication:
        said = f"replication is {settings.replication}, and there are {len(found.brokers)} brokers"
        yield Finding("broker", "problem", said, "set HEADRACE_REPLICATION, or start more brokers")
    elif settings.replication < 3 <= len(found.brokers):
        said = f"{len(found.brokers)} brokers, and topics would be made with {settings.replication} replicas"
        yield Finding("broker", "warning", said, "HEADRACE_REPLICATION=3 for what must not be lost")
    yield Finding("broker", "well", f"{len(found.brokers)} brokers answer")


def registry(settings: Settings) -> Iterator[Finding]:
    answer = registry_page(settings, "subjects")
    if isinstance(answer, str):
        yield Finding("registry", "problem", f"{settings.registry_url} {answer}", "start it, or correct registry_url")
    elif answer.status_code != 200:
        todo = {401: "check registry_security", 403: "check registry_security"}
        said = f"{settings.registry_url} answers {answer.status_code}"
        yield Finding("registry", "problem", said, todo.get(answer.status_code, "the URL's path is probably another"))
    else:
        yield Finding("registry", "well", f"{len(answer.json())} subjects")
        yield from _clock("the registry's", _date(answer))


def registry_page(settings: Settings, page: str) -> "httpx.Response | str":
    """The answer, or why there is none."""
    security = settings.registry_security
    login = (security.username, reveal(security.password) or "") if security.username is not None else None
    verify = security.context() if settings.registry_url.startswith("https") else True
    try:
        return httpx.get(f"{settings.registry_url}/{page}", auth=login, verify=verify, timeout=ANSWER_S)
    except httpx.HTTPError as error:
        return f"does not answer: {error or type(error).__name__}"


def _date(answer: httpx.Response) -> float | None:
    said = answer.headers.get("date")
    return parsedate_to_datetime(said).timestamp() + 0.5 if said else None  # whole seconds, cut


def clocks(settings: Settings) -> Iterator[Finding]:
    """The controller says when its voters were last heard: the leader itself, now."""
    try:
        client = KafkaAdminClient(**settings.kafka_python(), client_id=f"{settings.app_id}-doctor")
    except KafkaError as error:
        yield Finding("clocks", "skipped", f"the brokers' clock is not known: {error}")
        return
    try:
        [quorum] = client.describe_metadata_quorum()["topics"][0]["partitions"]
    except (KafkaError, KeyError, IndexError, ValueError) as error:
        yield Finding("clocks", "skipped", f"the brokers' clock is not told: {error or type(error).__name__}")
        return
    finally:
        client.close()
    newest = max(voter["last_caught_up_timestamp"] for voter in quorum["current_voters"])
    yield from _clock("the controller's", newest / 1000 if newest > 0 else None)


def _clock(whose: str, then: float | None) -> Iterator[Finding]:
    if then is None:
        return
    ahead = time.time() - then
    if abs(ahead) <= CLOCK_S + 0.5:  # and what an answer takes
        yield Finding("clocks", "well", f"{whose} clock and ours are the same")
        return
    said = f"our clock is {timedelta(seconds=round(abs(ahead)))} {'ahead of' if ahead > 0 else 'behind'} {whose}"
    state: State = "problem" if abs(ahead) > CLOCK_WRONG_S else "warning"
    yield Finding("clocks", state, said, "run NTP on both: lateness and deadlines compare the two")


def topics(settings: Settings) -> Iterator[Finding]:
    """What `topics create` would say, and what it would not: replicas and how large a message may be."""
    wanted = {spec.name: spec for spec in topic_specs(settings)}
    wrong = 0
    for state in list_topics(settings):
        spec = wanted[state.name]
        if state.problem:
            wrong += 1
            todo = "run `headrace topics create`" if not state.partitions else "correct the setting, or make it anew"
            yield Finding("topics", "problem", state.problem, todo)
            continue
        if state.warning:
            yield Finding("topics", "warning", state.warning.partition(";")[0], "see docs/operate.md, Topics")
        if state.replication < spec.replication:
            said = f"topic {state.name} has {state.replication} replicas, and the settings ask for {spec.replication}"
            yield Finding("topics", "warning", said, "kafka-reassign-partitions.sh adds replicas")
        safe = int(state.config.get("min.insync.replicas", "1"))
        if safe > state.replication:
            wrong += 1
            said = f"topic {state.name} asks for {safe} replicas in sync and has {state.replication}: every write fails"
            yield Finding("topics", "problem", said, "set min.insync.replicas lower, or add replicas")
        largest, needed = (int(each.get("max.message.bytes", 0)) for each in (state.config, spec.config))
        if 0 < largest < needed:
            said = f"topic {state.name} takes messages up to {largest:,} bytes, and {needed:,} can come"
            yield Finding("topics", "warning", said, "set max.message.bytes on the topic, or max_message_bytes lower")
    if not wrong:
        yield Finding("topics", "well", f"{len(wanted)} topics are as they must be")


def rights(settings: Settings) -> Iterator[Finding]:
    """What this user may do, as the broker says it, against what a worker must."""
    needed: dict[str, set[str]] = {}
    for right in rights_of.worker(settings):
        if right.kind == "topic":
            needed.setdefault(right.name, set()).add(right.operation)
    client = AdminClient({**settings.librdkafka(), "log_level": 0})
    asked = client.describe_topics(TopicCollection(sorted(needed)), include_authorized_operations=True)
    lacking = []
    for name, future in asked.items():
        try:
            allowed = {AclOperation(each).name for each in future.result(ANSWER_S).authorized_operations or []}
        except KafkaException:
            allowed = set()  # what may not be described is told as if it were not there
        if missing := sorted(needed[name] - allowed):
            lacking.append(f"{' and '.join(missing)} on {name}")
    if lacking:
        more = f", and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        who = settings.security.username or "this user"
        said = f"{who} may not {'; '.join(lacking[:5])}{more}"
        yield Finding("rights", "problem", said, "`headrace rights worker --principal User:NAME` prints what to run")
    else:
        yield Finding("rights", "well", "a worker may do what it must on every topic")
