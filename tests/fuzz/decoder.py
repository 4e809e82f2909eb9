"""Bytes on the wire to records: of every contract, in every version, by the writer's schema, and by a stranger's.
What is accepted must encode again to a message that means the same; what is refused must say why, in few words.
"""

import copy
import io
import json
from random import Random
from typing import Any, NamedTuple

from fastavro import schemaless_writer

from schemas import catalog
from schemas.errors import BadRecord, UnknownSchema
from schemas.resolution import definition
from schemas.values import from_json, to_json
from schemas.wire import Decoder, Encoder, WritersDecoder
from schemas.writing import compile_writer
from tests.fuzz import drawing
from tests.fuzz.target import Wrong

FOREIGN_ID = 90_001
LONGEST_ERROR = 2_000
TYPES: tuple[Any, ...] = (
    "null", "boolean", "int", "long", "float", "double", "bytes", "string", ["null", "string"],
    {"type": "array", "items": "null"}, {"type": "array", "items": "double"}, {"type": "map", "values": "null"},
    {"type": "fixed", "name": "Fixed", "size": 0}, {"type": "enum", "name": "Sort", "symbols": ["A", "B"]},
    {"type": "record", "name": "Empty", "fields": []}, {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "array", "items": {"type": "record", "name": "Nothing", "fields": []}},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": -2},
    {"type": "int", "logicalType": "date"}, {"type": "string", "logicalType": "uuid"}, [], ["null"], {"type": "x"},
)  # fmt: skip


class Shelf:
    """A registry: the released versions under their ids, and one stranger's schema that each input brings along."""

    def __init__(self) -> None:
        self.schemas: dict[int, Any] = {}

    def register(self, subject: str, schema: Any) -> int:
        found = next((ident for ident, known in self.schemas.items() if known == schema), len(self.schemas) + 1)
        self.schemas[found] = schema
        return found

    def schema(self, schema_id: int) -> Any:
        if schema_id not in self.schemas:
            raise UnknownSchema(schema_id)
        return json.loads(json.dumps(self.schemas[schema_id]))


class Message(NamedTuple):
    """name: the contract that it is read as; foreign: the stranger's schema, if that is what it names."""

    name: str
    value: bytes | None
    foreign: Any = None


class Decoding:
    def __init__(self) -> None:
        self._shelf = Shelf()
        self._names = catalog.names()
        self._ours = {name: catalog.load(name) for name in self._names}
        self._decoders = {name: Decoder(self._shelf, name) for name in self._names}
        self._encoders = {name: Encoder(self._shelf, name, name) for name in self._names}
        self._any = WritersDecoder(self._shelf)
        self._writers: dict[str, list[tuple[int, Any, Any]]] = {}
        self._named: dict[int, Any] = {}
        for name in self._names:
            released = sorted((catalog.FOLDER.parent / "released" / name).glob("*.avsc"))
            for schema in [self._ours[name], *map(catalog.read, released)]:
                ident = self._shelf.register(name, schema)
                self._writers.setdefault(name, []).append((ident, schema, compile_writer(schema)))
                self._named[ident] = catalog.normalised(schema)[1]

    def draw(self, random: Random) -> Message:
        name = random.choice(self._names)
        ident, schema, write = random.choice(self._writers[name])
        if foreign := random.random() < 0.15:
            schema, ident = changed(random, schema), FOREIGN_ID
        if random.random() < 0.03:
            return Message(name, random.choice((None, b"", random.randbytes(random.randrange(60)))))
        body = _foreign_body(random, schema) if foreign else write(drawing.value(random, schema, self._named[ident]))
        value = drawing.spoilt(random, body, random.randbytes(30))
        if not foreign and random.random() < 0.02:
            ident = random.choice((0, ident + 1, 2**31, 2**32 - 1))
        return Message(name, _header(ident) + value, schema if foreign else None)

    def look(self, given: Message) -> str:
        name, value, foreign = given
        decoder, any_ = self._decoders[name], self._any
        if foreign is not None:  # of its own, so that no reader outlives its input
            shelf = Shelf()
            shelf.schemas = {**self._shelf.schemas, FOREIGN_ID: foreign}
            decoder, any_ = Decoder(shelf, name), WritersDecoder(shelf)
        [record] = decoder.decode_many([value])
        [shown] = any_.decode_many([value])
        for answer in (record, shown):
            if isinstance(answer, BadRecord):
                _told(answer)
                if answer.__traceback__ is not None:
                    raise Wrong(f"the refusal holds frames: {answer}")
        if isinstance(record, BadRecord):
            return record.code
        if isinstance(shown, BadRecord):
            raise Wrong(f"read as {name}, and by its own schema it is: {shown}")
        self._again(name, record)
        return "foreign" if foreign is not None else "read"

    def _again(self, name: str, record: Any) -> None:
        """What was read can be written, comes back, and can be shown to a person."""
        value = self._encoders[name](record)
        [back] = self._decoders[name].decode_many([value])
        if repr(back) != repr(record):  # NaN is not equal to itself
            raise Wrong(f"written again it is {back!r}, not {record!r}")
        row = to_json(name, record)
        try:
            from_json(name, row)
        except BadRecord as error:
            _told(error)

    def close(self) -> None: ...


def _foreign_body(random: Random, schema: Any) -> bytes:
    """By fastavro's writer: ours is for the contracts alone. Garbage where the schema is too strange even for that."""
    out = io.BytesIO()
    try:
        parsed, named = catalog.normalised(schema)
        schemaless_writer(out, parsed, drawing.value(random, parsed, named))
    except Exception:  # noqa: BLE001  what other libraries make of a broken schema is not what is looked at
        return random.randbytes(40)
    return out.getvalue()


def _header(ident: int) -> bytes:
    return b"\0" + ident.to_bytes(4, "big")


def _told(error: BadRecord) -> None:
    said = str(error)
    if error.code not in BadRecord.CODES or not error.what or len(said) > LONGEST_ERROR:
        raise Wrong(f"a refusal of code {error.code!r} in {len(said)} characters: {said[:300]}")


def changed(random: Random, schema: Any) -> Any:
    """The schema as another team would have it: fields dropped, added, renamed, of other types, nested in itself."""
    made = copy.deepcopy(schema)
    fields: list[Any] = made["fields"]
    for number in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(fields)) if fields else 0
        other = copy.deepcopy(random.choice(TYPES))
        match random.randrange(8):
            case 0 if fields:
                del fields[at]
            case 1 if fields:
                fields[at]["type"] = other
            case 2 if fields:
                fields[at]["type"] = ["null", definition(fields[at]["type"], {})]
            case 3 if fields:
                fields[at]["type"] = {"type": random.choice(("array", "map")), "items": other, "values": other}
            case 4:
                random.shuffle(fields)
            case 5:
                fields.insert(at, {"name": f"self{number}", "type": ["null", made["name"]], "default": None})
            case 6:
                for _ in range(random.choice((1, 3, 12, 200))):
                    other = {"type": "array", "items": other}
                fields.insert(at, {"name": f"deep{number}", "type": other})
            case _:
                fields.insert(at, {"name": random.choice((f"x{number}", "a b", "", "é")), "type": other})
    return made
