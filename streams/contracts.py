"""Which contract each topic carries, and which topics a client may write.
A topic may be named by its Kafka name or by its setting: `events.clicks` or `clicks`."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from schemas.errors import SettingsError
from streams.config import Settings
from streams.tasks import TASKS, make_task
from streams.tenants import begins

# Setting of the topic -> contract. `state` is ours alone, packed and no Avro.
CONTRACTS = {
    "clicks": "click",
    "orders": "order",
    "impressions": "ad_impression",
    "labels": "label",
    "items": "catalog_item",
    "ads": "catalog_ad",
    "vectors": "catalog_vector",
    "scores_fraud": "fraud_score",
    "scores_recommendations": "recommendation_score",
    "scores_ctr": "ctr_score",
    "alerts": "fraud_alert",
    "served_fraud": "served",
    "served_recommendations": "served",
    "served_ctr": "served",
    "entity_events": "entity_touch",
    "entity_state": "entity_state",
    "examples": "training_example",
    "releases": "model_release",
    "policies": "policy",
    "lists": "list_entry",
    "deadletters": "dead_letter",
    "audit": "audit_entry",
    "forgotten": "forgotten",
    "notes": "case_note",
    "webhooks_failed": "webhook_failure",
}
# What a shop writes -> the field that is the message's key.
KEYS = {
    "clicks": "user_id",
    "orders": "user_id",
    "impressions": "user_id",
    "labels": "target_id",
    "items": "item_id",
    "ads": "ad_id",
}


@dataclass(frozen=True, slots=True)
class TopicContract:
    """`setting` and `contract` are empty where it is not ours; `contract` too where values are no Avro, `key_field`
    where no client writes."""

    setting: str
    name: str
    contract: str
    key_field: str


def topic_contract(settings: Settings, topic: str) -> TopicContract:
    """SettingsError, with the nearest name, where `topic` is none of the settings' topics and of no task."""
    by_name = _by_name(settings)
    if (own := begins(settings.tenant) + topic) in by_name:  # a shop need not say its own name
        topic = own
    for task in TASKS:
        if topic in (settings.topics.scores(task), settings.topics.served(task)) and topic not in by_name:
            served = topic == settings.topics.served(task)
            return TopicContract("", topic, "served" if served else make_task(task).schema, "")
    setting = by_name.get(topic, topic)
    if setting not in by_name.values():
        raise unknown_topic(topic, list(by_name), {setting: name for name, setting in by_name.items()})
    name: str = getattr(settings.topics, setting)
    return TopicContract(setting, name, CONTRACTS.get(setting, ""), KEYS.get(setting, ""))


def readable(settings: Settings, topic: str, there: Collection[str]) -> TopicContract:
    """As `topic_contract`; also a topic of anybody's that is `there`, on the broker: it has no contract here."""
    try:
        return topic_contract(settings, topic)
    except SettingsError:
        if topic not in there:
            raise unknown_topic(topic, [*_by_name(settings), *there]) from None
        return TopicContract("", topic, "", "")


def writable(settings: Settings, topic: str) -> TopicContract:
    """As `topic_contract`; SettingsError too where a client has no business to write."""
    found = topic_contract(settings, topic)
    if not found.key_field:
        names = ", ".join(str(getattr(settings.topics, setting)) for setting in KEYS)
        raise SettingsError(f"{found.name} is written by Headrace itself", expected=f"one of {names}")
    return found


def _by_name(settings: Settings) -> dict[str, str]:
    return {name: setting for setting, name in settings.topics.model_dump().items()}


def unknown_topic(topic: str, known: list[str], by_setting: Mapping[str, str] | None = None) -> SettingsError:
    """With the nearest name; `by_setting`: what is meant where a setting is nearest."""
    also = by_setting or {}
    near = difflib.get_close_matches(topic, [*known, *also], n=1, cutoff=0.4)
    return SettingsError(
        f"{topic} is not a topic of the settings",
        expected=f"{also.get(near[0], near[0])}, as the nearest name" if near else f"one of {', '.join(known)}",
        todo="`headrace topics list` lists them",
    )
