"""Three real Kafka brokers on this machine as one KRaft cluster, each broker and controller in a process of its own.
For what one broker cannot show: a lost broker, a controller that changes, replicas in sync. Not for production.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from confluent_kafka.admin import AdminClient

from streams.jars import Report, to_stderr
from streams.local import LocalBroker
from streams.ports import free_port

# What is written must be on two of three brokers, Kafka's own topics included: one may be lost at any time.
REPLICATED: dict[str, str] = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    # A follower that is stopped leaves the replicas in sync soon, or writes wait 30 s for it.
    "replica.lag.time.max.ms": "5000",
    # The default of 9 s is counted by the controllers among themselves, too.
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
}


class LocalCluster:
    """`brokers[n]` has the node id n + 1; each may be killed and started again by itself, its data and ports stay."""

    def __init__(
        self,
        folder: Path,
        *,
        properties: Mapping[str, str] | None = None,
        heap: str = "320m",
        outlive: bool = False,
        cache: Path | None = None,
        report: Report = to_stderr,
    ) -> None:
        nodes = range(1, 4)
        folders = {node: folder / f"kafka-{node}" for node in nodes}
        controllers = {node: kept_port(folders[node] / "controller.port") for node in nodes}
        ports = {node: kept_port(folders[node] / "port") for node in nodes}
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items())
        self.brokers = [
            LocalBroker(
                folders[node],
                port=ports[node],
                properties={
                    **REPLICATED,
                    **(properties or {}),
                    "node.id": str(node),
                    "controller.quorum.voters": voters,
                },
                heap=heap,
                outlive=outlive,
                cache=cache,
                report=report,
            )
            for node in nodes
        ]

    @property
    def address(self) -> str:
        """host:port of each, for `brokers`."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> None:
        """All at once: the first answers only when a second is there. Raises as `LocalBroker.start`."""
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            for done in [pool.submit(broker.start) for broker in self.brokers]:
                done.result()

    def stop(self) -> None:
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            for done in [pool.submit(broker.stop) for broker in self.brokers]:
                done.result()

    def controller(self) -> LocalBroker:
        """The broker whose controller leads now, as the others say."""
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        node: int = client.describe_cluster(request_timeout=10).result(15).controller.id
        return self.brokers[node - 1]

    def leader(self, topic: str, partition: int) -> LocalBroker:
        """The broker that a partition is written to now."""
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        node: int = client.list_topics(topic, timeout=10).topics[topic].partitions[partition].leader
        return self.brokers[node - 1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def kept_port(path: Path) -> int:
    """Of a file, a free one the first time: KRaft writes its voters down, so a folder keeps its ports."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(free_port()), "utf-8")
    return int(path.read_text("utf-8"))
