"""The doctor finds what is broken, each thing broken for real where it can be, says what to do, and breaks nothing."""

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaProducer
from typer.testing import CliRunner

from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from schemas.registry import subject_of
from streams.cli import app
from streams.config import Settings
from streams.doctor import CHECKS, examine
from streams.doctor import cluster as cluster_checks
from streams.doctor.finding import Finding
from streams.local import LocalRegistry
from streams.partitioning import partition_for
from streams.ports import free_port
from tests.conftest import FreshSettings
from tests.guarded_broker import Guarded, guarded_broker
from tests.test_docs import table

pytestmark = [
    pytest.mark.usefixtures("logging_as_it_was"),
    # A client of kafka-python that could not be made leaves its sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_broker(tmp_path_factory.mktemp("guarded")) as found:
        yield found


def found(settings: Settings, check: str) -> list[Finding]:
    return list(CHECKS[check].check(settings))


def the_problem(settings: Settings, check: str) -> Finding:
    [problem] = [each for each in found(settings, check) if each.state == "problem"]
    assert problem.todo
    return problem


def well(findings: list[Finding]) -> bool:
    return {each.state for each in findings} == {"well"}


def offline(tmp_path: Path, **over: Any) -> Settings:
    return Settings(brokers=f"127.0.0.1:{free_port()}", data_dir=tmp_path, **over)


def make(settings: Settings, topic: NewTopic) -> None:
    client = AdminClient(settings.librdkafka())
    client.create_topics([topic])[topic.topic].result(20)


def test_a_cluster_as_it_must_be_is_well(fresh_settings: FreshSettings, registry: LocalRegistry) -> None:
    settings = fresh_settings()
    for check in ("broker", "registry", "clocks", "topics", "rights", "contracts"):
        assert not [each for each in found(settings, check) if each.state in ("problem", "warning")], check
    assert "the controller's clock" in "".join(each.says for each in found(settings, "clocks"))


def test_without_a_broker_the_rest_is_not_asked(tmp_path: Path) -> None:
    report = {each.check: each for each in examine(offline(tmp_path)) if each.check in ("broker", "topics", "clocks")}
    assert report["broker"].state == "problem"
    assert "HEADRACE_BROKERS" in report["broker"].todo
    assert report["topics"].state == report["clocks"].state == "skipped"


def test_what_listens_and_is_no_kafka_is_told_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = Settings(brokers=f"127.0.0.1:{server.getsockname()[1]}", data_dir=tmp_path)
        assert "does not answer as Kafka" in the_problem(settings, "broker").says


def test_one_silent_broker_of_two_is_a_warning(fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    gone = f"127.0.0.1:{free_port()}"
    both = Settings(brokers=f"{settings.brokers},{gone}", data_dir=settings.data_dir)
    assert [each.says for each in found(both, "broker") if each.state == "warning"] == [
        f"{gone} does not listen, others do"
    ]


def test_more_replicas_than_brokers(fresh_settings: FreshSettings) -> None:
    assert "there are 1 brokers" in the_problem(fresh_settings(create=False, replication=3), "broker").says


def test_topics_that_are_missing_or_have_other_partitions(fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    make(settings, NewTopic(settings.topics.clicks, 3, 1))
    problems = [each for each in found(settings, "topics") if each.state == "problem"]
    assert f"topic {settings.topics.clicks} has 3 partitions and must have 2" in {each.says for each in problems}
    missing = next(each for each in problems if "does not exist" in each.says)
    assert missing.todo == "run `headrace topics create`"


def test_a_topic_that_can_never_be_written(fresh_settings: FreshSettings) -> None:
    settings = fresh_settings(create=False)
    name = settings.topics.clicks
    bad = NewTopic(name, 2, 1, config={"min.insync.replicas": "2", "message.timestamp.type": "LogAppendTime"})
    make(settings, bad)
    assert f"topic {name} asks for 2 replicas in sync and has 1: every write fails" in {
        each.says for each in found(settings, "topics")
    }


def test_users_on_the_partitions_of_another_partitioner(settings: Settings) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.brokers)
    for number in range(20):
        key = f"user-{number}".encode()
        wrong = 1 - partition_for(key, 2)
        producer.send(settings.topics.clicks, key=key, value=b"x", partition=wrong)
        producer.send(settings.topics.orders, key=key, value=b"x", partition=1 - wrong)
    producer.send(settings.topics.impressions, value=b"x", partition=0)
    producer.close()
    findings = found(settings, "partitioner")
    states = {topic: each.state for each in findings for topic in settings.topics.inputs if topic in each.says}
    assert states == dict(zip(settings.topics.inputs, ("problem", "well", "problem"), strict=True))
    clicks = next(each for each in findings if settings.topics.clicks in each.says)
    assert clicks.says.startswith("20 of the newest 20 records")
    assert "murmur2" in clicks.todo


def test_a_registry_that_is_away_or_at_another_path(fresh_settings: FreshSettings, registry: LocalRegistry) -> None:
    away = fresh_settings(create=False, registry_url=f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in the_problem(away, "registry").says
    elsewhere = fresh_settings(create=False, registry_url=registry.url.replace("ccompat/v7", "nowhere"))
    assert "path" in the_problem(elsewhere, "registry").todo


def test_a_contract_of_somebody_else_under_our_subject(fresh_settings: FreshSettings, registry: LocalRegistry) -> None:
    settings = fresh_settings(create=False)
    other = {"type": "record", "name": "Click", "namespace": "shop", "fields": [{"name": "who", "type": "int"}]}
    client = ConfluentRegistry(settings.registry())
    client.register(subject_of(settings.topics.clicks), other)
    client.close()
    problem = the_problem(settings, "contracts")
    assert f"{settings.topics.clicks}-value cannot be read" in problem.says


@pytest.mark.parametrize(("ahead", "state"), [(0.0, "well"), (3.0, "warning"), (-3.0, "warning"), (60.0, "problem")])
def test_a_clock_that_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch, ahead: float, state: str) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    [finding] = cluster_checks._clock("the controller's", real())
    assert finding.state == state
    [asked] = [each for each in found(settings, "clocks") if "controller" in each.says]
    assert asked.state == state


def test_a_disk_that_is_full_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be written" in the_problem(offline(tmp_path / "file" / "data"), "disk").says
    assert well(found(offline(tmp_path / "not yet"), "disk"))
    for free, state in ((100 << 20, "problem"), (2 << 30, "warning")):
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        assert [each.state for each in found(offline(tmp_path), "disk")] == [state]


def test_a_port_that_something_else_has(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = offline(tmp_path, web={"port": server.getsockname()[1]}, learner_web={"port": free_port()})
        problem = the_problem(settings, "ports")
    assert problem.todo.startswith("set HEADRACE_WEB__PORT")


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    assert "openvino" in the_problem(offline(tmp_path, engine={"backend": "abacus"}), "engine").todo
    assert well(found(offline(tmp_path), "engine"))


def test_no_release_and_a_damaged_one(tmp_path: Path) -> None:
    settings = offline(tmp_path, tasks=("fraud",), release_store=str(tmp_path / "store"))
    assert the_problem(settings, "releases").says.startswith("fraud:")
    folder = tmp_path / "store" / "fraud" / "20260101T000000-00000000"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    assert ReleaseStore(settings.release_store).list("fraud")
    assert the_problem(settings, "releases").todo


def test_a_user_who_may_not_write_what_a_worker_must(guarded: Guarded) -> None:
    guarded.enrol("timid")
    guarded.allow("timid", "publisher")
    problem = the_problem(guarded.scram("timid"), "rights")
    assert problem.says.startswith("timid may not ")
    assert "headrace rights worker" in problem.todo


def test_a_user_with_a_workers_rights(guarded: Guarded) -> None:
    guarded.enrol("bold")
    guarded.allow("bold", "worker")
    assert well(found(guarded.scram("bold"), "rights"))


def test_a_wrong_password_is_told_and_not_shown(guarded: Guarded) -> None:
    guarded.enrol("forgetful")
    report = list(examine(guarded.scram("forgetful", "not-the-password")))
    broker = next(each for each in report if each.check == "broker")
    assert broker.state == "problem"
    assert "does not let us in" in broker.says
    assert "not-the-password" not in str(report)


def test_the_command_ends_with_1_where_something_is_wrong(tmp_path: Path) -> None:
    variables = {"HEADRACE_BROKERS": f"127.0.0.1:{free_port()}", "HEADRACE_DATA_DIR": str(tmp_path)}
    done = CliRunner().invoke(app, ["doctor", "--json"], env=variables)
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert {"broker", "registry"} <= {each["check"] for each in said}
    assert all(each["todo"] for each in said)
    people = CliRunner().invoke(app, ["doctor", "--all"], env=variables)
    assert f"{len(CHECKS)} checks: " in people.stdout


def test_the_command_ends_with_2_for_a_setting_that_cannot_be_used() -> None:
    assert CliRunner().invoke(app, ["doctor"], env={"HEADRACE_BROKERS": "nowhere"}).exit_code == 2


def test_the_command_ends_with_0_where_all_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(CHECKS):
        if name != "engine":
            monkeypatch.delitem(CHECKS, name)
    done = CliRunner().invoke(app, ["doctor"], env={"HEADRACE_DATA_DIR": str(tmp_path)})
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "1 checks: 0 problems, 0 warnings")


def test_every_check_is_documented() -> None:
    assert {cells[0].strip("`") for cells in table("docs/seeing.md", "table: checks")} == CHECKS.keys()
