"""The sections of the settings, each a group of values that belong together; `config` puts them into one object."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from streams.security import Section

#: The tasks' own, in seconds of event time.
WINDOWS_S = {"fraud": 28 * 86_400, "recommendations": 6 * 3_600, "ctr": 30 * 60}


def _all_windows(value: Any) -> Any:
    return {**WINDOWS_S, **value} if isinstance(value, Mapping) else value


def comma_list(value: Any) -> Any:
    """The environment has no lists: `a,b` is one."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def matching(pattern: str, words: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(words)
        return value

    return AfterValidator(check)


def _ascending(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or list(value) != sorted(set(value)):
        raise ValueError("at least one size, and sizes that rise")
    return value


Positive = Annotated[int, Field(ge=1)]
TopicName = Annotated[str, matching(r"[A-Za-z0-9._-]{1,249}", "up to 249 letters, digits, dots, dashes or underscores")]
Name = Annotated[str, matching(r"[a-z][a-z0-9_]{0,62}", "a name of lower-case letters, digits and underscores")]
Backend = Annotated[str, matching(r"[a-z][a-z0-9_]{0,62}(:[A-Za-z0-9.:_-]{1,250})?", "a name, or name:address")]


Personal = Literal[
    "payment.instrument", "device_id", "device", "billing_address", "shipping_address", "email", "ip", "session_id",
    "query", "user_id",
]  # fmt: skip


def _personal(name: str) -> str:
    known = get_args(Personal)
    if name not in known and not (name.startswith("attributes.") and name != "attributes."):
        raise ValueError(f"{', '.join(known)} or attributes.NAME")
    return name


PersonalField = Annotated[str, AfterValidator(_personal)]


class Topics(Section):
    """Names of the topics. Records are Avro; keys are UTF-8, partitioned by murmur2."""

    clicks: TopicName = "events.clicks"
    orders: TopicName = "events.orders"
    impressions: TopicName = "events.impressions"
    labels: TopicName = "events.labels"
    items: TopicName = "catalog.items"
    ads: TopicName = "catalog.ads"
    vectors: TopicName = "catalog.vectors"
    scores_fraud: TopicName = "scores.fraud"
    scores_recommendations: TopicName = "scores.recommendations"
    scores_ctr: TopicName = "scores.ctr"
    alerts: TopicName = "alerts.fraud"
    served_fraud: TopicName = "served.fraud"
    served_recommendations: TopicName = "served.recommendations"
    served_ctr: TopicName = "served.ctr"
    entity_events: TopicName = "entities.events"
    entity_state: TopicName = "entities.state"
    examples: TopicName = "training.examples"
    shadow: TopicName = "scores.shadow"
    releases: TopicName = "models.releases"
    learning: TopicName = "models.learning"
    policies: TopicName = "policies"
    lists: TopicName = "policies.lists"
    state: TopicName = "state.users"
    label_state: TopicName = "state.labels"
    deadletters: TopicName = "deadletters"
    audit: TopicName = "audit.log"
    forgotten: TopicName = "privacy.forgotten"
    webhooks_failed: TopicName = "webhooks.failed"
    notes: TopicName = "console.notes"

    @property
    def inputs(self) -> tuple[str, str, str]:
        """The event topics in their fixed order: clicks, orders, impressions."""
        return self.clicks, self.orders, self.impressions

    def scores(self, task: str) -> str:
        """A task's score topic; a task of your own has `scores.<task>`."""
        return str(getattr(self, f"scores_{task}", f"scores.{task}"))

    def served(self, task: str) -> str:
        return str(getattr(self, f"served_{task}", f"served.{task}"))

    @model_validator(mode="after")
    def _one_purpose_each(self) -> Self:
        users: dict[str, str] = {}
        for setting in type(self).model_fields:
            name = getattr(self, setting)
            if name in users:
                raise ValueError(f"another name for {setting}: {users[name]} is {name!r} already")
            users[name] = setting
        return self


class Batch(Section):
    """The micro-batch: it closes at `max_events` or `max_wait_ms` after its first event."""

    max_events: int = Field(default=512, ge=1, le=65_536)
    max_wait_ms: float = Field(default=4, ge=0, le=10_000)
    min_fetch_interval_ms: float = Field(
        default=2, ge=0, le=10_000, description="fewer fetches, less CPU, more latency"
    )
    in_flight: int = Field(default=16, ge=1, le=64, description="batches sent and not yet acknowledged")


class EngineSettings(Section):
    """What runs the models."""

    backend: Backend = Field(default="openvino", description="a name of engines.BACKENDS, or name:address")
    precision: Literal["int8", "bf16", "f32"] = Field(
        default="bf16", description="the fastest to serve in; what its certificate refuses runs in the next safer one"
    )
    threads: int = Field(default=1, ge=1, le=256)
    buckets: Annotated[
        tuple[Positive, ...],
        NoDecode,
        BeforeValidator(comma_list),
        AfterValidator(_ascending),
    ] = (1, 2, 4, 8, 16, 32, 64)


class StateSettings(Section):
    """User state: `slots` users in memory, all of them in RocksDB, durable in the changelog."""

    slots: int = Field(default=65_536, ge=1, le=16_777_216)
    flush_interval_s: float = Field(default=2, gt=0, le=600)
    dedupe_per_user: int = Field(default=20_000, ge=64, description="event ids remembered of one heavy user")


class Swap(Section):
    """How a worker takes a new release over, and what it goes on comparing it with."""

    shadow_events: int = Field(
        default=200, ge=0, le=1_000_000, description="events that a release shadows before it serves"
    )
    shadow_wait_s: float = Field(default=10, ge=0, le=86_400, description="in a quiet shop it serves after this time")
    canary_share: float = Field(default=0, ge=0, lt=1, description="of users, whom a release serves before the others")
    canary_s: float = Field(default=600, ge=0, le=604_800, description="for how long")
    sample: float = Field(default=0.2, ge=0, le=1, description="share of events that the release before is asked too")
    watch_s: float = Field(default=86_400, ge=0, description="for how long the release before is asked too")
    stagger_s: float = Field(default=5, ge=0, le=3_600, description="workers swap over this time, one after another")


class LearningSettings(Section):
    """When the learner fine-tunes, from how many examples, and what the process may take."""

    examples: Positive = Field(default=5_000, description="new examples that trigger a fine-tune")
    positives: Positive = Field(default=50, description="of these, positives at least")
    most_examples: Positive = Field(
        default=50_000, description="of one fine-tune, the oldest first; its gate's window in proportion"
    )
    interval_s: float = Field(default=600, ge=0, description="between the beginnings of two fine-tunes of a task")
    every_s: float = Field(default=7 * 86_400, gt=0, description="event time after which fewer examples will do")
    drift: bool = Field(default=True, description="whether drift lets fewer examples do")
    window: float = Field(default=0.25, gt=0, lt=1, description="newest share of the examples, for the gate alone")
    mode: Literal["full", "lora", "head"] = "lora"
    reservoir: Positive = Field(default=50_000, description="examples kept for replay, by task")
    automated_weight: float = Field(
        default=0.05, gt=0, le=1, description="of a CTR label whose clicks look automated; 1: no discount"
    )
    threads: int = Field(default=1, ge=1, le=256)
    memory_mb: int = Field(default=3_000, ge=500)
    niceness: int = Field(default=10, ge=0, le=19)
    curves: bool = Field(default=False, description="of fine-tunes, for TensorBoard; needs the extra `curves`")
    gate_labels: Positive = Field(default=1_000, description="labels in the gate's window, at least")
    gate_positives: Positive = Field(default=100, description="of these, positives at least")
    windows_s: Annotated[dict[Name, Positive], BeforeValidator(_all_windows)] = WINDOWS_S


class Web(Section):
    """Metrics and health. Other machines see it only if `host` says so."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=6066, ge=0, le=65_535, description="0: any free one")


class Ask(Section):
    """Scores by request, on the web server of `web`."""

    enabled: bool = Field(default=True, description="whether requests for scores are answered")
    without_token: bool = Field(default=False, description="whether programs of this machine need no token")
    key: SecretStr | None = Field(default=None, description="of all workers: they know each other and their answers")
    url: str = Field(default="", description="where other workers reach this one; empty: where it listens")
    deadline_ms: int = Field(default=250, ge=1, le=60_000, description="then the fallback answers")
    max_in_flight: int = Field(default=256, ge=1, le=65_536, description="requests that wait, at most")


class ConsoleSettings(Section):
    """The pages for people, and what they look at."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=6070, ge=0, le=65_535, description="0: any free one")
    workers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_list)] = ("127.0.0.1:6066",)
    """Where workers say their metrics, host:port."""
    learners: Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_list)] = ("127.0.0.1:6067",)
    retention_days: int = Field(default=90, ge=1, le=3_650, description="alerts are kept in the console's store")
    four_eyes: bool = Field(default=False, description="a verdict counts when two analysts agree on it")


def _endpoint_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # urlsplit reads the port only when asked for it
        usable = False
    if not usable or parts.username is not None or parts.fragment:
        raise ValueError("an address like https://host/path, without a user's name in it")
    return value


SecretSource = Annotated[
    str, matching(r"env:(?!HEADRACE_)[A-Za-z_][A-Za-z0-9_]*|file:.+",
                  "env:NAME, of a variable that does not begin with HEADRACE_, or file:PATH")
]  # fmt: skip


class Endpoint(Section):
    """Where fraud alerts are posted to."""

    name: Name
    url: Annotated[str, AfterValidator(_endpoint_url)]
    secrets: tuple[SecretSource, ...] = Field(min_length=1, description="each signs; two while one replaces the other")
    decisions: tuple[Literal["approve", "review", "block"], ...] = Field(default=("review", "block"), min_length=1)
    min_expected_loss: float = Field(default=0, ge=0, description="in the policy's currency; unknown losses pass")

    @property
    def on_this_machine(self) -> bool:
        return urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")


class Webhooks(Section):
    """Fraud alerts to the shop's own services, by HTTP."""

    endpoints: tuple[Endpoint, ...] = ()
    allow_http: bool = Field(default=False, description="also to other machines; alerts then travel in the clear")
    timeout_s: float = Field(default=10, gt=0, le=300, description="of one attempt, whole")
    in_flight: int = Field(default=8, ge=1, le=1_000, description="attempts at once, of one endpoint")
    waiting: int = Field(default=1_000, ge=1, le=100_000, description="alerts of one endpoint held in memory")
    retry_for_s: float = Field(default=14_400, ge=0, le=7 * 86_400, description="then the alert is on webhooks.failed")
    retry_most_s: float = Field(default=300, ge=1, le=86_400, description="longest pause between two attempts")

    @model_validator(mode="after")
    def _endpoints_are_usable(self) -> Self:
        names = [each.name for each in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("each endpoint's name once")
        for each in self.endpoints:
            if each.url.startswith("http:") and not (each.on_this_machine or self.allow_http):
                raise ValueError(f"https for endpoint {each.name}, or allow_http")
        return self


class Privacy(Section):
    """Forgetting people: under which key they are known where their names must not be."""

    key: SecretStr | None = Field(default=None, description="64 hexadecimal digits, the same for all processes")
    key_file: Path | None = Field(default=None, description="where the key is, if it is not given; else in data_dir")
    scores_by_event: bool = Field(
        default=True, description="scores are keyed by event, not by user: so a person's can be deleted at once"
    )
    pseudonymise: Annotated[tuple[PersonalField, ...], NoDecode, BeforeValidator(comma_list)] = ()
    """Fields of events that are replaced by a keyed hash as they are read; dead letters are sealed then."""
    pseudonym_keys: SecretStr | None = Field(
        default=None, description="ID:KEY, the one that is used first; else one that is derived from the key"
    )


class Log(Section):
    """What a process says about itself, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = Field(
        default="auto", description="auto: human on a terminal, else JSON lines"
    )
