"""How Headrace proves who it is: the security settings, and what each Kafka client calls them.
Every client of the project takes its connection from here, so TLS and SASL reach all of them or none."""

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class Section(BaseModel):
    """A group of settings: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Certificates(Section):
    """Files in PEM form. Without `ca_file` the system's authorities are trusted."""

    ca_file: Path | None = Field(default=None, description="authorities that sign the server's certificate")
    cert_file: Path | None = Field(default=None, description="our certificate, where the server asks for one")
    key_file: Path | None = Field(default=None, description="the key of our certificate")
    key_password: SecretStr | None = Field(default=None, description="what unlocks key_file")

    @model_validator(mode="after")
    def _files_are_there(self) -> Self:
        for name in ("ca_file", "cert_file", "key_file"):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name} to name a file that exists, not {path}")
        if self.key_file and not self.cert_file:
            raise ValueError("cert_file together with key_file")
        return self

    def context(self) -> ssl.SSLContext:
        """A client context for asyncio clients. SSLError and OSError are the caller's to map."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file, reveal(self.key_password))
        return context


class Security(Certificates):
    """The way to the brokers."""

    protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism = "PLAIN"
    username: str | None = None
    password: SecretStr | None = None

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        named = self.username is not None and self.password is not None
        if self.sasl and not named:
            raise ValueError(f"username and password with protocol {self.protocol}")
        if not self.sasl and (self.username is not None or self.password is not None):
            raise ValueError(f"protocol SASL_SSL or SASL_PLAINTEXT with a username; {self.protocol} sends none")
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError(f"protocol SSL or SASL_SSL with a certificate file; {self.protocol} uses none")
        return self

    def librdkafka(self) -> dict[str, Any]:
        conf = {
            "security.protocol": self.protocol,
            "sasl.mechanism": self.sasl_mechanism if self.sasl else None,
            "sasl.username": self.username,
            "sasl.password": reveal(self.password),
            "ssl.ca.location": text(self.ca_file),
            "ssl.certificate.location": text(self.cert_file),
            "ssl.key.location": text(self.key_file),
            "ssl.key.password": reveal(self.key_password),
        }
        return given(conf)

    def kafka_python(self) -> dict[str, Any]:
        conf = {
            **self._admittance(),
            "ssl_cafile": text(self.ca_file),
            "ssl_certfile": text(self.cert_file),
            "ssl_keyfile": text(self.key_file),
            "ssl_password": reveal(self.key_password),
        }
        return given(conf)

    def aiokafka(self) -> dict[str, Any]:
        return given({**self._admittance(), "ssl_context": self.context() if self.tls else None})

    def _admittance(self) -> dict[str, Any]:
        """In the words that kafka-python and aiokafka share."""
        return {
            "security_protocol": self.protocol,
            "sasl_mechanism": self.sasl_mechanism if self.sasl else None,
            "sasl_plain_username": self.username,
            "sasl_plain_password": reveal(self.password),
        }


class RegistrySecurity(Certificates):
    """The way to the schema registry: HTTP basic authentication, and certificates for an https address."""

    username: str | None = None
    password: SecretStr | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password together, or neither")
        return self

    def confluent(self) -> dict[str, Any]:
        """Keys of confluent-kafka's registry client, address left out."""
        login = f"{self.username}:{reveal(self.password)}" if self.username is not None else None
        conf = {
            "basic.auth.user.info": login,
            "ssl.ca.location": text(self.ca_file),
            "ssl.certificate.location": text(self.cert_file),
            "ssl.key.location": text(self.key_file),
            "ssl.key.password": reveal(self.key_password),
        }
        return given(conf)


def reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def text(path: Path | None) -> str | None:
    return str(path) if path is not None else None


def given(conf: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in conf.items() if value is not None}
