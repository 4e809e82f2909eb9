"""TLS and SASL reach every Kafka client: shown on a real broker that takes nobody without them."""

import asyncio
import datetime
import gc
import ipaddress
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError as AiokafkaError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schemas.errors import BrokerUnavailable, SettingsError
from streams.config import Settings
from streams.local import LocalBroker
from streams.ports import free_port
from streams.tail import tail
from streams.topics import create_topics, list_topics

TOPIC = "events.clicks"
Secured = Callable[..., Settings]

# A client of kafka-python that could not be made leaves its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _sockets_collected_here() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """`secured(password)`: settings for the SASL_SSL port of a broker whose certificate is signed by itself."""
    folder = tmp_path_factory.mktemp("secured")
    certificate, both = self_signed(folder)
    port, controller, open_port = free_port(), free_port(), free_port()
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required user_shop=sesame;"
    (folder / "kafka").mkdir()
    (folder / "kafka" / "controller.port").write_text(str(controller))
    places = f"PLAINTEXT://127.0.0.1:{open_port},SASL_SSL://127.0.0.1:{port}"
    broker = LocalBroker(
        folder / "kafka",
        port=open_port,
        outlive=False,
        properties={
            "listeners": f"{places},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": places,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
        },
    )
    broker.start()

    def settings(password: str = "sesame", **over: Any) -> Settings:
        security = {
            "protocol": "SASL_SSL",
            "username": "shop",
            "password": password,
            "ca_file": certificate,
        }
        return Settings(brokers=f"127.0.0.1:{port}", security=security | over, data_dir=folder)

    create_topics(settings())
    yield settings
    broker.stop()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1; and one file with its key, as Kafka wants it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(public)
    (folder / "both.pem").write_bytes(private + public)
    return folder / "ca.pem", folder / "both.pem"


async def topics_by_aiokafka(settings: Settings) -> set[str]:
    consumer = AIOKafkaConsumer(**settings.aiokafka())
    try:
        await consumer.start()
        return set(await consumer.topics())
    finally:
        await consumer.stop()


def test_each_client_gets_in_with_the_settings(secured: Secured) -> None:
    settings = secured()
    assert TOPIC in AdminClient(settings.librdkafka()).list_topics(timeout=30).topics
    assert TOPIC in {state.name for state in list_topics(settings)}
    assert list(tail(settings, [TOPIC], from_beginning=True, follow=False)) == []
    assert TOPIC in asyncio.run(topics_by_aiokafka(settings))


def test_no_client_gets_in_with_a_wrong_password(secured: Secured) -> None:
    settings = secured("wrong")
    with pytest.raises(KafkaException):
        AdminClient(settings.librdkafka() | {"log_level": 0}).list_topics(timeout=3)
    with pytest.raises(AiokafkaError):
        asyncio.run(topics_by_aiokafka(settings))
    with pytest.raises(SettingsError, match=r"does not let us in.*security.*password") as caught:
        list(tail(settings, [TOPIC], follow=False))
    assert "wrong" not in str(caught.value)


def test_no_client_talks_to_a_broker_whose_certificate_it_cannot_check(secured: Secured, tmp_path: Path) -> None:
    other, _ = self_signed(tmp_path)
    settings = secured(ca_file=other)
    with pytest.raises(KafkaException):
        AdminClient(settings.librdkafka() | {"log_level": 0}).list_topics(timeout=3)
    with pytest.raises(AiokafkaError):
        asyncio.run(topics_by_aiokafka(settings))
    with pytest.raises(SettingsError, match=r"does not let us in.*certificate"):
        list(tail(settings, [TOPIC], follow=False))


def test_a_client_of_another_protocol_is_told_to_look_at_it(secured: Secured) -> None:
    with pytest.raises(BrokerUnavailable, match=r"security\.protocol"):
        list(tail(Settings(brokers=secured().brokers), [TOPIC], follow=False))
