"""The command line: what it teaches, how it ends, and that every bad input is one clear line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import streams.clients
import streams.local
from schemas.confluent import ConfluentRegistry
from schemas.errors import BadRecord, HeadraceError, ProduceFailed, SettingsError
from schemas.wire import Encoder
from streams.cli import app
from streams.clients import producer
from streams.config import Settings

ROOT = Path(__file__).parent.parent
NOBODY = "127.0.0.1:1"
SECRET = {"HEADRACE_SECURITY__PROTOCOL": "SASL_PLAINTEXT", "HEADRACE_SECURITY__USERNAME": "shop"}
CLICK = {"event_id": "e1", "event_time": "2026-01-31T12:00:00Z", "user_id": "u1", "action": "click"}

Headrace = Callable[..., Result]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_as_it_was: None) -> None:
    """An empty folder and home, no broker unless a test names one, and the root logger as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HEADRACE_BROKERS", NOBODY)
    monkeypatch.setenv("HEADRACE_REGISTRY_URL", f"http://{NOBODY}")


@pytest.fixture
def headrace() -> Headrace:
    """Runs a command: `headrace("topics list", VARIABLE="value")`."""

    def run(line: str, *more: str, stdin: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(app, [*line.split(), *more], input=stdin, env=env, prog_name="headrace")

    return run


@pytest.fixture
def on_kafka(settings: Settings, tmp_path: Path, headrace: Headrace) -> Headrace:
    """As `headrace`, with the shared broker and registry, and topics of the test's own."""
    text = "[topics]\n" + "\n".join(f'{key} = "{name}"' for key, name in settings.topics.model_dump().items())
    (tmp_path / "headrace.toml").write_text(f"app_id = '{settings.app_id}'\npartitions = 2\n{text}")

    def run(line: str, *more: str, **given: Any) -> Result:
        env = {"HEADRACE_BROKERS": settings.brokers, "HEADRACE_REGISTRY_URL": settings.registry_url}
        return headrace(line, *more, **env, **given)

    return run


def commands() -> list[tuple[str, ...]]:
    """Every command, as the words to call it."""

    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        parts = getattr(command, "commands", {})
        for name, part in parts.items():
            yield from below(part, (*path, name))
        if not parts:
            yield path

    return list(below(get_command(app), ()))


def one_line(result: Result) -> str:
    """The only line on stderr; what a person sees when something is wrong."""
    assert "Traceback" not in result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("headrace: ")
    return str(line)


# -- help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_help_of_every_command_says_what_it_does_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], prog_name="headrace")
    assert result.exit_code == 0
    if path != ("version",):
        assert f"headrace {' '.join(path)}" in result.output.split("Example")[1]


def test_help_shows_a_first_round_and_the_exit_codes(headrace: Headrace) -> None:
    result = headrace("--help")
    assert "headrace broker start" in result.output
    assert "130 interrupted" in result.output


def test_version_and_help_wait_for_no_heavy_library() -> None:
    heavy = {"aiokafka", "confluent_kafka", "faust", "kafka", "numpy", "openvino", "pyarrow", "pydantic"}
    code = f"import sys, streams.cli; assert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# -- how a command ends -------------------------------------------------------------------------------------------

ENDS: list[tuple[BaseException, int]] = [
    (SettingsError("x"), 2),
    (BadRecord("truncated", "x"), 2),
    (ProduceFailed("x"), 1),
    (HeadraceError("x"), 1),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("error", "code"), ENDS, ids=lambda value: type(value).__name__)
def test_the_exit_code_tells_what_kind_of_end_it_was(
    error: BaseException, code: int, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Settings) -> None:
        raise error

    monkeypatch.setattr(streams.clients, "require_broker", fail)
    result = headrace("topics create")
    assert result.exit_code == code
    assert "Traceback" not in result.output


def test_debug_adds_the_traceback(headrace: Headrace) -> None:
    assert "Traceback" not in headrace("topics list").output
    assert "Traceback" in headrace("--debug topics list").output


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    run = [sys.executable, "-m", "streams", "config", "show"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == ""
    assert command.wait(60) == 0
    command.stderr.close()


# -- bad input ----------------------------------------------------------------------------------------------------

BAD_INPUT: list[tuple[str, Mapping[str, str], int, list[str]]] = [
    ("--config none.toml config show", {}, 2, ["none.toml", "--config", "TOML"]),
    ("--config bad.toml config show", {}, 2, ["bad.toml", "cannot be read"]),
    ("config show", {"HEADRACE_BATCH__MAX_EVENTS": "many"}, 2, ["batch.max_events", "'many'", "integer"]),
    ("config show", {"HEADRACE_BATCH_MAX_EVENTS": "1"}, 2, ["HEADRACE_BATCH__MAX_EVENTS"]),
    ("config show", {**SECRET, "HEADRACE_SECURITY__SASL_MECHANISM": "x"}, 2, ["sasl_mechanism", "'PLAIN'"]),
    ("topics list", {}, 1, [NOBODY, "headrace broker start"]),
    ("topics create", {}, 1, [NOBODY, "headrace broker start"]),
    ("topics create", {"HEADRACE_BROKERS": "kafka"}, 2, ["brokers", "'kafka'", "host:port"]),
    ("topics create", {"HEADRACE_TOPICS__CLICKS": "a/b"}, 2, ["topics.clicks", "'a/b'", "letters"]),
    ("worker", {}, 1, [NOBODY, "headrace broker start"]),
    ("worker --tasks fruad", {}, 2, ["'fruad'", "fraud, recommendations, ctr"]),
    ("publish clikcs good.ndjson", {}, 2, ["clikcs", "events.clicks"]),
    ("publish scores.fraud good.ndjson", {}, 2, ["written by Headrace itself", "events.orders"]),
    ("publish clicks none.ndjson", {}, 2, ["none.ndjson", "NDJSON or Parquet"]),
    ("publish clicks bad.ndjson --dry-run", {}, 2, ["bad.ndjson:2, action", "'clik'", "view, click"]),
    ("publish clicks bad.parquet --dry-run", {}, 2, ["bad.parquet", "whole Parquet file"]),
    ("publish clicks good.ndjson", {}, 1, [f"http://{NOBODY}", "registry"]),
    ("tail clikcs", {}, 1, [NOBODY, "headrace broker start"]),
    ("tail scores.fraud", {}, 1, [NOBODY, "headrace broker start"]),
    ("simulate --rate -1", {}, 2, ["rate is -1", "more than 0"]),
    ("simulate --start yesterday", {}, 2, ["'yesterday'", "2011-06-01"]),
    ("simulate --fraud-rate 3", {}, 2, ["fraud_rate", "0 to 0.2"]),
    ("simulate", {}, 1, [NOBODY, "headrace broker start"]),
    ("replay --speed 0", {}, 2, ["speed is 0", "more than 0"]),
    ("replay --start 2012-01-01", {}, 2, ["2012-01-01", "not before"]),
    ("deadletters list", {}, 1, [NOBODY, "headrace broker start"]),
    ("deadletters list --code nonsense", {}, 2, ["'nonsense'", "unknown_schema"]),
    ("deadletters list --topic clikcs", {}, 2, ["clikcs", "events.clicks"]),
    ("deadletters replay --since noon", {}, 2, ["'noon'", "ISO 8601"]),
    ("deadletters show 0:1", {}, 1, [NOBODY]),
    ("data fetch nonsense", {}, 2, ["'nonsense'", "online-retail"]),
    ("releases show fraud", {}, 1, ["no release of fraud"]),
    ("releases show fraud/1", {}, 1, ["no release fraud/1"]),
    ("releases show ../../etc", {}, 1, ["'..' names no folder"]),
    ("releases list fruad", {}, 2, ["'fruad'", "fraud, recommendations, ctr"]),
    ("releases list", {"HEADRACE_RELEASE_STORE": "nope://x"}, 1, ["nope://x", "fsspec"]),
    ("broker start", {"HEADRACE_BROKERS": "kafka1:9092"}, 2, ["kafka1:9092", "127.0.0.1"]),
    ("broker stop", {"HEADRACE_REGISTRY_URL": "https://registry/api"}, 2, ["registry_url", "127.0.0.1"]),
]


@pytest.mark.parametrize(("line", "env", "code", "words"), BAD_INPUT, ids=[case[0] for case in BAD_INPUT])
def test_bad_input_is_one_clear_line_and_an_exit_code(
    line: str, env: Mapping[str, str], code: int, words: list[str], headrace: Headrace, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text("batch = ")
    (tmp_path / "good.ndjson").write_text(json.dumps(CLICK))
    (tmp_path / "bad.ndjson").write_text(f"{json.dumps(CLICK)}\n{json.dumps(CLICK | {'action': 'clik'})}\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    before = sorted(tmp_path.rglob("*"))
    result = headrace(line, **env)
    assert result.exit_code == code, result.output
    assert [word for word in words if word not in one_line(result)] == []
    assert result.stdout == ""
    assert [path for path in tmp_path.rglob("*") if path not in before and path.is_file()] == []


USAGE = ["nonsense", "topics nonsense", "publish", "tail", "simulate --shop fictional", "tail x --limit -1"]
USAGE += ["deadletters replay", "config show --nonsense", "simulate --rate fast"]


@pytest.mark.parametrize("line", USAGE)
def test_bad_usage_shows_how_to_use_it(line: str, headrace: Headrace) -> None:
    result = headrace(line)
    assert result.exit_code == 2
    assert "Usage: headrace" in result.stderr
    assert "Traceback" not in result.output


# -- settings -----------------------------------------------------------------------------------------------------


def test_config_show_gives_each_value_with_its_source_and_no_secret(headrace: Headrace) -> None:
    result = headrace("config show --json", **SECRET, HEADRACE_SECURITY__PASSWORD="sesame")
    shown = json.loads(result.stdout)
    assert shown["brokers"] == {"value": NOBODY, "source": "environment variable HEADRACE_BROKERS"}
    assert shown["batch.max_events"] == {"value": 512, "source": "default"}
    assert shown["security.password"]["value"] == "**********"
    assert "sesame" not in result.output
    assert "sesame" not in headrace("config show", **SECRET, HEADRACE_SECURITY__PASSWORD="sesame").output


def test_config_show_changed_leaves_the_defaults_out(headrace: Headrace, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("[batch]\nmax_events = 64\n")
    shown = json.loads(headrace("--config my.toml config show --changed --json").stdout)
    assert set(shown) == {"batch.max_events", "brokers", "registry_url"}
    assert shown["batch.max_events"]["source"] == "my.toml:batch.max_events"


# -- broker -------------------------------------------------------------------------------------------------------


class FakeServer:
    """A server of streams.local that only remembers what was asked of it."""

    fails = False

    def __init__(self, folder: Path, *, port: int, **_: object) -> None:
        self.name, self.folder, self.port, self.running = folder.name, folder, port, False
        MADE.append(self)

    def start(self) -> None:
        self.running = True
        if self.folder.name == "registry" and self.fails:
            raise ProduceFailed("it did not answer")

    def stop(self) -> None:
        self.running = False

    def status(self) -> "FakeServer":
        return self

    def answers(self) -> bool:
        return self.running

    pid = 7


MADE: list[FakeServer] = []


@pytest.fixture
def fake_servers(monkeypatch: pytest.MonkeyPatch) -> list[FakeServer]:
    MADE.clear()
    monkeypatch.setattr(streams.local, "LocalBroker", FakeServer)
    monkeypatch.setattr(streams.local, "LocalRegistry", FakeServer)
    return MADE


def test_broker_start_takes_the_ports_of_the_settings(headrace: Headrace, fake_servers: list[FakeServer]) -> None:
    result = headrace("broker start", HEADRACE_BROKERS="localhost:19092")
    assert result.exit_code == 0
    assert [(server.folder.name, server.port, server.running) for server in fake_servers] == [
        ("kafka", 19092, True),
        ("registry", 1, True),
    ]


def test_a_start_that_fails_leaves_nothing_running(
    headrace: Headrace, fake_servers: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "fails", True)
    assert headrace("broker start").exit_code == 1
    assert [server.running for server in fake_servers] == [False, True]  # the second ends itself


def test_broker_status_fails_where_one_does_not_answer(headrace: Headrace, fake_servers: list[FakeServer]) -> None:
    result = headrace("broker status --json")
    assert result.exit_code == 1
    assert [server["answers"] for server in json.loads(result.stdout)] == [False, False]


# -- over Kafka ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("registry")
def test_what_is_published_can_be_tailed(on_kafka: Headrace, tmp_path: Path) -> None:
    rows = [CLICK | {"event_id": f"e{number}"} for number in range(5)]
    (tmp_path / "clicks.ndjson").write_text("\n".join(map(json.dumps, rows)))
    done = json.loads(on_kafka("publish clicks clicks.ndjson --json").stdout)
    assert (done["rows"], done["published"], done["skipped"]) == (5, 5, 0)
    more = on_kafka("publish clicks -", stdin=json.dumps(CLICK | {"event_id": "e5"}))
    assert "1 rows, 1 published" in more.stdout
    shown = on_kafka("tail clicks --from-beginning --no-follow").stdout.splitlines()
    assert sorted(json.loads(row)["value"]["event_id"] for row in shown) == [f"e{n}" for n in range(6)]
    assert len(on_kafka("tail clicks --from-beginning --limit 2 --table").stdout.splitlines()) == 2


@pytest.mark.usefixtures("registry")
def test_skipped_rows_are_told_on_stderr(on_kafka: Headrace) -> None:
    result = on_kafka("publish clicks - --skip-bad", stdin=f"{json.dumps(CLICK)}\n{{\n")
    assert result.exit_code == 0
    assert "2 rows, 1 published, 1 skipped (1 undecodable)" in result.stdout
    assert "stdin:2" in result.stderr


def test_topics_are_created_once_and_listed(fresh_settings: Callable[..., Settings], headrace: Headrace) -> None:
    settings = fresh_settings(create=False)
    topics = {f"HEADRACE_TOPICS__{key.upper()}": name for key, name in settings.topics.model_dump().items()}
    env = {**topics, "HEADRACE_BROKERS": settings.brokers}
    created = json.loads(headrace("topics create --json", **env).stdout)
    assert settings.topics.clicks in created["created"]
    assert json.loads(headrace("topics create --json", **env).stdout)["created"] == []
    listed = {topic["name"]: topic for topic in json.loads(headrace("topics list --json", **env).stdout)}
    assert listed[settings.topics.clicks]["partitions"] == 4
    other = headrace("topics create", **env, HEADRACE_PARTITIONS="8")
    assert other.exit_code == 1
    assert "has 4 partitions and must have 8" in other.stdout


@pytest.mark.usefixtures("registry")
def test_a_dead_letter_is_listed_shown_and_brought_home(settings: Settings, on_kafka: Headrace) -> None:
    letter = {
        "topic": settings.topics.clicks, "partition": 0, "offset": 7, "timestamp": 1_769_860_800_000,
        "key": b"u1", "value": b"\x00bad bytes", "headers": [], "code": "truncated", "message": "ends early",
        "expected": "a click", "what_to_do": "", "failed_at": 1_769_860_800_000, "replays": 0,
    }  # fmt: skip
    registry = ConfluentRegistry(settings.registry())
    encode = Encoder(registry, settings.topics.deadletters, "dead_letter")
    with producer(settings) as client:
        client.send(settings.topics.deadletters, value=encode(letter), key=b"u1", partition=0)
        client.flush()
    registry.close()
    assert "ends early" in on_kafka("deadletters list").stdout
    [row] = on_kafka("deadletters list --code truncated --json").stdout.splitlines()
    assert json.loads(row)["id"] == "0:0"
    assert on_kafka("deadletters list --code oversized --json").stdout == ""
    assert "62 61 64 20 62 79" in on_kafka("deadletters show 0:0").stdout
    assert on_kafka("deadletters show 0:0 --raw").stdout_bytes == b"\x00bad bytes"
    assert on_kafka("deadletters show 0:9").exit_code == 1
    done = json.loads(on_kafka("deadletters replay --all --json").stdout)
    assert (done["sent"], done["refusals"]) == (1, 0)
    assert on_kafka("deadletters list --json").stdout == ""
    shown = json.loads(on_kafka("tail clicks --from-beginning --no-follow").stdout)
    assert shown["value_base64"]


@pytest.mark.usefixtures("registry")
def test_a_simulated_shop_is_published(on_kafka: Headrace, tmp_path: Path) -> None:
    result = on_kafka("simulate --shop generated --rate 0 --start 2011-06-01 --end 2011-06-02 --json --truth t.parquet")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sent"]["clicks"] > 0
    assert "simulated" in result.stderr
    assert (tmp_path / "t.parquet").is_file()
    assert on_kafka("tail items --from-beginning --no-follow --limit 1").stdout
