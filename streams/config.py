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
from streams.access.settings import Access
from streams.config_exploring import Exploring
from streams.config_recommending import Recommending
from streams.config_sections import (
    Ask,
    Batch,
    ConsoleSettings,
    EngineSettings,
    LearningSettings,
    Log,
    Name,
    Positive,
    Privacy,
    StateSettings,
    Swap,
    TopicName,
    Topics,
    Web,
    Webhooks,
    comma_list,
)
from streams.config_sources import Environment, File, config_path, explain, flatten, reading
from streams.security import RegistrySecurity, Security
from streams.telemetry.settings import TraceSettings
from streams.tenants import Tenant, own_folder, own_name, own_place, own_store, own_topics

DEADLINES_MS = {"fraud": 1000, "recommendations": 500, "ctr": 200}


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


def _instance(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,249}", value) or value in (".", ".."):
        raise ValueError("up to 249 letters, digits, dots, dashes or underscores; empty: none")
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

    tenant: Tenant = Field(default="", description="the shop, where several share brokers: all its names begin with it")
    share: float = Field(default=1, ge=1, le=64, description="of the processor, beside other shops of one command")
    brokers: Annotated[str, AfterValidator(_address_list)] = "127.0.0.1:9092"
    registry_url: Annotated[str, AfterValidator(_http_address)] = "http://127.0.0.1:8081/apis/ccompat/v7"
    app_id: Annotated[TopicName, AfterValidator(own_name)] = Field(
        default="headrace", validate_default=True, description="the consumer group"
    )
    instance_id: Annotated[str, AfterValidator(_instance)] = Field(
        default="", description="this worker's own name in the group: by it, a restart gets its partitions back"
    )
    data_dir: Annotated[Path, AfterValidator(_absolute), AfterValidator(own_folder)] = Field(
        default_factory=default_data_dir, validate_default=True
    )
    release_store: Annotated[str, AfterValidator(own_store)] = Field(
        default_factory=_in_data_dir("releases"),
        validate_default=True,
        min_length=1,
        description="folder or fsspec address",
    )
    tasks: Annotated[
        tuple[Name, ...],
        NoDecode,
        BeforeValidator(comma_list),
        AfterValidator(_distinct),
    ] = ("fraud", "recommendations", "ctr")
    partitions: int = Field(default=4, ge=1, le=10_000, description="of the event, score and state topics")
    replication: int = Field(default=1, ge=1, le=32)
    session_timeout_s: float = Field(default=10, ge=1, le=300)
    commit_interval_s: float = Field(default=1, gt=0, le=60)
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once", description="exactly_once: scores and what was read in transactions"
    )
    transaction_ms: float = Field(
        default=20, ge=0, le=10_000, description="of exactly_once: from the begin of one to the next, at least"
    )
    watchdog_s: float = Field(
        default=60, ge=5, description="offsets that stand still this long under lag end the worker"
    )
    backfill_lag: int = Field(default=20_000, ge=0, description="of the workers, above which history waits; 0: never")
    max_message_bytes: int = Field(default=1_000_000, ge=1_000, le=100_000_000, description="of an input record")
    deadlines_ms: Annotated[dict[Name, Positive], BeforeValidator(_all_deadlines)] = DEADLINES_MS
    security: Security = Security()
    registry_security: RegistrySecurity = RegistrySecurity()
    topics: Annotated[Topics, AfterValidator(own_topics)] = Field(default=Topics(), validate_default=True)
    batch: Batch = Batch()
    engine: EngineSettings = EngineSettings()
    state: StateSettings = StateSettings()
    swap: Swap = Swap()
    recommendations: Recommending = Recommending()
    exploration: Exploring = Exploring()
    learning: LearningSettings = LearningSettings()
    web: Web = Web()
    learner_web: Web = Web(port=6067)
    ask: Ask = Ask()
    access: Annotated[Access, AfterValidator(own_place)] = Access()
    console: ConsoleSettings = ConsoleSettings()
    webhooks: Webhooks = Webhooks()
    webhooks_web: Web = Web(port=6068)
    mapping_web: Web = Web(port=6069)
    shops_web: Web = Web(port=6071)
    privacy: Privacy = Privacy()
    retention_days: dict[Name, Annotated[float, Field(gt=0, le=36_500)]] = Field(
        default={}, description="of topics that are made, by setting: served_fraud = 30"
    )
    log: Log = Log()
    traces: TraceSettings = TraceSettings()

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, config_file: str | Path | None = None, **values: Any) -> None:
        """`values` outrank the environment. No `config_file`: HEADRACE_CONFIG, or ./headrace.toml."""
        with reading(config_path(config_file), values.get("tenant")) as path:
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
        if self.transaction_ms >= self.session_timeout_s * 1000:
            raise ValueError("transaction_ms below session_timeout_s")
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
