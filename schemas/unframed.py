"""Avro that no registry knows: records by schemas that are given beforehand, bare or in Avro's single-object encoding.
A bare record does not say its schema, so there is one; the encoding's fingerprint tells several apart.
"""

from collections.abc import Sequence

from schemas import catalog
from schemas.catalog import Schema
from schemas.errors import BadRecord, SchemaError
from schemas.reading import Reader
from schemas.wire import WritersDecoder

MARK = b"\xc3\x01"
"""What a single object begins with; its schema's fingerprint follows, then the record."""
FINGERPRINT = 8


def fingerprint(schema: Schema) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, as it is on the wire. SchemaError where the schema is malformed."""
    return bytes(catalog.parsed(schema).fingerprint("CRC-64-AVRO"))


class UnframedDecoder(WritersDecoder):
    """Messages to JSON values, as WritersDecoder; a fingerprint that is not known is an unknown_schema."""

    def __init__(self, schemas: Sequence[Schema], *, single_object: bool) -> None:
        """Bare records have the only one. SchemaError where a schema cannot be read by, or two look the same."""
        self.name, self._logical = "record of its schema", False
        self.header = len(MARK) + FINGERPRINT if single_object else 0
        heads = [MARK + fingerprint(schema) if single_object else b"" for schema in schemas]
        if len(set(heads)) < len(schemas):
            raise SchemaError(
                "two of the schemas look the same on the wire", expected="each once, and one for bare records"
            )
        self._readers = {head: self._compiled(schema) for head, schema in zip(heads, schemas, strict=True)}

    def _check_framing(self, value: bytes) -> None:
        if self.header and value[: len(MARK)] != MARK[: len(value)]:
            raise BadRecord(
                "undecodable", f"it begins with {value[: len(MARK)].hex(' ')}", where="byte 0",
                expected=f"{MARK.hex(' ')}, of Avro's single-object encoding",
            )  # fmt: skip

    def _reader(self, header: bytes) -> Reader:
        known = ", ".join(head[len(MARK) :].hex() for head in self._readers)
        raise BadRecord(
            "unknown_schema", f"no schema of fingerprint {header[len(MARK) :].hex()} is given", where="header",
            expected=f"one of {known}",
        )  # fmt: skip
