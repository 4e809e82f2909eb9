"""Several shops on one cluster: every name of one begins with it, no setting leads out, and rights end at it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from schemas.errors import SettingsError
from schemas.registry import subject_of
from streams.cli import app
from streams.config import Settings
from streams.config_sections import Topics
from streams.contracts import topic_contract
from streams.demo.stage import environment
from streams.rights import ROLES
from streams.telemetry.export import provider
from streams.topics import create_topics, topic_specs
from tests.conftest import FreshSettings
from tests.guarded_broker import Guarded, guarded_broker
from tests.observer import Observer, publish, until
from tests.test_rights import reads, transacts, writes
from tests.test_transport import Worker

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,39}", fullmatch=True)
TOPIC = st.from_regex(r"[A-Za-z0-9._-]{1,60}", fullmatch=True)


def names_of(found: Settings) -> list[str]:
    """All that the brokers and the registry hear of it."""
    topics = [spec.name for spec in topic_specs(found)]
    rights = [right.name for role in ROLES for right in ROLES[role](found)]
    return [*topics, found.app_id, *rights, *map(subject_of, topics)]


# -- names -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(NAMES, NAMES, TOPIC)
def test_no_name_of_one_shop_begins_as_those_of_another(one, other, topic):
    if one == other:
        return
    mine = names_of(Settings(tenant=one, topics={"clicks": topic}, tasks=("fraud", "own_task")))
    assert all(name.startswith(f"{one}.") for name in mine)
    assert not [name for name in mine if name.startswith(f"{other}.")]


def test_without_a_tenant_nothing_is_named_otherwise():
    plain = Settings()
    assert (plain.app_id, plain.topics) == ("headrace", Topics())
    assert plain.topics.scores("own_task") == "scores.own_task"


def test_a_topic_of_another_shop_cannot_be_named():
    assert (
        Settings(tenant="north", topics={"clicks": "south.events.clicks"}).topics.clicks == "north.south.events.clicks"
    )


def test_topics_of_tasks_of_ones_own_are_ones_own():
    topics = Settings(tenant="north").topics
    assert (topics.scores("own_task"), topics.served("own_task")) == ("north.scores.own_task", "north.served.own_task")


def test_folders_releases_and_accounts_are_apart(tmp_path):
    shared: dict[str, Any] = {
        "data_dir": tmp_path,
        "release_store": "s3://models/",
        "access": {"folder": tmp_path / "in"},
    }
    north, south = (Settings(tenant=name, **shared) for name in ("north", "south"))
    assert (north.data_dir, south.data_dir) == (tmp_path / "north", tmp_path / "south")
    assert (north.release_store, south.release_store) == ("s3://models/north", "s3://models/south")
    assert north.access.folder == tmp_path / "in" / "north"
    assert south.access.folder == tmp_path / "in" / "south"
    alone = Settings(tenant="north", data_dir=tmp_path)
    assert Path(alone.release_store) == tmp_path / "north" / "releases"


def test_a_process_that_is_given_the_settings_of_another_has_the_same(tmp_path, monkeypatch):
    first = Settings(tenant="north", data_dir=tmp_path, release_store="s3://models", access={"folder": tmp_path / "in"})
    for name, value in environment(first).items():
        monkeypatch.setenv(name, value)
    again = Settings()
    assert again.model_dump() == first.model_dump()
    assert again.topics.scores("own_task") == first.topics.scores("own_task")


@pytest.mark.parametrize("name", ["North", "north.east", "north_east", "1north", "-", "n" * 41, "north/..", "../north"])
def test_a_name_that_would_not_stay_apart_is_refused(name):
    with pytest.raises(SettingsError, match="tenant"):
        Settings(tenant=name)


def test_a_topic_that_gets_too_long_by_the_name_is_refused():
    with pytest.raises(SettingsError, match="243 characters"):
        Settings(tenant="north", topics={"clicks": "c" * 244})


def test_a_shop_need_not_say_its_own_name():
    north = Settings(tenant="north")
    assert topic_contract(north, "events.clicks") == topic_contract(north, "north.events.clicks")
    with pytest.raises(SettingsError):
        topic_contract(north, "south.events.clicks")


def test_traces_say_whose_they_are():
    class Nowhere:
        def shutdown(self) -> None: ...

    made = provider(Settings(tenant="north"), Nowhere())  # type: ignore[arg-type]  # nothing is exported
    try:
        assert made.resource.attributes["service.name"] == "north.headrace"
    finally:
        made.shutdown()


# -- one file of several shops ---------------------------------------------------------------------------------------

FILE = """
partitions = 6
[deadlines_ms]
fraud = 700
ctr = 70
[tenants.north]
partitions = 12
[tenants.north.deadlines_ms]
fraud = 300
[tenants.south]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "headrace.toml"
    path.write_text(FILE)
    return path


def test_a_shops_own_table_outranks_what_the_file_says_to_all(file):
    north, south = Settings(file, tenant="north"), Settings(file, tenant="south")
    assert (north.partitions, south.partitions) == (12, 6)
    assert (north.deadlines_ms["fraud"], north.deadlines_ms["ctr"]) == (300, 70)
    assert south.deadlines_ms["fraud"] == 700
    assert north.sources()["partitions"] == f"{file}:tenants.north.partitions"
    assert north.sources()["deadlines_ms.ctr"] == f"{file}:deadlines_ms.ctr"


def test_the_environment_says_which_shop_and_outranks_its_table(file, monkeypatch):
    monkeypatch.setenv("HEADRACE_TENANT", "north")
    monkeypatch.setenv("HEADRACE_PARTITIONS", "3")
    found = Settings(file)
    assert (found.tenant, found.partitions, found.topics.clicks) == ("north", 3, "north.events.clicks")


@pytest.mark.parametrize("tenant", ["", "nroth"])
def test_a_shop_that_the_file_does_not_know_is_not_begun(file, tenant):
    with pytest.raises(SettingsError, match="north, south"):
        Settings(file, tenant=tenant)


def test_a_wrong_name_in_a_shops_table_is_named_with_its_place(file):
    file.write_text(FILE + "partition = 3\n")
    with pytest.raises(SettingsError, match=r"tenants\.south\.partition"):
        Settings(file, tenant="south")


@pytest.mark.parametrize("table", ["tenants = 3", "[tenants]\nnorth = 3", "[tenants.north]\ntenant = 'south'"])
def test_tables_that_are_none_are_refused(tmp_path, table):
    path = tmp_path / "headrace.toml"
    path.write_text(table)
    with pytest.raises(SettingsError, match="tenants"):
        Settings(path, tenant="north")


def test_commands_are_told_the_shop(tmp_path, monkeypatch, logging_as_it_was):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["--tenant", "north", "rights", "tenant", "--principal", "User:north"])
    assert done.exit_code == 0, done.output
    assert "--topic 'north.' --resource-pattern-type prefixed" in done.stdout
    assert CliRunner().invoke(app, ["rights", "tenant"]).exit_code == 2


# -- on a broker -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Topics of shop north; those of south its own user makes."""
    with guarded_broker(tmp_path_factory.mktemp("guarded"), tenant="north") as found:
        found.enrol("north")
        found.allow("north", "tenant")
        yield found


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_rights_of_a_shop_are_enough_for_it_and_end_at_its_name(guarded, tmp_path):
    north = guarded.scram("north")
    south = Settings(tenant="south", brokers=guarded.open.brokers, data_dir=tmp_path, partitions=2)
    assert create_topics(south).problems == []
    mine = Settings(
        tenant="north", brokers=north.brokers, security=north.security, data_dir=tmp_path, partitions=2,
        topics={"clicks": "more.clicks"},
    )  # fmt: skip
    assert "north.more.clicks" in create_topics(mine).created
    assert writes(north, north.topics.orders) == ""
    assert reads(north, north.topics.orders, "north.headrace") == ""
    assert transacts(north, "north.headrace-state-0", north.topics.state) == ""
    assert writes(north, south.topics.orders) == "TOPIC_AUTHORIZATION_FAILED"
    assert writes(guarded.open, south.topics.orders) == ""
    assert reads(north, south.topics.orders, "north.headrace") == "TOPIC_AUTHORIZATION_FAILED"
    assert reads(north, north.topics.orders, "south.headrace") == "GROUP_AUTHORIZATION_FAILED"
    assert transacts(north, "south.headrace-state-0", north.topics.state).endswith("AUTHORIZATION_FAILED")


def test_a_flood_of_one_shop_reaches_nothing_of_another(fresh_settings: FreshSettings):
    shops = {name: fresh_settings(tenant=name, web={"port": 0}, session_timeout_s=60) for name in ("north", "south")}
    assert len({found.app_id for found in shops.values()}) == 2
    counts, workers = {"north": 3000, "south": 20}, []
    try:
        for name, found in shops.items():
            publish(found, found.topics.clicks, counts[name])
            workers.append(Worker(found, found.topics.scores_ctr))
        for found in shops.values():
            observer = Observer(found)
            until(partial(observer.caught_up, found.topics.clicks), 240)
            assert set(observer.outputs(found.topics.scores_ctr)) == observer.inputs(found.topics.clicks)
            observer.close()
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()
