"""Strangers' messages through mappings: JSON, Avro and Protobuf to the contract, with CEL, to what would be published.
A message is left out, refused with a BadRecord or becomes a message that the worker's decoder reads as the same record.
"""

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2
from google.protobuf import timestamp_pb2 as stamps

from schemas.errors import BadRecord, SettingsError
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder
from schemas.writing import compile_writer
from streams.config import Settings
from streams.deadletters import dead_letter
from streams.mapping.compiling import Compiled
from streams.mapping.document import parse
from streams.mapping.mapper import Mapper
from streams.raw import RawRecord
from tests import mapped_shop
from tests.fuzz import drawing
from tests.fuzz.rules_text import BROKEN
from tests.fuzz.target import Wrong

NOW_MS = 1_800_000_000_000
RARELY = 0.02
WIDE = """
[attributes]
include = ["*"]
most = 256
"""
VISITS = """
name = "visits"
source = "shop.visits"
format = "protobuf"
target = "click"
[protobuf]
descriptors = "self.binpb"
message = "google.protobuf.FileDescriptorProto"
[fields]
event_time = { path = "$timestamp", time = "epoch_ms" }
user_id = { path = ["name", "package"], guest = "$key" }
action = { path = "syntax", values = { proto3 = "view" }, otherwise = "unknown" }
item_id = { cel = 'source.message_type[0].name' }
position = { cel = 'size(source.dependency)' }
query = { cel = 'source.dependency.map(d, d + "!").exists(d, d == "x!") ? "yes" : source.options.java_package' }
[attributes]
include = ["*"]
"""
CEL = """
session_id = { cel = 'string(source.session) + key + headers["h"]' }
country = { cel = 'source.lines.exists(l, l.qty > 1) ? source.ship_to.country : topic + string(offset)' }
device_id = { cel = 'source.lines.map(l, string(l.sku))[0]' }
attributes.many = { cel = 'size(source.lines) * partition + int(source.basket.age_s)' }
attributes.any = { cel = 'source.basket' }
attributes.when = { cel = 'string(timestamp(source.placed_at))' }
"""


class Strange(NamedTuple):
    """mapping: which of the mappings; text: a document to compile instead of looking at a value."""

    mapping: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, Any], ...] = ()
    text: str = ""


class Mappings:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-fuzz-")
        folder = Path(self._folder.name)
        (folder / "self.binpb").write_bytes(descriptor_pb2.FileDescriptorSet(file=[_described()]).SerializeToString())
        self._registry = MemoryRegistry()
        names = {"name": "orders", "source": "shop.orders"}
        orders = mapped_shop.ORDERS.format(format="json", **names)
        computed = orders.replace('session_id = "session"\n', "").replace("country = {", "country_ = {")
        computed = "\n".join(line for line in computed.splitlines() if not line.startswith("country_"))
        self._texts = (
            orders, orders.replace('["basket.*"]', '["*"]'), computed.replace("[attributes]", CEL + "[attributes]"),
            mapped_shop.CLICKS.format(name="clicks", source="shop.clicks", format="avro") + WIDE, VISITS,
        )  # fmt: skip
        settings = Settings()
        self._mappers = [Mapper(settings, self._registry, Compiled(parse(t, "fuzz")), folder) for t in self._texts]
        self._decoders = [Decoder(self._registry, parse(text, "fuzz").target) for text in self._texts]
        schema_id = self._registry.register("shop.clicks-value", mapped_shop.AVRO_SCHEMA)
        self._write = compile_writer(mapped_shop.AVRO_SCHEMA, mapped_shop.framed(schema_id, b""))

    def draw(self, random: Random) -> Strange:
        if random.random() < RARELY:
            return Strange(0, None, text=_document(random, random.choice(self._texts)))
        which = random.randrange(len(self._texts))
        key = random.choice((None, b"", b"k1", b"\xff\xfe", drawing.text(random).encode()))
        headers = random.choice(((), (("h", b"1"),), (("h", None), ("h", b"\xff"), ("", b""))))
        return Strange(which, self._value(random, which), key, headers)

    def _value(self, random: Random, which: int) -> bytes | None:
        if which == 3:
            record = drawing.value(
                random, mapped_shop.AVRO_SCHEMA, {"Page": mapped_shop.AVRO_SCHEMA["fields"][2]["type"]}
            )
            return drawing.spoilt(random, self._write(record)) if random.random() < 0.5 else self._write(record)
        if which == 4:
            value = _message(random).SerializeToString()
            framed = random.random() < 0.3
            return (b"\0\0\0\0\1\0" if framed else b"") + (
                drawing.spoilt(random, value) if random.random() < 0.6 else value
            )
        order = drawing.bent(random, mapped_shop.order(random.randrange(1000)))
        value = json.dumps(order, ensure_ascii=random.random() < 0.7).encode(errors="surrogatepass")
        return drawing.spoilt(random, value) if random.random() < 0.1 else value

    def look(self, given: Strange) -> str:
        if given.text:
            try:
                Compiled(parse(given.text, "fuzz"))
            except SettingsError as error:
                return "refused" if str(error) else "nothing said"
            return "compiled"
        raw = RawRecord("shop.orders", 2, 7, NOW_MS, given.key, given.value, given.headers)
        try:
            mapped = self._mappers[given.mapping](raw, NOW_MS)
        except BadRecord as error:
            dead_letter(raw, error, NOW_MS)
            if len(str(error)) > 3_000:
                raise Wrong(f"a refusal of {len(str(error))} characters") from None
            return error.code
        if mapped is None:
            return "left out"
        [again] = self._decoders[given.mapping].decode_many([mapped.value])
        if repr(again) != repr(mapped.record):
            raise Wrong(f"published is {again!r}, mapped was {mapped.record!r}")
        return "mapped"

    def close(self) -> None:
        self._folder.cleanup()


def _described() -> Any:
    """descriptor.proto describes itself: deep, recursive, with every kind of field."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def _message(random: Random) -> Any:
    """A description of a file: of this one, of another, or of what is made up."""
    made = descriptor_pb2.FileDescriptorProto()
    if random.random() < 0.1:
        random.choice((descriptor_pb2.DESCRIPTOR, stamps.DESCRIPTOR)).CopyToProto(made)
    made.name, made.package, made.syntax = (drawing.text(random) for _ in range(3))
    made.dependency.extend(drawing.text(random) for _ in range(random.randrange(4)))
    inner = made.message_type.add(name=drawing.text(random))
    for _ in range(random.choice((0, 1, 5, 90))):
        inner = inner.nested_type.add(name=drawing.text(random)[:50])
    option = made.options.uninterpreted_option.add(double_value=drawing.double(random))
    option.string_value, option.negative_int_value = random.randbytes(5), drawing.long(random)
    return made


def _document(random: Random, text: str) -> str:
    """A mapping that has been worked on: lines gone, doubled, of other words."""
    lines = text.splitlines()
    for _ in range(random.choice((1, 2, 5))):
        at = random.randrange(len(lines))
        match random.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, random.choice(lines))
            case 2:
                cut = random.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:cut] + random.choice((*BROKEN, *drawing.TEXTS[:14])) + lines[at][cut:]
            case 3:
                lines.insert(at, f"deep = {'[' * random.choice((3, 5_000))}")
            case _:
                one, other = random.choice(lines).partition(" ")[0], lines[at].partition(" ")[2]
                lines[at] = f"{one} {other}"
        if not lines:
            lines = ["name = 1"]
    return "\n".join(lines)
