"""Physical values to Python's own and back: a time in milliseconds is an aware datetime, an amount a Decimal.
For people's code; the hot path and the state keep the physical ones."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from schemas.catalog import Schema
from schemas.errors import BadRecord
from schemas.resolution import kind

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_logical(schema: Schema, value: Any) -> Any:
    """A physical value of `schema` with datetimes and Decimals. BadRecord (out_of_range) beyond year 9999."""
    return _mapped(schema, value, _logical, "")


def to_physical(schema: Schema, value: Any) -> Any:
    """A value with datetimes and Decimals, or with physical values already, as physical ones.
    BadRecord where a time has no zone, or an amount more digits than the schema."""
    return _mapped(schema, value, _physical, "")


def time_of(milliseconds: int) -> datetime:
    """An aware datetime, UTC. OverflowError outside of the years 1 to 9999."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def milliseconds_of(time: datetime) -> int:
    """Milliseconds since 1970, rounded down. TypeError for a time without a zone."""
    return (time - EPOCH) // _MS


def amount_of(unscaled: bytes, scale: int) -> Decimal:
    """The amount in units of currency."""
    return Decimal(int.from_bytes(unscaled, "big", signed=True)).scaleb(-scale)


def unscaled_of(amount: Decimal, precision: int, scale: int) -> bytes:
    """The shortest two's complement of `amount` x 10^scale, big endian. ValueError where that is no whole
    number, or has more digits than `precision`."""
    if not amount.is_finite() or (amount and amount.adjusted() >= precision - scale):
        raise ValueError(f"{amount} has more than {precision - scale} digits before the point")
    exact = amount.quantize(Decimal(1).scaleb(-scale))
    if exact != amount:
        raise ValueError(f"{amount} has more than {scale} decimals")
    number = int(exact.scaleb(scale))
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


Convert = Callable[[dict[str, Any], Any], Any]


def _mapped(schema: Schema, value: Any, convert: Convert, path: str) -> Any:
    """`value` with `convert` applied wherever `schema` has a logical type."""
    if isinstance(schema, list):
        others = [branch for branch in schema if branch != "null"]
        return value if value is None or len(others) != 1 else _mapped(others[0], value, convert, path)
    if isinstance(schema, str):
        return value
    match kind(schema):
        case "record" if isinstance(value, Mapping):
            types = {field["name"]: field["type"] for field in schema["fields"]}
            return {
                name: _mapped(types.get(name, "null"), one, convert, f"{path}.{name}".lstrip("."))
                for name, one in value.items()
            }
        case "array" if isinstance(value, list | tuple):
            return [_mapped(schema["items"], one, convert, f"{path}[{n}]") for n, one in enumerate(value)]
        case "map" if isinstance(value, Mapping):
            return {key: _mapped(schema["values"], one, convert, f"{path}[{key!r}]") for key, one in value.items()}
    if "logicalType" not in schema:
        return value
    try:
        return convert(schema, value)
    except (OverflowError, ValueError) as error:
        raise BadRecord("out_of_range", str(error), where=path) from error
    except TypeError as error:
        raise BadRecord("wrong_type", str(error), where=path) from error


def _logical(schema: dict[str, Any], value: Any) -> Any:
    if schema["logicalType"] == "timestamp-millis":
        return time_of(value)
    return amount_of(value, schema["scale"]) if schema["logicalType"] == "decimal" else value


def _physical(schema: dict[str, Any], value: Any) -> Any:
    if isinstance(value, datetime):
        return milliseconds_of(value)
    return unscaled_of(value, schema["precision"], schema["scale"]) if isinstance(value, Decimal) else value
