"""`headrace worker --shops` as a process: two shops on a real broker, each by a worker of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.config import Settings
from streams.local import LocalBroker, LocalRegistry
from streams.ports import free_port
from streams.topics import create_topics
from tests import shop
from tests.records import NOON_MS, click

NAMES = ("northern", "southern")
PATIENCE_S = 600
"""Two workers load their libraries and engines at once; who starts them may have little of the machine."""


def write(folder: Path, **common: Any) -> Path:
    """A file of both shops, each with a port of its own; that of their common page is in it too."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in common.items()]
    lines += ["[shops_web]", f"port = {free_port()}"]
    for name in NAMES:
        lines += [f"[tenants.{name}]", f"web = {{ port = {free_port()} }}"]
    path = folder / "shops.toml"
    path.write_text("\n".join(lines))
    return path


class Command:
    """`headrace worker --shops` on a file."""

    def __init__(self, file: Path, log: Path) -> None:
        self.page, self.log = Settings(file, tenant=NAMES[0]).shops_web.port, log
        command = [sys.executable, "-m", "streams", "--config", str(file), "worker", "--shops", ",".join(NAMES)]
        with log.open("wb") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)

    def asked(self, page: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/{page}", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except (urllib.error.URLError, OSError):
            return ""

    def shops(self) -> dict[str, Any]:
        text = self.asked("readyz")
        return dict(json.loads(text)["shops"]) if text else {}

    def serves(self, *names: str) -> bool:
        assert self.process.poll() is None, self.said()
        said = self.shops()
        return all(said.get(name, {}).get("ready") for name in names)

    def wait_for(self, *names: str) -> dict[str, int]:
        """Processes by shop, once these are ready."""
        shop.wait_for(lambda: self.serves(*names), PATIENCE_S, self.said)
        return {name: each["pid"] for name, each in self.shops().items() if "pid" in each}

    def said(self) -> str:
        return self.log.read_text()[-3000:]


@contextmanager
def serving(file: Path, log: Path) -> Iterator[Command]:
    command = Command(file, log)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def events(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The same users in both shops, the same items."""
    return [
        ("clicks", click(event_id=f"{name}-{n}", item_id=f"item-{n}", event_time=NOON_MS + n, user_id=f"user-{n % 4}"))
        for n in range(10)
    ]


def scored(settings: Settings) -> set[str]:
    return {score["event_id"] for score in shop.scores(settings, "recommendations")}


@pytest.fixture
def file(tmp_path: Path, broker: LocalBroker, registry: LocalRegistry) -> Path:
    """Both shops have their topics, catalogue and releases."""
    store, _ = shop.releases()
    for name in NAMES:
        shutil.copytree(store, tmp_path / "releases" / name)
    path = write(
        tmp_path, brokers=broker.address, registry_url=registry.url, partitions=2, data_dir=str(tmp_path / "data"),
        release_store=str(tmp_path / "releases"), tasks="recommendations",
    )  # fmt: skip
    for name in NAMES:
        settings = Settings(path, tenant=name)
        create_topics(settings)
        shop.furnish(settings)
    return path


def test_two_shops_are_served_by_one_command_and_one_that_is_killed_comes_back(file: Path, tmp_path: Path) -> None:
    north, south = (Settings(file, tenant=name) for name in NAMES)
    with serving(file, tmp_path / "log") as command:
        pids = command.wait_for(*NAMES)
        assert {os.getsid(pid) for pid in pids.values()} == set(pids.values()), "a session each"
        sent = [(settings, events(name)) for settings, name in zip((north, south), NAMES, strict=True)]
        os.kill(pids["northern"], signal.SIGKILL)
        shop.wait_for(lambda: not command.serves("northern"), PATIENCE_S)
        for settings, records in sent:
            shop.publish(settings, records)
        again = command.wait_for(*NAMES)
        assert again["southern"] == pids["southern"]
        assert again["northern"] != pids["northern"]
        for settings, records in sent:
            ids = {record["event_id"] for _, record in records}
            shop.wait_for(lambda settings=settings, ids=ids: scored(settings) >= ids, PATIENCE_S, command.said)
            assert scored(settings) == ids, "nothing of the other shop"
        page = command.asked("metrics")
        assert 'headrace_shop_up{shop="northern"} 1.0' in page
        assert 'headrace_shop_restarts_total{shop="northern"} 1.0' in page
        assert 'headrace_shop_restarts_total{shop="southern"} 0.0' in page
        command.process.terminate()
        assert command.process.wait(PATIENCE_S) == 0, command.said()
        assert not any(map(runs, again.values()))
        lines = [json.loads(line) for line in command.log.read_text().splitlines() if line.startswith("{")]
    assert {line.get("shop") for line in lines if line["logger"] == "streams.worker"} == set(NAMES)
    assert "shop northern: its process ended with SIGKILL" in "".join(line["message"] for line in lines)


PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-m", "streams.shops.child", str(os.getpid()), "console"]
print(subprocess.Popen(command, start_new_session=True).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent is gone")
def test_a_shops_process_ends_in_order_when_its_parent_is_killed(tmp_path: Path) -> None:
    port, nowhere = str(free_port()), "127.0.0.1:9"
    variables = {"HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_BROKERS": nowhere, "HEADRACE_CONSOLE__PORT": port}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        shop.wait_for(lambda: (tmp_path / "console").exists() or not runs(child), 120)
        assert runs(child)
        parent.kill()
    shop.wait_for(lambda: not runs(child), 60)


def test_the_command_says_at_once_what_is_wrong_with_all_of_it(tmp_path: Path) -> None:
    file = write(tmp_path)
    port = Settings(file, tenant=NAMES[0]).web.port
    text = file.read_text()
    file.write_text(text.replace(str(Settings(file, tenant=NAMES[1]).web.port), str(port)))

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["--config", str(file), *arguments])
        assert done.exit_code == 2, done.output
        return " ".join(done.output.split())

    assert f"northern and southern would both listen on port {port}" in said("worker", "--shops", "northern,southern")
    assert "northern, southern" in said("worker", "--shops", "eastern")
    assert "one of --tenant and --shops" in said("--tenant", "northern", "worker", "--shops", "northern,southern")
    assert "each name once" in said("worker", "--shops", "northern,northern")
    assert "'fruad'" in said("worker", "--shops", "northern,southern", "--tasks", "fruad")
    assert "headrace: eastern: the settings of tenant 'eastern'" in said("--tenant", "eastern", "config", "show")
