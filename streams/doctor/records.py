"""Checks of what producers have sent: is each user on the partition where a worker looks, and are contracts kept?
Of the newest records only; a producer that was mended a minute ago still shows.
"""

import json
from collections.abc import Iterator

import httpx

from schemas import catalog
from schemas.compatibility import check
from schemas.errors import SchemaError
from schemas.registry import subject_of
from streams.config import Settings
from streams.contracts import topic_contract
from streams.doctor.cluster import registry_page
from streams.doctor.finding import Finding
from streams.offsets import bounds, places, read_range
from streams.partitioning import partition_for

NEWEST = 100
"""Records of each partition that are looked at."""


def partitioner(settings: Settings) -> Iterator[Finding]:
    """A few on another partition come from a client that was since mended; most come from one that is not."""
    for topic in settings.topics.inputs:
        seen, elsewhere, keyless = _counted(settings, topic)
        said = f"{elsewhere} of the newest {seen} records of {topic} are on another partition than their user's"
        if keyless:
            says = f"{keyless} of the newest {seen} records of {topic} have no key"
            yield Finding("partitioner", "problem", says, "the key is the user_id in UTF-8; see docs/clients")
        if elsewhere:
            todo = "partition by murmur2 (librdkafka: partitioner=murmur2_random), and look at `partitions`"
            yield Finding("partitioner", "problem" if elsewhere > seen // 10 else "warning", said, todo)
        elif seen and not keyless:
            yield Finding("partitioner", "well", f"the newest {seen} records of {topic} are where they belong")
        elif not seen:
            yield Finding("partitioner", "skipped", f"{topic} is empty")


def _counted(settings: Settings, topic: str) -> tuple[int, int, int]:
    """Records looked at; of these on another partition than the key's; of these without a key."""
    seen = elsewhere = keyless = 0
    held = bounds(settings, places(settings, topic))
    for (_, partition), (low, high) in held.items():
        for messages in read_range(settings, topic, partition, max(low, high - NEWEST), high):
            for message in messages:
                key = message.key()
                seen += 1
                keyless += not key
                elsewhere += bool(key) and partition_for(key, len(held)) != partition
    return seen, elsewhere, keyless


def contracts(settings: Settings) -> Iterator[Finding]:
    """Can we read what is registered for the topics that the shop writes? A subject that is not there yet is well."""
    topics = settings.topics
    for topic in (*topics.inputs, topics.labels, topics.items, topics.ads):
        subject = subject_of(topic)
        answer = registry_page(settings, f"subjects/{subject}/versions/latest")
        if isinstance(answer, str) or answer.status_code == 404:
            continue
        problems = _unreadable(answer, topic_contract(settings, topic).contract)
        if problems:
            said = f"what is registered as {subject} cannot be read: {problems[0]}"
            yield Finding("contracts", "problem", said, "compare it with the file in schemas/avro; see docs/operate.md")
        else:
            yield Finding("contracts", "well", f"{subject} can be read")


def _unreadable(answer: httpx.Response, contract: str) -> list[str]:
    try:
        theirs = answer.json()["schema"]
        problems = check(json.loads(theirs), catalog.load(contract))
    except (SchemaError, KeyError, ValueError) as error:
        return [str(error)]
    return [problem for problem in problems if problem.startswith("the new schema")]
