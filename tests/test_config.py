"""Settings: one object from arguments, environment and a file; a wrong value says what, where and why."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.errors import SettingsError
from streams.config import Settings
from streams.config_sources import names, nearest
from streams.tasks import make_task

Toml = Callable[[str], Path]
SASL = {"protocol": "SASL_PLAINTEXT", "username": "shop", "password": "sesame"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ./headrace.toml and no HEADRACE_* of the developer's."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    def write(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def test_the_defaults_are_usable_as_they_are() -> None:
    settings = Settings()
    assert settings.topics.inputs == ("events.clicks", "events.orders", "events.impressions")
    assert settings.batch.max_events == 512
    assert set(settings.sources().values()) == {"default"}


def test_an_argument_outranks_the_environment_which_outranks_the_file(
    toml: Toml, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml("partitions = 2\nreplication = 2\n[batch]\nmax_events = 2\nmax_wait_ms = 2\nin_flight = 2\n")
    monkeypatch.setenv("HEADRACE_BATCH__MAX_EVENTS", "3")
    monkeypatch.setenv("HEADRACE_BATCH__MAX_WAIT_MS", "3")
    settings = Settings(config_file=path, batch={"max_wait_ms": 4})
    assert (settings.batch.in_flight, settings.batch.max_events, settings.batch.max_wait_ms) == (2, 3, 4)
    sources = settings.sources()
    assert sources["batch.in_flight"] == f"{path}:batch.in_flight"
    assert sources["batch.max_events"] == "environment variable HEADRACE_BATCH__MAX_EVENTS"
    assert sources["batch.max_wait_ms"] == "argument"
    assert sources["batch.min_fetch_interval_ms"] == "default"


def test_headrace_config_names_the_file(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", str(toml("partitions = 7")))
    assert Settings().partitions == 7


def test_headrace_toml_in_the_working_folder_is_read() -> None:
    Path("headrace.toml").write_text("partitions = 6")
    assert Settings().partitions == 6


def test_lists_are_written_with_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TASKS", "ctr, fraud")
    monkeypatch.setenv("HEADRACE_ENGINE__BUCKETS", "1,16")
    settings = Settings()
    assert settings.tasks == ("ctr", "fraud")
    assert settings.engine.buckets == (1, 16)


def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SECURITY__USERNAME", "")
    assert Settings().sources()["security.username"] == "default"


def test_a_deadline_of_one_task_leaves_the_others_and_a_task_of_ones_own_may_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADRACE_DEADLINES_MS__FRAUD", "50")
    settings = Settings(deadlines_ms={"returns": 70})
    assert [settings.deadline_ms(task) for task in ("fraud", "ctr", "returns", "else")] == [50, 200, 70, 1000]


def test_a_task_of_ones_own_has_topics_too() -> None:
    topics = Settings().topics
    assert (topics.scores("fraud"), topics.scores("returns"), topics.served("returns")) == (
        "scores.fraud",
        "scores.returns",
        "served.returns",
    )


def test_the_release_store_lies_in_the_data_folder_unless_named(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).release_store == str(tmp_path / "releases")
    assert Settings(release_store="s3://shop/releases").release_store == "s3://shop/releases"


def test_settings_are_frozen() -> None:
    settings = Settings()
    for section, name in ((settings, "partitions"), (settings.batch, "max_events")):
        with pytest.raises(ValidationError):
            setattr(section, name, 1)


BAD_VARIABLES = [
    ("HEADRACE_BATCH__MAX_EVENTS", "many", ["batch.max_events", "'many'", "integer"]),
    ("HEADRACE_BATCH__MAX_EVENTS", "0", ["batch.max_events", "'0'", "greater than or equal to 1"]),
    ("HEADRACE_BATCH_MAX_EVENTS", "1", ["batch_max_events is not a setting", "HEADRACE_BATCH__MAX_EVENTS"]),
    ("HEADRACE_BROKER", "a:1", ["broker is not a setting", "HEADRACE_BROKERS"]),
    ("HEADRACE_BROKERS", "kafka1", ["brokers", "'kafka1'", "host:port"]),
    ("HEADRACE_BROKERS", "kafka1:99999", ["brokers", "host:port"]),
    ("HEADRACE_BROKERS", "http://kafka1:9092", ["brokers", "host:port"]),
    ("HEADRACE_REGISTRY_URL", "registry:8081", ["registry_url", "http://"]),
    ("HEADRACE_REGISTRY_URL", "http://registry:port", ["registry_url", "http://"]),
    ("HEADRACE_BATCH", "{}", ["batch is a group of settings", "HEADRACE_BATCH__MAX_EVENTS"]),
    ("HEADRACE_TOPICS__CLICKS", "my clicks", ["topics.clicks", "'my clicks'", "letters"]),
    ("HEADRACE_TOPICS__CLICKS", "events.orders", ["topics", "events.orders", "another name"]),
    ("HEADRACE_TASKS", "fraud,fraud", ["tasks", "each name once"]),
    ("HEADRACE_ENGINE__BUCKETS", "8,1", ["engine.buckets", "sizes that rise"]),
    ("HEADRACE_ENGINE__PRECISION", "int3", ["engine.precision", "'int3'", "'bf16'"]),
    ("HEADRACE_DEADLINES_MS__FRAUD", "soon", ["deadlines_ms.fraud", "'soon'", "integer"]),
    ("HEADRACE_SECURITY__PROTOCOL", "SASL_SSL", ["security", "username and password"]),
    ("HEADRACE_SECURITY__PROTOCOL", "TLS", ["security.protocol", "'TLS'", "'SASL_SSL'"]),
    ("HEADRACE_SECURITY__CA_FILE", "/no/such.pem", ["security", "ca_file", "/no/such.pem"]),
    ("HEADRACE_SECURITY__USERNAME", "shop", ["security", "PLAINTEXT sends none"]),
    ("HEADRACE_CONFIG", "/no/such.toml", ["/no/such.toml", "HEADRACE_CONFIG"]),
    ("HEADRACE_WEB__PORT", "70000", ["web.port", "65535"]),
]


@pytest.mark.parametrize(("variable", "value", "words"), BAD_VARIABLES)
def test_a_wrong_variable_is_named_with_its_source_and_what_was_expected(
    variable: str, value: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        Settings()
    message = str(caught.value)
    assert variable in message
    assert "expected" in message
    assert [word for word in words if word not in message] == []


BAD_FILES = [
    ("partitions = 'few'", ["partitions", "'few'", "integer"]),
    ("partition = 3", ["partition is not a setting", "partitions"]),
    ("[batch]\nmax_event = 3", ["batch.max_event is not a setting", "batch.max_events"]),
    ("[batsh]\nmax_events = 3", ["batsh.max_events is not a setting", "batch.max_events"]),
    ("batch = 3", ["batch is a group of settings"]),
    ("partitions = ", ["cannot be read", "TOML"]),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES)
def test_a_wrong_line_of_the_file_is_named_with_file_and_key(text: str, words: list[str], toml: Toml) -> None:
    path = toml(text)
    with pytest.raises(SettingsError) as caught:
        Settings(config_file=path)
    message = str(caught.value)
    assert [word for word in [*words, str(path)] if word not in message] == []


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(SettingsError, match=r"brokrs is not a setting.*brokers"):
        Settings(brokrs="a:1")


def test_one_error_says_how_many_more_there_are() -> None:
    with pytest.raises(SettingsError, match="2 more cannot be used either"):
        Settings(partitions="x", replication="y", watchdog_s="z")


def test_no_secret_shows_in_the_settings_or_in_an_error_about_them() -> None:
    settings = Settings(security=SASL, registry_security={"username": "r", "password": "sesame"})
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.security)):
        assert "sesame" not in shown
    with pytest.raises(SettingsError) as caught:
        Settings(security=SASL | {"password": ["sesame"]})
    assert "sesame" not in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        Settings(security={"password": "sesame"})
    assert "sesame" not in str(caught.value)


def test_security_reaches_every_client(tmp_path: Path) -> None:
    ca_file = authority(tmp_path)
    settings = Settings(
        brokers="a:1, b:2",
        security={**SASL, "protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "ca_file": ca_file},
    )
    assert settings.librdkafka() == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "shop",
        "sasl.password": "sesame",
        "ssl.ca.location": str(ca_file),
    }
    assert settings.kafka_python() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "shop",
        "sasl_plain_password": "sesame",
        "ssl_cafile": str(ca_file),
    }
    aiokafka = settings.aiokafka()
    context = aiokafka.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert aiokafka == {key: value for key, value in settings.kafka_python().items() if not key.startswith("ssl_")}


def test_plain_settings_hand_no_empty_credentials_to_a_client() -> None:
    settings = Settings(brokers="a:1")
    assert settings.librdkafka() == {"bootstrap.servers": "a:1", "security.protocol": "PLAINTEXT"}
    assert settings.aiokafka() == {"bootstrap_servers": ["a:1"], "security_protocol": "PLAINTEXT"}
    assert settings.registry() == {"url": settings.registry_url}


def test_the_registry_gets_its_login() -> None:
    settings = Settings(registry_url="https://r/", registry_security={"username": "u", "password": "p"})
    assert settings.registry() == {"url": "https://r", "basic.auth.user.info": "u:p"}


def test_a_certificate_that_is_none_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    settings = Settings(security={"protocol": "SSL", "ca_file": tmp_path / "ca.pem"})
    with pytest.raises(SettingsError, match="certificates cannot be read"):
        settings.aiokafka()


def test_settings_given_back_as_arguments_are_the_same_settings() -> None:
    settings = Settings(partitions=3, batch={"in_flight": 5})
    again = Settings(**settings.model_dump())
    assert again.model_dump() == settings.model_dump()


@pytest.mark.parametrize("name", [name for name in names(Settings) if not name.endswith("*")])
def test_any_setting_that_lacks_a_letter_is_suggested_whole(name: str) -> None:
    known = [name.removesuffix(".*") for name in names(Settings)]
    assert nearest(name[:-1], known) == name


def authority(folder: Path) -> Path:
    """A certificate file that the machine has: its own authorities."""
    import certifi

    path = folder / "ca.pem"
    path.write_bytes(Path(certifi.where()).read_bytes())
    return path


def test_the_label_windows_of_the_settings_are_the_tasks_own() -> None:
    assert Settings().learning.windows_s == {name: make_task(name).labels.window_s for name in Settings().tasks}


def test_one_label_window_can_be_set_alone() -> None:
    windows = Settings(learning={"windows_s": {"fraud": 60}}).learning.windows_s
    assert windows["fraud"] == 60
    assert windows["ctr"] == 1_800
