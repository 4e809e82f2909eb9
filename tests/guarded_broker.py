"""A real broker with Kafka's authorizer, SASL/SCRAM and mutual TLS: what is not allowed is refused.
One open listener is left for whoever sets it up: who comes there is a super user.
"""

import datetime
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from streams.config import Settings
from streams.local import LocalBroker
from streams.ports import free_port
from streams.rights import ROLES
from streams.topics import create_topics

PASSWORD = "open-sesame-17"
KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional-id": ResourceType.TRANSACTIONAL_ID}


class Authority:
    """Signs certificates of 127.0.0.1: the broker's, and clients', whose name is whom the broker sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.file = folder / "ca.pem"
        self.file.write_bytes(pem(self._signed(self._name, self._key, ca=True)))

    def files(self, name: str) -> tuple[Path, Path]:
        """Certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(pem(self._signed(subject, key, ca=False)))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(here, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Guarded:
    """`open`: settings of the super user. `scram(name)`, `tls(name)`: of a user, by password or certificate."""

    open: Settings
    scram_port: int
    tls_port: int
    authority: Authority
    over: dict[str, Any]

    def scram(self, name: str, password: str = PASSWORD) -> Settings:
        security = {
            "protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "username": name,
            "password": password,
            "ca_file": self.authority.file,
        }
        return self._settings(self.scram_port, security)

    def tls(self, name: str) -> Settings:
        certificate, key = self.authority.files(name)
        security = {
            "protocol": "SSL", "ca_file": self.authority.file, "cert_file": certificate, "key_file": key,
        }  # fmt: skip
        return self._settings(self.tls_port, security)

    def _settings(self, port: int, security: dict[str, Any]) -> Settings:
        return Settings(brokers=f"127.0.0.1:{port}", security=security, **self.over)

    def enrol(self, name: str) -> None:
        """A SCRAM user, known to the broker from now on."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(name, credential, PASSWORD.encode())
        client = self._admin()
        for done in client.alter_user_scram_credentials([change]).values():
            done.result(10)

    def allow(self, principal: str, role: str) -> None:
        """Exactly what `streams.rights` says that the role needs."""
        rules = [
            AclBinding(
                KINDS[right.kind], right.name,
                ResourcePatternType.PREFIXED if right.prefix else ResourcePatternType.LITERAL,
                f"User:{principal}", "*", AclOperation[right.operation], AclPermissionType.ALLOW,
            )
            for right in ROLES[role](self.open)
        ]  # fmt: skip
        client = self._admin()
        for done in client.create_acls(rules).values():
            done.result(10)

    def _admin(self) -> AdminClient:
        return AdminClient(self.open.librdkafka())


@contextmanager
def guarded_broker(folder: Path, **over: Any) -> Iterator[Guarded]:
    """Topics of the default settings are there, with two partitions. `over`: further settings, of every user."""
    authority = Authority(folder)
    certificate, key = authority.files("broker")
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes() + authority.file.read_bytes())
    ports = {name: free_port() for name in ("PLAINTEXT", "SASL_SSL", "SSL")}
    controller = free_port()
    (folder / "kafka").mkdir()
    (folder / "kafka" / "controller.port").write_text(str(controller))
    places = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    broker = LocalBroker(
        folder / "kafka",
        port=ports["PLAINTEXT"],
        outlive=False,
        properties={
            "listeners": f"{places},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": places,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": jaas,
            "listener.name.ssl.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
        },
    )
    broker.start()
    try:
        values = {"data_dir": folder / "data", "partitions": 2, **over}
        settings = Settings(brokers=broker.address, **values)
        create_topics(settings)
        yield Guarded(settings, ports["SASL_SSL"], ports["SSL"], authority, values)
    finally:
        broker.stop()
