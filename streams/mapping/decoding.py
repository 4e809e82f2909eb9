"""A stranger's bytes to plain values: JSON, Avro by the schema that each was written with, Protobuf by descriptors.
With Confluent's header or, for JSON and Protobuf, without: neither can begin with its zero byte.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.errors import BadRecord, SettingsError
from schemas.registry import Registry
from schemas.wire import HEADER, WritersDecoder
from streams.mapping.document import Document

Decode = Callable[[bytes], Any]
"""Raises BadRecord, and RegistryUnavailable where only the registry could say."""


def decoder(document: Document, registry: Registry, folder: Path) -> Decode:
    """`folder`: what a file of descriptors is relative to. SettingsError where it cannot be used."""
    if document.format == "json":
        return from_json
    if document.format == "avro":
        return _from_avro(registry)
    assert document.protobuf is not None
    try:
        from streams.mapping.protobuf import from_protobuf
    except ImportError as error:
        raise SettingsError(
            "Protobuf needs the package protobuf", where="format", todo="install it: `uv pip install protobuf`"
        ) from error
    return from_protobuf(folder / document.protobuf.descriptors, document.protobuf.message)


def from_json(value: bytes) -> Any:
    if value[:1] == b"\0":
        value = value[HEADER:]
    try:
        return json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadRecord("undecodable", f"no JSON: {str(error)[:200]}", expected="one JSON object") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _from_avro(registry: Registry) -> Decode:
    decode = WritersDecoder(registry)

    def read(value: bytes) -> Any:
        found = decode.decode_many((value,))[0]
        if isinstance(found, BadRecord):
            raise found
        return found

    return read
