"""Protobuf messages to plain values, by a file of descriptors; nothing is generated and nothing imported by name.
Names are the .proto file's; enums by name, times as datetimes, bytes as base64, what has a wrapper without it.
"""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from schemas.errors import BadRecord, SettingsError
from schemas.wire import HEADER

TODO = "write it with `protoc --include_imports --descriptor_set_out=FILE your.proto`"
_WRAPPED = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String")
_WRAPPERS = frozenset(f"google.protobuf.{name}Value" for name in _WRAPPED)
_MOST_INDEXES = 16


def from_protobuf(path: Path, name: str) -> Callable[[bytes], Any]:
    """SettingsError where the file or the message cannot be used; what it gives raises BadRecord."""
    make = message_factory.GetMessageClass(_descriptor(path, name))

    def read(value: bytes) -> Any:
        body = value[_after_header(value) :] if value[:1] == b"\0" else value
        try:
            return _plain(make.FromString(body))
        except (DecodeError, ValueError, OverflowError, RecursionError) as error:
            raise BadRecord("undecodable", f"no Protobuf: {str(error)[:200]}", expected=f"a {name}") from None

    return read


def _descriptor(path: Path, name: str) -> Descriptor:
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise SettingsError(
            f"the descriptors cannot be read: {error}", where=str(path), expected="a FileDescriptorSet", todo=TODO
        ) from error
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in files.file:
            pool.Add(file)
        return pool.FindMessageTypeByName(name)
    except (KeyError, TypeError) as error:
        known = ", ".join(
            f"{file.package}.{each.name}".lstrip(".") for file in files.file for each in file.message_type
        )
        raise SettingsError(
            f"no message {name!r}", where=str(path), expected=f"one of {known}" if known else "messages", todo=TODO
        ) from error


def _after_header(value: bytes) -> int:
    """Past Confluent's header: a zero byte, four of the schema's id, then which message of the file it is: a count
    and indexes, zigzag varints, or one zero for the first.
    """
    numbers = _varints(value, HEADER)
    count, at = next(numbers, (0, HEADER))
    if not 0 <= count <= _MOST_INDEXES:
        raise BadRecord("undecodable", f"{count} message indexes", where=f"byte {HEADER}", expected="a few")
    for _ in range(count):
        _, at = next(numbers, (0, at))
    return at


def _varints(value: bytes, at: int) -> Iterator[tuple[int, int]]:
    """(number, where it ends), one after the other."""
    while at < len(value):
        number = shift = 0
        while at < len(value) and shift < 35:
            byte = value[at]
            number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                break
        yield (number >> 1) ^ -(number & 1), at


def _plain(message: Message) -> Any:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return message.ToDatetime(UTC)
    if name in _WRAPPERS:
        return message.value
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields if _there(message, field)}


def _there(message: Message, field: FieldDescriptor) -> bool:
    """What can be absent, and is, stays out; what cannot has its default."""
    return not field.has_presence or message.HasField(field.name)


def _field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if not field.is_repeated:
        return _value(field, value)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"]
        return {str(key): _value(inner, value[key]) for key in value}
    return [_value(field, each) for each in value]


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
