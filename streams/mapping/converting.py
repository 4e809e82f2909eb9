"""One value of a stranger's record to one physical value of the contract, by the contract's type and what a leaf says.
Nothing is guessed: a number is a time only where its unit is named, and a time without a zone only where one is given.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from schemas.catalog import Schema
from schemas.errors import SettingsError
from schemas.resolution import kind
from streams.mapping.document import Leaf
from streams.mapping.money import FIXED, NoAmount, unscaled

Convert = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_PER_MS = {"epoch_us": 1_000, "epoch_ns": 1_000_000}
LARGEST = 1 << 63
ATTRIBUTE_CHARS = 256


class Mismatch(ValueError):
    """A value that the contract cannot hold. `code` as of BadRecord; str() says what is wrong with it."""

    def __init__(self, what: str, code: str = "wrong_type") -> None:
        super().__init__(what)
        self.code = code


def branch(schema: Schema) -> tuple[Schema, bool]:
    """The type beside null, and whether null may be. Of a union of several types, the union."""
    if not isinstance(schema, list):
        return schema, False
    others = [each for each in schema if each != "null"]
    return (others[0] if len(others) == 1 else others), "null" in schema


def type_name(schema: Schema) -> str:
    """`string`, `double`, `timestamp-millis`, `decimal`, `enum`, `record`, `array`, `map`, `union`."""
    unit = schema.get("logicalType") if isinstance(schema, dict) else None
    return str(unit or kind(schema))


def converter(schema: Schema, leaf: Leaf, where: str) -> Convert:
    """Raises Mismatch for a value, SettingsError for a leaf that does not fit the type. `schema`: not nullable.

    An amount in `minor` units of no stated currency is for `compiling`: it needs the record's.
    """
    name = type_name(schema)
    if (leaf.time or leaf.zone) and name != "timestamp-millis":
        raise _misfit("time and zone are for times", where, name)
    if (leaf.unit or leaf.currency) and name != "decimal":
        raise _misfit("unit and currency are for amounts", where, name)
    match name:
        case "timestamp-millis":
            return _time(leaf, where)
        case "decimal":
            places = FIXED.get(leaf.unit or "units", 0)
            return lambda value: amount(value, places)
        case "enum" if isinstance(schema, dict):
            return _symbol(schema["symbols"])
    try:
        return _PLAIN[name]
    except KeyError:
        raise _misfit("a leaf cannot fill it", where, name) from None


def amount(value: Any, places: int) -> bytes:
    try:
        return unscaled(value, places)
    except NoAmount as error:
        raise Mismatch(
            f"{shown(value)}: {error}", "wrong_type" if "no number" in str(error) else "out_of_range"
        ) from None


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _string(value: Any) -> str:
    kind_ = type(value)
    if kind_ is str:
        if not value.isascii():
            _utf8(value)
        return str(value)
    if kind_ is int:
        return str(value)
    raise Mismatch(f"{shown(value)} is no string")


def _utf8(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Mismatch("half a surrogate pair, which UTF-8 cannot hold") from None


def _whole(bits: int) -> Convert:
    limit = 1 << (bits - 1)

    def convert(value: Any) -> int:
        number = int(value) if _is_whole(value) else value
        if type(number) is not int:
            raise Mismatch(f"{shown(value)} is no whole number")
        if not -limit <= number < limit:
            raise Mismatch(f"{shown(value)} has more than {bits} bits", "out_of_range")
        return number

    return convert


def _is_whole(value: Any) -> bool:
    """A number that is written as a text, or 2.0 for 2."""
    if type(value) is str:
        return len(value) < 25 and re.fullmatch(r"[+-]?\d+", value, re.ASCII) is not None
    return type(value) is float and value.is_integer()


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise Mismatch(f"{shown(value)} is no number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Mismatch(f"{shown(value)} is no number") from None
    if not math.isfinite(number):
        raise Mismatch(f"{shown(value)} is no finite number", "out_of_range")
    return number


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise Mismatch(f"{shown(value)} is not true or false; `values` translates other words for it")
    return bool(value)


def _symbol(symbols: list[str]) -> Convert:
    known = frozenset(symbols)

    def convert(value: Any) -> str:
        if type(value) is not str or value not in known:
            raise Mismatch(f"{shown(value)} is none of {', '.join(symbols)}; `values` and `otherwise` translate")
        return value

    return convert


def attribute(value: Any) -> str | float | bool | None:
    """What an attribute can hold; a text is cut, a list or an object is None."""
    if type(value) is str:
        text = value[:ATTRIBUTE_CHARS]
        if not text.isascii():
            _utf8(text)
        return text
    if type(value) is bool:
        return value
    if type(value) in (int, float):
        return _number(value)
    return None


def _time(leaf: Leaf, where: str) -> Convert:
    if (leaf.time or "iso8601") == "iso8601":
        return _iso8601(_zone(leaf.zone, where))
    if leaf.zone:
        raise _misfit("an epoch is of UTC and has no zone", where, "time in ISO 8601")
    unit = leaf.time or ""

    def epoch(value: Any) -> int:
        try:
            number = Decimal(value) if type(value) is str and len(value) < 40 else value
            if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
                raise Mismatch(f"{shown(value)} is no {unit}")
            ms = math.floor(number * 1_000) if unit == "epoch_s" else math.floor(number) // _PER_MS.get(unit, 1)
        except (InvalidOperation, ValueError, OverflowError):
            raise Mismatch(f"{shown(value)} is no {unit}") from None
        if not -LARGEST <= ms < LARGEST:
            raise Mismatch(f"{shown(value)} is no {unit} of this age", "out_of_range")
        return ms

    return epoch


def _iso8601(zone: ZoneInfo | None) -> Convert:
    def convert(value: Any) -> int:
        if type(value) is str:
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise Mismatch(f"{shown(value)} is no time of ISO 8601") from None
        if not isinstance(value, datetime):
            raise Mismatch(f'{shown(value)} is no time of ISO 8601; for a number say time = "epoch_ms" or so')
        try:
            if value.utcoffset() is None:
                if zone is None:
                    raise Mismatch(f'{value.isoformat()} has no zone; say zone = "Europe/London" or so')
                value = value.replace(tzinfo=zone)
            return int((value - _EPOCH) // _MS)
        except OverflowError:
            raise Mismatch(f"{shown(value)} is beyond the calendar", "out_of_range") from None

    return convert


def _zone(name: str, where: str) -> ZoneInfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise SettingsError(f"there is no time zone {name!r}", where=where, expected="such as Europe/London") from error


def _misfit(what: str, where: str, name: str) -> SettingsError:
    return SettingsError(what, where=where, todo=f"the contract has a {name} here")


_PLAIN: dict[str, Convert] = {
    "string": _string,
    "int": _whole(32),
    "long": _whole(64),
    "double": _number,
    "float": _number,
    "boolean": _boolean,
    "union": attribute,
}
