"""SIGTERM and SIGINT at any moment of a service's life, also while it starts: it ends in order, with 0."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.config import Settings
from streams.demo.stage import environment
from streams.ports import free_port
from streams.signals import runs_until_stopped
from tests import shop

NOWHERE = "127.0.0.1:9"
SERVICES = ("worker", "learner", "console")


class Service:
    """`headrace COMMAND` as a process; what it says is in a file."""

    def __init__(self, settings: Settings, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, env=os.environ | environment(settings), stdout=file, stderr=file)

    def has_loaded(self, library: str) -> bool:
        return library in Path(f"/proc/{self.process.pid}/maps").read_text()

    def hears(self) -> bool:
        """Whether SIGTERM is caught, as the kernel says."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def has_said(self, words: str) -> bool:
        return words in self.log.read_text()

    def when(self, holds: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.002)

    def end(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        return self.process.wait(60)


@contextmanager
def service(settings: Settings, command: str, log: Path, module: str = "streams") -> Iterator[Service]:
    running = Service(settings, [sys.executable, "-m", module, *command.split()], log)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


@pytest.fixture
def nowhere(tmp_path: Path) -> Settings:
    web: dict[str, Any] = {name: {"port": free_port()} for name in ("web", "learner_web", "console")}
    return Settings(data_dir=tmp_path / "data", brokers=NOWHERE, registry_url=f"http://{NOWHERE}", **web)


needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what a process is doing")


@needs_proc
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", SERVICES)
def test_a_service_that_is_ended_while_it_imports_leaves_with_0_and_nothing_behind(nowhere, tmp_path, command, sign):
    with service(nowhere, command, tmp_path / "log") as running:
        running.when(lambda: running.has_loaded("librdkafka"))  # its handlers of old came a second or more after that
        assert running.end(sign) == 0, running.log.read_text()
        assert running.log.read_text() == "headrace: asked to end while it was starting; nothing had begun\n"
    assert not (tmp_path / "data").exists()


@needs_proc
@pytest.mark.parametrize("command", SERVICES)
def test_a_service_hears_signals_before_it_loads_any_library(nowhere, tmp_path, command):
    with service(nowhere, command, tmp_path / "log") as running:
        running.when(running.hears)
        assert not running.has_loaded("librdkafka")
        assert not running.has_loaded("numpy")
        assert running.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("command", "moment"),
    [
        ("worker", "health and metrics on"), ("worker", "the schema registry waits"),
        ("learner", "health and metrics on"), ("learner", "the registry waits"),
    ],
)  # fmt: skip
def test_a_service_that_waits_for_the_registry_ends_in_order(settings, tmp_path, command, moment, sign):
    web = {name: getattr(settings, name).model_copy(update={"port": free_port()}) for name in ("web", "learner_web")}
    settings = settings.model_copy(update={"registry_url": f"http://{NOWHERE}", **web})
    with service(settings, command, tmp_path / "log") as running:
        running.when(lambda: running.has_said(moment))
        assert running.end(sign) == 0, running.log.read_text()[-3000:]


def test_a_console_that_has_just_begun_ends_in_order(nowhere, tmp_path):
    with service(nowhere, "console", tmp_path / "log") as running:
        running.when(lambda: (tmp_path / "data" / "console").exists())
        assert running.end(signal.SIGTERM) == 0, running.log.read_text()[-3000:]


@pytest.mark.parametrize("moment", ["health and metrics on", "is live", "acquired 0"])
def test_a_worker_ends_in_order_while_it_assembles_joins_and_restores(fresh_settings, registry, tmp_path, moment):
    store, _ = shop.releases()
    settings = fresh_settings(release_store=store, web={"port": free_port()})
    shop.furnish(settings)
    with service(settings, "0.7", tmp_path / "log", "tests.slow_worker") as running:
        running.when(lambda: running.has_said(moment))
        assert running.end(signal.SIGTERM) == 0, running.log.read_text()[-3000:]
        assert not running.has_said("acquired 1")


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        ("worker", True), ("--config shop.toml worker --tasks fraud", True), ("--tenant=a learner", True),
        ("console --one-time-login analyst", True), ("webhooks", True), ("mapping run orders.toml", True),
        ("--config worker topics create", False), ("webhooks test shop", False), ("mapping check orders.toml", False),
        ("users add worker", False), ("", False), ("--help", False), ("--config", False),
    ],
)  # fmt: skip
def test_only_what_runs_until_it_is_stopped_takes_a_signal_for_a_request(arguments: str, service: bool) -> None:
    assert runs_until_stopped(arguments.split()) is service
