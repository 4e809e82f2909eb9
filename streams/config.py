"""The one settings object: from arguments, the environment (HEADRACE_*, nested by __) and a TOML file.
A value that cannot be used, or a name that is not a setting, is a SettingsError that says from where."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from schemas.errors import SettingsError
from streams.config_sources import Environment, File, config_path, explain, flatten, reading
from streams.security import RegistrySecurity, Section, Security

DEADLINES_MS = {"fraud": 1000, "recommendations": 500, "ctr": 200}


def _comma_list(value: Any) -> Any:
    """The environment has no lists: `a,b` is one."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _matching(pattern: str, words: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(words)
        return value

    return AfterValidator(check)


def _address_list(value: str) -> str:
    addresses = [address.strip() for address in value.split(",")]
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ValueError("host:port, or several with commas between")
    return ",".join(addresses)


def _http_address(value: str) -> str:
    parts = urlsplit(value)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # urlsplit reads the port only when asked for it
        usable = False
    if not usable:
        raise ValueError("an address like http://host:port/path or https://host/path")
    return value.rstrip("/")


def _ascending(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or list(value) != sorted(set(value)):
        raise ValueError("at least one size, and sizes that rise")
    return value


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or len(set(value)) != len(value):
        raise ValueError("at least one name, and each name once")
    return value


def _all_deadlines(value: Any) -> Any:
    return {**DEADLINES_MS, **value} if isinstance(value, Mapping) else value


def _absolute(value: Path) -> Path:
    return value.expanduser().absolute()


def default_data_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def _in_data_dir(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda values: str(values.get("data_dir", default_data_dir()) / name)


Positive = Annotated[int, Field(ge=1)]
TopicName = Annotated[
    str, _matching(r"[A-Za-z0-9._-]{1,249}", "up to 249 letters, digits, dots, dashes or underscores")
]
Name = Annotated[str, _matching(r"[a-z][a-z0-9_]{0,62}", "a name of lower-case letters, digits and underscores")]


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
    releases: TopicName = "models.releases"
    state: TopicName = "state.users"
    label_state: TopicName = "state.labels"
    deadletters: TopicName = "deadletters"
    audit: TopicName = "audit.log"

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

    backend: Name = Field(default="openvino", description="a name of engines.BACKENDS")
    precision: Literal["bf16", "f32"] = "bf16"
    threads: int = Field(default=1, ge=1, le=256)
    buckets: Annotated[
        tuple[Positive, ...],
        NoDecode,
        BeforeValidator(_comma_list),
        AfterValidator(_ascending),
    ] = (1, 2, 4, 8, 16, 32, 64)


class StateSettings(Section):
    """User state: `slots` users in memory, all of them in RocksDB, durable in the changelog."""

    slots: int = Field(default=65_536, ge=1, le=16_777_216)
    flush_interval_s: float = Field(default=2, gt=0, le=600)
    dedupe_per_user: int = Field(default=20_000, ge=64, description="event ids remembered of one heavy user")


class Web(Section):
    """Metrics and health. Other machines see it only if `host` says so."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=6066, ge=0, le=65_535, description="0: any free one")


class Log(Section):
    """What a process says about itself, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = Field(
        default="auto", description="auto: human on a terminal, else JSON lines"
    )


class Settings(BaseSettings):
    """All settings. Precedence: argument, environment, file, default. SettingsError if one cannot be used."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix="HEADRACE_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    brokers: Annotated[str, AfterValidator(_address_list)] = "127.0.0.1:9092"
    registry_url: Annotated[str, AfterValidator(_http_address)] = "http://127.0.0.1:8081/apis/ccompat/v7"
    app_id: TopicName = Field(default="headrace", description="the consumer group")
    data_dir: Annotated[Path, AfterValidator(_absolute)] = Field(default_factory=default_data_dir)
    release_store: str = Field(
        default_factory=_in_data_dir("releases"), min_length=1, description="folder or fsspec address"
    )
    tasks: Annotated[
        tuple[Name, ...],
        NoDecode,
        BeforeValidator(_comma_list),
        AfterValidator(_distinct),
    ] = ("fraud", "recommendations", "ctr")
    partitions: int = Field(default=4, ge=1, le=10_000, description="of the event, score and state topics")
    replication: int = Field(default=1, ge=1, le=32)
    session_timeout_s: float = Field(default=10, ge=1, le=300)
    commit_interval_s: float = Field(default=1, gt=0, le=60)
    watchdog_s: float = Field(
        default=60, ge=5, description="offsets that stand still this long under lag end the worker"
    )
    max_message_bytes: int = Field(default=1_000_000, ge=1_000, le=100_000_000, description="of an input record")
    deadlines_ms: Annotated[dict[Name, Positive], BeforeValidator(_all_deadlines)] = DEADLINES_MS
    security: Security = Security()
    registry_security: RegistrySecurity = RegistrySecurity()
    topics: Topics = Topics()
    batch: Batch = Batch()
    engine: EngineSettings = EngineSettings()
    state: StateSettings = StateSettings()
    web: Web = Web()
    log: Log = Log()

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, config_file: str | Path | None = None, **values: Any) -> None:
        """`values` outrank the environment. No `config_file`: HEADRACE_CONFIG, or ./headrace.toml."""
        with reading(config_path(config_file)) as path:
            found = {**File.origins(type(self), path), **Environment.origins(type(self))}
            found |= dict.fromkeys(flatten(values), "argument")
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise explain(error, type(self), found) from None
        self._sources.update(found)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls), File(settings_cls)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch.max_wait_ms >= self.session_timeout_s * 1000:
            raise ValueError("batch.max_wait_ms below session_timeout_s")
        return self

    def deadline_ms(self, task: str) -> int:
        """A task of your own has 1000 ms unless `deadlines_ms.<task>` is set."""
        return self.deadlines_ms.get(task, 1000)

    def librdkafka(self) -> dict[str, Any]:
        """Brokers and security for confluent-kafka."""
        return {"bootstrap.servers": self.brokers, **self.security.librdkafka()}

    def kafka_python(self) -> dict[str, Any]:
        return {"bootstrap_servers": self.brokers.split(","), **self.security.kafka_python()}

    def aiokafka(self) -> dict[str, Any]:
        """Builds the TLS context. SettingsError if a certificate cannot be read."""
        try:
            return {"bootstrap_servers": self.brokers.split(","), **self.security.aiokafka()}
        except OSError as error:  # ssl.SSLError is one
            raise SettingsError(
                f"the certificates cannot be read: {error}",
                where="security.ca_file, cert_file, key_file",
                expected="PEM files that belong together",
            ) from error

    def registry(self) -> dict[str, Any]:
        """Address and security for confluent-kafka's registry client."""
        return {"url": self.registry_url, **self.registry_security.confluent()}

    def sources(self) -> dict[str, str]:
        """Where each value came from, by dotted name: default, argument, an environment variable, a file."""
        leaves = flatten(self.model_dump())
        return {name: self._sources.get(name, "default") for name in leaves}
