"""All that a night takes place in: three brokers behind proxies, a registry, a release store, small disks, the staff.
Everything is this run's own, in one folder, and gone with it.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.config import Settings
from streams.local import LocalRegistry
from streams.local_cluster import LocalCluster, kept_port
from streams.ports import free_port
from streams.topics import create_topics
from tests import shop
from tests.chaos.night.disk import Disk
from tests.chaos.night.load import Load
from tests.chaos.night.proxy import Proxy
from tests.chaos.night.staff import Member, Staff

SESSION_S = 12.0
PATIENT = dict.fromkeys(("fraud", "recommendations", "ctr"), 3_600_000)
WORKERS = ("worker a", "worker b")
LEARNER = "learner"
STORE = "store"
IN_SYNC_S = 120.0

Say = Callable[[str], None]


@dataclass
class Scene:
    """What faults strike and the checker reads."""

    folder: Path
    settings: Settings
    cluster: LocalCluster
    proxies: list[Proxy]
    registry: LocalRegistry
    staff: Staff
    disks: dict[str, Disk]
    load: Load
    say: Say
    guests: int = field(default=0)

    @property
    def store(self) -> Path:
        return Path(self.settings.release_store)

    def member(self, name: str, command: str = "worker") -> Member:
        """A new one, on a port and in a folder of its own."""
        place = name.replace(" ", "-")
        web = self.settings.web.model_copy(update={"port": free_port()})
        update: dict[str, Any] = {"data_dir": self.folder / "disks" / place, "web": web, "learner_web": web}
        settings = self.settings.model_copy(update=update)
        return Member(name, command, settings, self.folder / f"{place}.log", self.folder / f"{place}.clock")

    def wait_in_sync(self) -> None:
        """Until every partition has its three replicas in sync. Raises TimeoutError."""
        limit = time.monotonic() + IN_SYNC_S
        behind = "no broker answered"
        while time.monotonic() < limit:
            try:
                client = AdminClient({"bootstrap.servers": self.settings.brokers, "log_level": 0})
                topics = client.list_topics(timeout=10).topics.values()
            except KafkaException as error:
                behind = str(error)
            else:
                short = [topic.topic for topic in topics for one in topic.partitions.values() if len(one.isrs) < 3]
                if not short:
                    return
                behind = f"{len(short)} partitions, such as one of {short[0]}"
            time.sleep(0.5)
        raise TimeoutError(f"not in sync within {IN_SYNC_S:.0f} s: {behind}")


@contextmanager
def scene(folder: Path, seed: int, rate: float, say: Say, **over: Any) -> Iterator[Scene]:
    """A shop that is open: two workers and a learner run, and the load has not begun. `over`: settings."""
    with ExitStack() as stack:
        cluster, proxies, registry = _servers(folder, stack)
        shutil.copytree(shop.releases()[0], folder / STORE)
        settings = Settings(**_settings(folder, proxies, registry) | over)
        create_topics(settings)
        shop.furnish(settings)
        say("three brokers, a registry and a shop are there")
        staff = Staff(say)
        disks = {
            name: Disk(folder / "disks" / name.replace(" ", "-")) for name in (*WORKERS, LEARNER)
        }  # fmt: skip
        for disk in disks.values():
            stack.callback(disk.close)
        stack.callback(staff.close)
        load = Load(settings, seed, rate)
        made = Scene(folder, settings, cluster, proxies, registry, staff, disks, load, say)
        for name in WORKERS:
            staff.hire(made.member(name))
        staff.hire(made.member(LEARNER, "learner"))
        staff.start()
        yield made


@contextmanager
def reopened(folder: Path) -> Iterator[Settings]:
    """The brokers and the registry of a night that is over, as it left them; nobody else is there."""
    with ExitStack() as stack:
        _, proxies, registry = _servers(folder, stack)
        yield Settings(**_settings(folder, proxies, registry))


def _servers(folder: Path, stack: ExitStack) -> tuple[LocalCluster, list[Proxy], LocalRegistry]:
    """Clients meet the brokers through the proxies, the brokers meet each other without. All ports are kept."""
    registry = LocalRegistry(folder / "registry", outlive=False)
    registry.start()
    stack.callback(registry.stop)
    cluster = LocalCluster(folder / "brokers", heap="256m")
    proxies = []
    for broker in cluster.brokers:
        proxy = Proxy(kept_port(broker.folder / "proxy.port"), broker.port)
        controller, inner = (kept_port(broker.folder / f"{name}.port") for name in ("controller", "inner"))
        broker.properties |= {
            "listeners": f"PLAINTEXT://{broker.address},INNER://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{proxy.address},INNER://127.0.0.1:{inner}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INNER",
        }
        proxy.start()
        stack.callback(proxy.stop)
        proxies.append(proxy)
    stack.callback(cluster.stop)
    cluster.start()
    return cluster, proxies, registry


def _settings(folder: Path, proxies: list[Proxy], registry: LocalRegistry) -> dict[str, Any]:
    return {
        "brokers": ",".join(proxy.address for proxy in proxies), "registry_url": registry.url,
        "data_dir": folder / "judge", "release_store": str(folder / STORE), "partitions": 3, "replication": 3,
        "session_timeout_s": SESSION_S, "deadlines_ms": PATIENT,
        "state": {"flush_interval_s": 0.7}, "batch": {"max_events": 64},
        # Labels are joined, and nothing is learned: a fine-tune would take the cores from everything else.
        "learning": {"examples": 1_000_000, "every_s": 1e9, "drift": False, "windows_s": {"ctr": 60}},
    }  # fmt: skip
