"""A schema registry behind Confluent's HTTP API: Confluent's own, Apicurio, Karapace, Redpanda.
The client's errors are mapped here, once; its retries are off, since whoever asks has a retry of its own."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from authlib.deprecate import AuthlibDeprecationWarning  # type: ignore[import-untyped]  # it has no types

from schemas.catalog import Schema
from schemas.errors import RegistryUnavailable, SchemaError, SettingsError, UnknownSchema
from schemas.registry import CachedRegistry, unusable

with warnings.catch_warnings():  # authlib shows its own to every user of the client, whatever the filters say
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from confluent_kafka.schema_registry import Schema as ConfluentSchema
    from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError

NO_SUCH_SCHEMA = 40403
"""The registry's own code. A bare 404 comes from something else at that address."""
_REFUSED = (409, 422)
_TODO = {401: "check the credentials", 403: "check the credentials", 404: "check the URL's path"}


class ConfluentRegistry(CachedRegistry):
    """`conf` is a URL, or the client's settings by Confluent's names, `url` among them; several URLs, with
    commas between, are tried in turn. `timeout_s` is for each of connecting, sending and reading.
    SettingsError for a URL or a certificate that cannot be used.
    """

    def __init__(
        self,
        conf: str | Mapping[str, Any],
        *,
        timeout_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        settings = {"url": conf} if isinstance(conf, str) else dict(conf)
        self._url = str(settings.get("url"))
        try:
            self._client = SchemaRegistryClient({"timeout": timeout_s, "max.retries": 0, **settings})
        except (ValueError, TypeError, OSError) as error:
            raise SettingsError(
                f"the schema registry's client cannot be made: {error}",
                where=self._url,
                expected="an http(s) URL, and PEM files that can be read",
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.__exit__()

    def _register(self, subject: str, schema: Schema) -> int:
        try:
            return int(self._client.register_schema(subject, ConfluentSchema(json.dumps(schema), "AVRO")))
        except SchemaRegistryError as error:
            if error.http_status_code in _REFUSED:
                raise SchemaError(f"the registry refuses it: {error.error_message}", where=subject) from error
            raise self._unavailable(error) from error
        except (httpx.HTTPError, ValueError) as error:
            raise self._unavailable(error) from error

    def _fetch(self, schema_id: int) -> Schema:
        try:
            answer = self._client.get_schema(schema_id)
        except SchemaRegistryError as error:
            if error.error_code == NO_SUCH_SCHEMA:
                raise UnknownSchema(schema_id) from error
            raise self._unavailable(error) from error
        except (httpx.HTTPError, ValueError) as error:
            raise self._unavailable(error) from error
        return _avro(schema_id, answer)

    def _unavailable(self, error: Exception) -> RegistryUnavailable:
        status = getattr(error, "http_status_code", None)
        what = f"the schema registry answered {status}" if status else "the schema registry does not answer"
        return RegistryUnavailable(
            f"{what}: {error or type(error).__name__}", where=self._url, todo=_TODO.get(status or 0, "")
        )


def _avro(schema_id: int, answer: ConfluentSchema) -> Schema:
    if answer.schema_type not in (None, "AVRO"):
        raise unusable(schema_id, f"it is of type {answer.schema_type}")
    if answer.references:
        raise unusable(schema_id, "it refers to other schemas: register it whole")
    try:
        schema: Schema = json.loads(answer.schema_str)
    except (TypeError, ValueError, RecursionError):
        raise unusable(schema_id, "it is not JSON, or nested too deep") from None
    return schema
