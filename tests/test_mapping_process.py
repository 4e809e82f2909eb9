"""The process of a mapped topic: what its pages say, and that SIGTERM ends it at any moment, whatever it waits for."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.confluent import ConfluentRegistry
from schemas.errors import BrokerUnavailable, RegistryUnavailable, SettingsError
from schemas.registry import MemoryRegistry
from streams.config import Settings
from streams.demo.stage import environment
from streams.local import LocalBroker
from streams.mapping.carrying import Carried
from streams.mapping.metrics import MappingMetrics
from streams.mapping.process import END_S, MappingProcess
from streams.mapping.service import Follower, Plan
from streams.ports import free_port
from tests import mapped_shop, shop
from tests.conftest import FreshSettings
from tests.mapped_shop import as_json, make_topic, order, produce, write_mapping
from tests.running import running
from tests.test_mapping_broker import carry, raw

NOWHERE = "127.0.0.1:9"
PATIENCE_S = 120.0
PROMPT_S = 20.0  # on a machine that has much else to do; what it waits for in these tests never comes


@pytest.fixture
def settings(fresh_settings: FreshSettings, registry: object) -> Settings:
    return fresh_settings(mapping_web={"port": free_port()})


def mapping(settings: Settings, folder: Path, template: str = mapped_shop.ORDERS, **values: str) -> tuple[str, str]:
    """A topic of the shop's own, and the file of a mapping of it."""
    topic = make_topic(settings, f"{settings.app_id}.shop.orders")
    return topic, write_mapping(folder, template, name="orders", source=topic, **values)


@contextmanager
def carrying(settings: Settings, path: str) -> Iterator[MappingProcess]:
    """From the beginning of the topic, in a thread; once it is ready."""
    with (
        closing(ConfluentRegistry(settings.registry())) as known,
        running(MappingProcess(settings, known, path, "beginning")) as process,
    ):
        shop.wait_for(lambda: not process.missing(), PATIENCE_S)
        yield process


def page(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[str, float]:
    """Value by name, with the result of records where they have one."""
    return {
        ":".join(filter(None, (sample.name, sample.labels.get("result")))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("mapping") == "orders" and "le" not in sample.labels
    }


def test_the_pages_tell_what_became_of_the_shops_records(settings: Settings, tmp_path: Path) -> None:
    topic, path = mapping(settings, tmp_path, format="json")
    produce(settings, topic, [*as_json(*(order(n) for n in range(9)), order(9, kind="order.shipped")), b"{"])
    with carrying(settings, path) as process:
        shop.wait_for(
            lambda: samples(page(process.port, "/metrics")[1])["headrace_mapping_records_total:undecodable"], PATIENCE_S
        )
        shop.wait_for(lambda: samples(page(process.port, "/metrics")[1])["headrace_mapping_lag"] == 0, PATIENCE_S)
        found = samples(page(process.port, "/metrics")[1])
        assert found["headrace_mapping_records_total:published"] == 9
        assert found["headrace_mapping_records_total:left_out"] == 1
        assert found["headrace_mapping_records_total:undecodable"] == 1
        assert found["headrace_mapping_records_total:wrong_type"] == 0
        assert found["headrace_mapping_waiting"] == 0
        assert 0 < found["headrace_mapping_seconds_sum"] < 120
        assert page(process.port, "/readyz") == (200, json.dumps({"ready": True, "missing": []}))
        status, said = page(process.port, "/healthz")
        assert (status, json.loads(said)["live"]) == (200, True)
        assert "9 published, 1 left out, 1 dead letters (1 undecodable)" in json.loads(said)["said"]


def test_all_that_is_not_carried_yet_is_the_lag(settings: Settings, tmp_path: Path) -> None:
    topic, path = mapping(settings, tmp_path, format="json")
    with carrying(settings, path) as process:
        produce(settings, topic, as_json(*(order(n) for n in range(7_000))))  # more than three steps
        seen = set()

        def all_carried() -> bool:
            found = samples(page(process.port, "/metrics")[1])
            seen.add(found["headrace_mapping_lag"])
            return found["headrace_mapping_records_total:published"] == 7_000 and not found["headrace_mapping_lag"]

        shop.wait_for(all_carried, PATIENCE_S)
        assert max(seen) <= 7_000


def test_a_port_that_is_taken_is_said_with_its_own_settings_name(settings: Settings, tmp_path: Path) -> None:
    path = write_mapping(tmp_path, mapped_shop.ORDERS, name="orders", source="shop.orders", format="json")
    with (
        carrying(settings, mapping(settings, tmp_path, format="json")[1]),
        pytest.raises(SettingsError, match="HEADRACE_MAPPING_WEB__PORT"),
    ):
        MappingProcess(settings, MemoryRegistry(), path).run()


def test_a_step_counts_when_it_is_told_and_every_series_is_there_before() -> None:
    metrics = MappingMetrics("orders")
    before = samples(metrics.page(waits=True).decode())
    assert before["headrace_mapping_waiting"] == 1
    assert before["headrace_mapping_records_total:unknown_schema"] == 0
    carried = Carried(published=3, left_out=2)
    carried.bad["unknown_schema"] += 1
    metrics.told(carried, int(time.time() * 1000) - 5_000, 40)
    after = samples(metrics.page(waits=False).decode())
    assert after["headrace_mapping_records_total:published"] == 3
    assert after["headrace_mapping_records_total:unknown_schema"] == 1
    assert (after["headrace_mapping_lag"], after["headrace_mapping_waiting"]) == (40, 0)
    assert 5 <= after["headrace_mapping_seconds_sum"] < 60


class Away:
    """A reader whose broker answers never, after it has answered `times`."""

    def __init__(self, starts: list[str]) -> None:
        self.starts = starts

    def __call__(self, start: str) -> Any:
        self.starts.append(start)
        raise BrokerUnavailable("no answer", where="broker")


def test_a_start_that_met_no_broker_keeps_the_place_that_it_was_told(settings: Settings, registry: object) -> None:
    starts: list[str] = []
    with closing(ConfluentRegistry(settings.registry())) as known:
        plan = Plan("mapping-orders", settings.topics.orders, Away(starts), lambda item, now_ms: None)
        follower = Follower(settings, known, plan)
        thread = threading.Thread(target=lambda: follower.run(start="beginning"))
        thread.start()
        shop.wait_for(lambda: len(starts) > 1, PATIENCE_S)
        assert "no answer" in follower.waits
        follower.stop()
        thread.join(30)
    assert set(starts) == {"beginning"}


@contextmanager
def process(settings: Settings, path: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as file:
        found = subprocess.Popen(
            [sys.executable, "-m", "streams", "mapping", "run", path, "--start", "beginning"],
            env=os.environ | environment(settings), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield found
    finally:
        if found.poll() is None:
            found.kill()
        found.wait()


def ended(found: "subprocess.Popen[bytes]", log: Path, holds: Callable[[], bool]) -> float:
    """Seconds from SIGTERM to its end, once this holds of it. It ends with 0."""
    shop.wait_for(lambda: holds() or found.poll() is not None, 120, log.read_text)
    assert found.poll() is None, log.read_text()
    began = time.monotonic()
    found.send_signal(signal.SIGTERM)
    assert found.wait(60) == 0, log.read_text()
    return time.monotonic() - began


def test_sigterm_ends_it_while_it_reads(settings: Settings, tmp_path: Path) -> None:
    topic, path = mapping(settings, tmp_path, format="json")
    produce(settings, topic, as_json(*(order(n) for n in range(50))))
    log = tmp_path / "log"
    with process(settings, path, log) as found:
        assert ended(found, log, lambda: listens(log) and published(settings.mapping_web.port) > 0) < PROMPT_S
    assert "Traceback" not in log.read_text()


def test_sigterm_ends_it_while_it_waits_for_the_registry_at_its_start(settings: Settings, tmp_path: Path) -> None:
    _, path = mapping(settings, tmp_path, format="json")
    log, away = tmp_path / "log", settings.model_copy(update={"registry_url": f"http://{NOWHERE}"})
    with process(away, path, log) as found:
        shop.wait_for(lambda: "the mapping waits" in log.read_text(), 120, log.read_text)
        status, said = page(settings.mapping_web.port, "/readyz")
        assert (status, json.loads(said)["missing"]) == (503, ["the registry has not answered yet"])
        assert ended(found, log, lambda: True) < PROMPT_S
    assert "Traceback" not in log.read_text()


def test_sigterm_ends_it_while_a_record_waits_for_the_registry(settings: Settings, tmp_path: Path) -> None:
    """A schema that only a registry knows that went away: the record waits, and is there for the next start."""
    topic, path = mapping(settings, tmp_path, mapped_shop.CLICKS)
    produce(settings, topic, [mapped_shop.framed(77, b"x")])
    silent = Silent()
    with running(MappingProcess(settings, silent, path, "beginning")) as carrying:
        shop.wait_for(lambda: any("switched off" in each for each in carrying.missing()), PATIENCE_S)
        assert samples(page(carrying.port, "/metrics")[1])["headrace_mapping_waiting"] == 1
        began = time.monotonic()
        carrying.stop()
    assert time.monotonic() - began < PROMPT_S
    with (
        closing(ConfluentRegistry(settings.registry())) as known,
        running(MappingProcess(settings, known, path)) as carrying,
    ):
        shop.wait_for(lambda: "1 unknown_schema" in carrying.said(), PATIENCE_S)


class Silent(MemoryRegistry):
    """Takes our contracts, and is silent about every other schema."""

    def schema(self, schema_id: int) -> Any:
        raise RegistryUnavailable("the schema registry is switched off", where="memory")


def test_sigterm_ends_it_while_a_frozen_broker_owes_it_a_commit(
    fresh_settings: FreshSettings, registry: object, tmp_path: Path
) -> None:
    server = LocalBroker(tmp_path / "kafka", outlive=False)
    server.start()
    try:
        settings = fresh_settings(brokers=server.address, mapping_web={"port": free_port()})
        topic, path = mapping(settings, tmp_path, format="json")
        produce(settings, topic, as_json(*(order(n) for n in range(40_000))))
        log, port = tmp_path / "log", settings.mapping_web.port
        with process(settings, path, log) as found:
            shop.wait_for(lambda: listens(log) and published(port) > 0, 300, log.read_text)
            pid = server.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            assert published(port) < 40_000
            time.sleep(2)  # what was read before is mapped by now, and waits for its commit
            assert ended(found, log, lambda: True) < END_S + PROMPT_S
            assert "no answer of the broker" in log.read_text()
        os.kill(pid, signal.SIGCONT)
        carry(settings, path)
        sources = [dict(each.headers())["headrace-source"] for each in raw(settings, settings.topics.orders)]
        assert len(sources) == len(set(sources)) == 40_000
    finally:
        server.kill()  # frozen or not


def listens(log: Path) -> bool:
    return "health and metrics on" in log.read_text()


def published(port: int) -> float:
    return samples(page(port, "/metrics")[1])["headrace_mapping_records_total:published"]
