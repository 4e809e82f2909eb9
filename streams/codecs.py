"""The decoders and encoders that the scoring loop needs, made once from the registry.
Making them registers our contracts, so it needs the registry; afterwards known schemas need it no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.events import EVENT_TYPES
from streams.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Codecs:
    """Decoders by input topic index; encoders by task name and purpose."""

    inputs: tuple[Decoder, ...]
    said: Mapping[str, Decoder]
    scores: Mapping[str, Encoder]
    served: Mapping[str, Encoder]
    alert: Encoder
    dead_letter: Encoder
    touch: Encoder
    shadow: Encoder


@dataclass(frozen=True, slots=True)
class Names:
    """The topics that the loop reads and writes."""

    inputs: tuple[str, ...]
    scores: Mapping[str, str]
    served: Mapping[str, str]
    alerts: str
    dead_letters: str
    touches: str
    shadow: str


def make_names(settings: Settings, tasks: Sequence[Task]) -> Names:
    topics = settings.topics
    return Names(
        inputs=topics.inputs,
        scores={task.name: topics.scores(task.name) for task in tasks},
        served={task.name: topics.served(task.name) for task in tasks},
        alerts=topics.alerts,
        dead_letters=topics.deadletters,
        touches=topics.entity_events,
        shadow=topics.shadow,
    )


def make_codecs(registry: Registry, names: Names, tasks: Sequence[Task]) -> Codecs:
    """Raises RegistryUnavailable (retry), or SchemaError where the registry refuses a contract of ours."""
    return Codecs(
        inputs=tuple(Decoder(registry, kind.schema) for kind in EVENT_TYPES),
        said={task.name: Decoder(registry, task.schema) for task in tasks},
        scores={task.name: Encoder(registry, names.scores[task.name], task.schema) for task in tasks},
        served={task.name: Encoder(registry, names.served[task.name], "served") for task in tasks},
        alert=Encoder(registry, names.alerts, "fraud_alert"),
        dead_letter=Encoder(registry, names.dead_letters, "dead_letter"),
        touch=Encoder(registry, names.touches, "entity_touch"),
        shadow=Encoder(registry, names.shadow, "shadow_score"),
    )
