"""Values for an Avro schema, bytes and JSON that were right once: what the targets' inputs are made of.
Plain `random` and no hypothesis: an hour of inputs must not grow by what their maker remembers.
"""

import copy
import struct
from collections.abc import Mapping
from random import Random
from typing import Any

from schemas.catalog import Schema
from schemas.resolution import definition, kind

TEXTS = (
    "", "\0", "a", "user-1", "item-000001", "GBP", "é", "ß" * 40, "😀", "\u202e\u0000\x7f", "null", "NaN", "-1",
    "1e999", "0" * 300, "x" * 257, "y" * 70_000, "%s{}", "'; --", "../..", "\r\nX: 1", "2026-03-01T12:00:00+01:00",
    "\ufeff", "ﷺ" * 90, "[]", "{}",
)  # fmt: skip
LONGS = (0, 1, -1, 63, 64, 127, 128, 8191, 8192, 2**31 - 1, 2**31, -(2**31), 2**53, 2**62, 2**63 - 1, -(2**63))
NOW_MS = 1_700_000_000_000
DOUBLES = (0.0, -0.0, 1.0, 0.1, 1e-300, 5e-324, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 2.0**53)
BYTES = (0, 1, 2, 4, 126, 127, 128, 129, 254, 255)
JSONS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    1e308,
    10**18,
    2**63,
    10**40,
    "",
    "a",
    "0",
    "-0",
    [],
    {},
    [[]],
    {"": {}},
)


def value(random: Random, schema: Schema, named: Mapping[str, Any], depth: int = 0) -> Any:
    """A physical value of the schema, edges more often than chance would have them."""
    schema = definition(schema, named)
    if isinstance(schema, list):
        return value(random, random.choice(schema), named, depth)
    what = kind(schema)
    if isinstance(schema, dict):
        if schema.get("logicalType") == "decimal":
            return amount(random, schema["precision"])
        match what:
            case "record" | "error":
                return {field["name"]: value(random, field["type"], named, depth + 1) for field in schema["fields"]}
            case "array":
                return [value(random, schema["items"], named, depth + 1) for _ in range(_count(random, depth))]
            case "map":
                count = _count(random, depth)
                return {text(random): value(random, schema["values"], named, depth + 1) for _ in range(count)}
            case "enum":
                return random.choice(schema["symbols"])
            case "fixed":
                return random.randbytes(schema["size"])
            case "long" if "logicalType" in schema:
                return NOW_MS + random.randrange(-(10**10), 10**8) if random.random() < 0.9 else long(random)
    return plain(random, what)


def plain(random: Random, what: str) -> Any:
    match what:
        case "null":
            return None
        case "boolean":
            return random.random() < 0.5
        case "int":
            return max(-(2**31), min(2**31 - 1, long(random)))
        case "long":
            return long(random)
        case "float":
            return float32(double(random))
        case "double":
            return double(random)
        case "bytes":
            return random.randbytes(random.choice((0, 1, 8, 9, 100)))
    return text(random)


def float32(number: float) -> float:
    """The nearest float of 32 bits, infinite beyond the largest."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return float("inf")


def text(random: Random) -> str:
    if random.random() < 0.7:
        return "".join(random.choices("abcdefgh0123456789-_é", k=random.randrange(1, 12)))
    return random.choice(TEXTS)


def long(random: Random) -> int:
    return random.randrange(-5, 100) if random.random() < 0.6 else random.choice(LONGS)


def double(random: Random) -> float:
    return random.uniform(-10, 1000) if random.random() < 0.6 else random.choice(DOUBLES)


def amount(random: Random, precision: int) -> bytes:
    """A decimal's bytes: of an ordinary amount, and of any that its digits hold."""
    drawn = random.randrange(10**7) if random.random() < 0.8 else random.choice(LONGS)
    number: int = drawn % 10 ** min(precision, 18)
    size = random.choice((8, (number.bit_length() + 8) // 8))
    return number.to_bytes(size, "big", signed=True)


def _count(random: Random, depth: int) -> int:
    return random.choice((0, 1, 1, 2) if depth > 2 else (0, 1, 1, 2, 3, 8, 16))


# -- spoiling ----------------------------------------------------------------------------------------------------


def spoilt(random: Random, data: bytes, other: bytes = b"") -> bytes:
    """The bytes after a few accidents: bits turned, parts cut out, doubled, or taken from `other`."""
    made = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        at = random.randrange(len(made) + 1)
        end = min(len(made), at + random.choice((1, 2, 4, 9, 64)))
        match random.randrange(9):
            case 0 if at < len(made):
                made[at] ^= 1 << random.randrange(8)
            case 1 if at < len(made):
                made[at] = random.choice(BYTES)
            case 2:
                made[at:at] = random.randbytes(random.choice((1, 2, 8)))
            case 3:
                del made[at:end]
            case 4:
                made[at:at] = made[at:end] * random.choice((1, 2, 50))
            case 5:
                del made[at:]
            case 6:
                made[at:end] = b"\xff" * random.choice((1, 4, 9, 10, 11))
            case 7:
                made[at:end] = other[random.randrange(len(other) + 1) :]
            case _:
                made[at:end] = bytes((random.choice(BYTES) | 0x80, random.randrange(256), random.randrange(128)))
    return bytes(made)


def bent(random: Random, given: Any, times: int | None = None) -> Any:
    """A JSON value with some of its places changed: dropped, renamed, of another type, doubled, nested."""
    made = copy.deepcopy(given)
    for _ in range(random.choice((0, 1, 1, 2, 3)) if times is None else times):
        holder, key = _place(random, made)
        if holder is None:
            made = json_value(random)
            continue
        match random.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[text(random)] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder += [holder[key]] * random.choice((1, 3, 600))
            case 3:
                for _ in range(random.choice((1, 5, 250))):
                    holder[key] = random.choice(([holder[key]], {"a": holder[key]}))
            case _:
                holder[key] = json_value(random)
    return made


def json_value(random: Random) -> Any:
    match random.randrange(6):
        case 0:
            return text(random)
        case 1:
            return long(random)
        case 2:
            return double(random)
        case 3:
            return {text(random): json_value(random) for _ in range(random.randrange(3))}
        case 4:
            return [json_value(random) for _ in range(random.randrange(3))]
    return copy.deepcopy(random.choice(JSONS))


def _place(random: Random, given: Any) -> tuple[Any, Any]:
    """A container inside of it and one of its keys; (None, None) for the whole."""
    holder, key, at = None, None, given
    while isinstance(at, dict | list) and at and (holder is None or random.random() < 0.7):
        holder, key = at, random.choice(list(at)) if isinstance(at, dict) else random.randrange(len(at))
        at = at[key]
    return holder, key
