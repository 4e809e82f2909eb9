"""A stranger's bytes to plain values: JSON, Avro by the schema that each was written with, Protobuf by descriptors.
With Confluent's header or without: JSON and Protobuf cannot begin with its zero byte, of Avro the mapping says it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas import catalog
from schemas.errors import BadRecord, SchemaError, SettingsError
from schemas.registry import Registry
from schemas.unframed import UnframedDecoder
from schemas.wire import HEADER, WritersDecoder
from streams.mapping.document import Avro, Document

Decode = Callable[[bytes], Any]
"""Raises BadRecord, and RegistryUnavailable where only the registry could say."""


def decoder(document: Document, registry: Registry, folder: Path) -> Decode:
    """`folder`: what files of descriptors or schemas are relative to. SettingsError where one cannot be used."""
    if document.format == "json":
        return from_json
    if document.format == "avro":
        return _raising(WritersDecoder(registry) if document.avro is None else _by_files(document.avro, folder))
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


def _by_files(avro: Avro, folder: Path) -> WritersDecoder:
    try:
        schemas = [catalog.read(folder / name) for name in avro.schemas]
        return UnframedDecoder(schemas, single_object=avro.framing == "single_object")
    except SchemaError as error:
        raise SettingsError(
            error.what, where=f"avro.schemas, {error.where or ', '.join(avro.schemas)}", expected=error.expected,
            todo="name the files that the records were written by, relative to the mapping's",
        ) from error  # fmt: skip


def _raising(decode: WritersDecoder) -> Decode:
    def read(value: bytes) -> Any:
        found = decode.decode_many((value,))[0]
        if isinstance(found, BadRecord):
            raise found
        return found

    return read
