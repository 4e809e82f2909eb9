"""The least that each role must be allowed on the brokers, from the settings' names. Pure: it asks no broker.
Who runs `topics create`, or a demo, needs more; that is done by a person with a person's rights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from schemas.errors import SettingsError
from streams.config import Settings
from streams.tenants import begins

Kind = Literal["topic", "group", "transactional-id"]
DESCRIBES = ("READ", "WRITE")
"""Kafka lets whoever may read or write a thing also describe it."""


@dataclass(frozen=True, slots=True)
class Right:
    """`operation` on one thing by name, or with `prefix` on all whose names begin so."""

    kind: Kind
    name: str
    operation: str
    prefix: bool = False


def worker(settings: Settings) -> Iterator[Right]:
    topics, tasks = settings.topics, settings.tasks
    scores = [topics.scores(task) for task in tasks]
    # Misplaced events are sent on; recovery reads what was said.
    both = (*topics.inputs, *scores, topics.entity_events, topics.entity_state, topics.state)
    reads = (topics.items, topics.ads, topics.vectors, topics.releases, topics.policies, topics.lists)
    writes = (*(topics.served(task) for task in tasks), topics.alerts, topics.shadow, topics.deadletters)
    yield from _on((*both, *reads), "READ")
    yield from _on((*both, *writes), "WRITE")
    # Forgetting a person: what the ledger says is read, that it was done is written.
    yield from _on((topics.forgotten,), "READ", "WRITE")
    # What the clock of a topic is, is its configuration.
    yield from _on(topics.inputs, "DESCRIBE_CONFIGS")
    yield from _joins(settings.app_id, f"{settings.app_id}-reader")
    yield from _transacts(f"{settings.app_id}-state-")
    if settings.delivery == "exactly_once":
        yield from _transacts(f"{settings.app_id}-scores-")


def learner(settings: Settings) -> Iterator[Right]:
    topics, tasks = settings.topics, settings.tasks
    both = (topics.labels, topics.label_state, topics.examples, topics.releases, topics.learning, topics.forgotten)
    reads = (*topics.inputs, topics.items, topics.ads, topics.vectors, topics.shadow)
    kept = [topic for task in tasks for topic in (topics.scores(task), topics.served(task))]
    yield from _on((*both, *reads, *kept), "READ")
    yield from _on(both, "WRITE")
    yield from _joins(f"{settings.app_id}-reader")
    yield from _transacts(f"{settings.app_id}-labels-", f"{settings.app_id}-releases")


def publisher(settings: Settings) -> Iterator[Right]:
    """The shop: events, labels and the catalogue, and nothing else."""
    topics = settings.topics
    yield from _on((*topics.inputs, topics.labels, topics.items, topics.ads), "WRITE")


def consumer(settings: Settings) -> Iterator[Right]:
    """Services that read scores and alerts, in groups whose names begin with the app's, `-consumer-`."""
    topics = settings.topics
    yield from _on((*(topics.scores(task) for task in settings.tasks), topics.alerts), "READ")
    yield Right("group", f"{settings.app_id}-consumer-", "READ", prefix=True)


def webhooks(settings: Settings) -> Iterator[Right]:
    yield from _on((settings.topics.alerts, settings.topics.webhooks_failed), "READ")
    yield from _on((settings.topics.webhooks_failed,), "WRITE")
    yield from _joins(f"{settings.app_id}-reader")
    yield Right("group", f"{settings.app_id}-webhooks-", "READ", prefix=True)


def tenant(settings: Settings) -> Iterator[Right]:
    """All of one shop, for who sets it up: its processes need the rights of their roles only. SettingsError without."""
    if not settings.tenant:
        raise SettingsError(
            "no tenant is set", where="tenant", todo="say which one: headrace --tenant NAME rights tenant"
        )
    begin = begins(settings.tenant)
    yield from (Right("topic", begin, what, True) for what in ("READ", "WRITE", "CREATE", "DESCRIBE_CONFIGS"))
    yield Right("group", begin, "READ", True)
    yield Right("transactional-id", begin, "WRITE", True)


ROLES: dict[str, Callable[[Settings], Iterator[Right]]] = {
    "worker": worker,
    "learner": learner,
    "publisher": publisher,
    "consumer": consumer,
    "webhooks": webhooks,
    "tenant": tenant,
}


def commands(settings: Settings, role: str, principal: str) -> Iterator[str]:
    """Kafka's own command for each right, as one that administers the cluster runs it."""
    for right in ROLES[role](settings):
        pattern = " --resource-pattern-type prefixed" if right.prefix else ""
        yield (
            f"kafka-acls.sh --bootstrap-server {settings.brokers} --add --allow-principal {principal}"
            f" --operation {right.operation} --{right.kind} '{right.name}'{pattern}"
        )


def _on(topics: tuple[str, ...], *operations: str) -> Iterator[Right]:
    for operation in operations:
        for topic in topics:
            yield Right("topic", topic, operation)


def _joins(*groups: str) -> Iterator[Right]:
    yield from (Right("group", group, "READ") for group in groups)


def _transacts(*prefixes: str) -> Iterator[Right]:
    for prefix in prefixes:
        yield Right("transactional-id", prefix, "WRITE", prefix=True)
