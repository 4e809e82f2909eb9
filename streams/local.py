"""A real Kafka broker and a real schema registry as local processes: no Docker, no system Java, 127.0.0.1.
Each is a folder (data, log, pid file); it outlives the process that started it unless told otherwise.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import BrokerUnavailable, RegistryUnavailable, SettingsError
from streams.config import Settings
from streams.jars import Report, kafka_jars, registry_folder, to_stderr
from streams.java import JavaServer, last_words, run_java
from streams.ports import accepts, free_port

LOG4J = """\
Configuration:
  status: ERROR
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %c{1} %m%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: [{ref: out}]}
"""


def local_servers(settings: Settings, report: Report = to_stderr) -> tuple["LocalBroker", "LocalRegistry"]:
    """The embedded broker and registry at the addresses of the settings, data in `data_dir`; not started.

    Raises SettingsError if an address is not of this machine: then the servers are somebody else's.
    """
    cache, urls = settings.data_dir / "java", urlsplit(settings.registry_url)
    broker = LocalBroker(
        settings.data_dir / "kafka", port=_local_port("brokers", settings.brokers), cache=cache, report=report
    )
    registry = LocalRegistry(
        settings.data_dir / "registry",
        port=_local_port("registry_url", urls.netloc),
        cache=cache,
        report=report,
    )
    return broker, registry


def _local_port(setting: str, address: str) -> int:
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdecimal():
        raise SettingsError(
            f"{setting} is {address!r}: the embedded servers are of this machine only",
            expected="127.0.0.1:<port>",
            todo=f"unset {setting} to use the embedded servers, or use yours without this command",
        )
    return int(port)


class LocalBroker(JavaServer):
    """One Apache Kafka in KRaft mode in `folder`. `port` 0 takes a free one and keeps it with the folder.

    `properties` are broker properties on top of BROKER_PROPERTIES; they apply at the next start.
    """

    name = "Apache Kafka"
    unavailable = BrokerUnavailable

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        properties: Mapping[str, str] | None = None,
        heap: str = "512m",
        outlive: bool = True,
        cache: Path | None = None,
        report: Report = to_stderr,
    ) -> None:
        super().__init__(folder, port=port, outlive=outlive)
        self.properties = dict(properties or {})
        self._heap, self._cache, self._report = heap, cache, report

    @property
    def address(self) -> str:
        """host:port for `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        jars = kafka_jars(self._cache, self._report)
        self._write_configuration()
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(jars)
        return [f"-Xmx{self._heap}", *self._java_options(jars), "kafka.Kafka", str(self._server_properties)]

    def answers(self) -> bool:
        """True when the broker lists its topics: a port that accepts is not yet a broker."""
        if not accepts(self.address, timeout=1):
            return False
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            return bool(client.list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    @property
    def _server_properties(self) -> Path:
        return self.folder / "server.properties"

    def _java_options(self, jars: list[Path]) -> list[str]:
        log4j = self.folder / "log4j2.yaml"
        return [f"-Dlog4j2.configurationFile={log4j}", "-cp", ":".join(str(jar) for jar in jars)]

    def _write_configuration(self) -> None:
        controller = self._controller_port()
        lines = BROKER_PROPERTIES | {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "log.dirs": str(self.folder / "data"),
            **self.properties,
        }
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        self._server_properties.write_text(text, "utf-8")
        (self.folder / "log4j2.yaml").write_text(LOG4J, "utf-8")

    def _controller_port(self) -> int:
        """Kept like the broker's own port: KRaft writes its voters down."""
        path = self.folder / "controller.port"
        if not path.exists():
            path.write_text(str(free_port()), "utf-8")
        return int(path.read_text("utf-8"))

    def _format(self, jars: list[Path]) -> None:
        arguments = [
            "kafka.tools.StorageTool",
            "format",
            "-t",
            CLUSTER_ID,
            "-c",
            str(self._server_properties),
        ]
        # A run of a second: the second compiler would only get in the way.
        done = run_java(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *self._java_options(jars), *arguments])
        if done.returncode:
            raise BrokerUnavailable(
                f"Kafka could not format its data folder: {last_words(done.stdout + done.stderr)}",
                where=str(self.folder),
                expected="broker properties that Kafka knows, and room on the disk",
            )


BROKER_PROPERTIES: dict[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One broker: what Kafka keeps for itself is not replicated, and 50 partitions of it only slow the start.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    # A first consumer need not wait for others; a worker may want a short session.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After a SIGKILL the controller waits this long for the broker that is no more (default 9 s).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # A misspelt topic must fail, not come into being with a wrong partition count.
    "auto.create.topics.enable": "false",
    # The default of 128 MB is a quarter of this heap.
    "log.cleaner.dedupe.buffer.size": "33554432",
    "num.network.threads": "2",
    "num.io.threads": "4",
}
# Cluster ids need only differ among clusters that meet; these meet nobody.
CLUSTER_ID = "aGVhZHJhY2UtbG9jYWwtMQ"


class LocalRegistry(JavaServer):
    """One Apicurio Registry in `folder`, spoken to by its Confluent API at `url`.

    Its store is a database file: schema ids survive a restart and a SIGKILL, as records do.
    """

    name = "the schema registry"
    unavailable = RegistryUnavailable

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        heap: str = "192m",
        outlive: bool = True,
        cache: Path | None = None,
        report: Report = to_stderr,
    ) -> None:
        super().__init__(folder, port=port, outlive=outlive)
        self._heap, self._cache, self._report = heap, cache, report

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def command(self) -> list[str]:
        options = REGISTRY_PROPERTIES | {
            "quarkus.http.port": str(self.port),
            # No delay: an id that was handed out is on disk. Else, after a SIGKILL, another schema gets it.
            "apicurio.datasource.url": f"jdbc:h2:file:{self.folder / 'schemas'};WRITE_DELAY=0",
        }
        jar = registry_folder(self._cache, self._report) / "quarkus-run.jar"
        defines = [f"-D{key}={value}" for key, value in options.items()]
        return [f"-Xmx{self._heap}", "-XX:TieredStopAtLevel=1", *defines, "-jar", str(jar)]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as reply:
                return isinstance(json.load(reply), list)
        except (urllib.error.URLError, OSError, ValueError):
            return False


REGISTRY_PROPERTIES: dict[str, str] = {
    "quarkus.http.host": "127.0.0.1",
    # The management interface would listen on all addresses, port 9000.
    "quarkus.management.host": "127.0.0.1",
    "quarkus.management.port": "0",
    "quarkus.http.access-log.enabled": "false",
    "quarkus.log.level": "WARN",
    'quarkus.log.category."io.apicurio".level': "WARN",
    "apicurio.storage.kind": "sql",
    "apicurio.storage.sql.kind": "h2",
    "apicurio.datasource.jdbc.initial-size": "2",
    "apicurio.datasource.jdbc.min-size": "2",
    "apicurio.datasource.jdbc.max-size": "8",
}
