"""A mapping as it is written: a TOML file that says of each field of a contract where its value comes from.
Only its form is checked here; whether it fits the contract is for `compiling`, which knows the contract's types.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import SettingsError
from streams.contracts import CONTRACTS, KEYS

Format = Literal["json", "avro", "protobuf"]
Time = Literal["iso8601", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns"]
Unit = Literal["units", "minor", "hundredths", "micros"]

TARGETS = {CONTRACTS[setting]: setting for setting in KEYS}
"""Contract to the setting of the topic that it goes to: what a shop may write."""
MAX_BYTES = 256 * 1024


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Leaf(Part):
    """One field's source: a path (of several the first that is there), a constant or a CEL expression; a plain string
    is a path. `values` translates what was found, `default` stands in where nothing was.
    """

    path: Paths = ()
    value: str | int | float | bool | None = None
    cel: str = Field(default="", max_length=4_000)
    time: Time | None = None
    zone: str = ""
    unit: Unit | None = None
    currency: str = Field(default="", pattern=r"^([A-Z]{3})?$")
    values: dict[str, str | int | float | bool] = {}
    otherwise: str | int | float | bool | None = None
    default: str | int | float | bool | None = None
    guest: Paths = ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("path", "value", "cel") if getattr(self, name) not in ((), None, "")]
        if len(given) > 1 or not (given or self.guest):
            raise ValueError(f"one of path, value and cel{', not ' + ' and '.join(given) if given else ''}")
        if self.otherwise is not None and not self.values:
            raise ValueError("otherwise is for what `values` does not list, and there are no values")
        return self


class Attributes(Part):
    """Which fields that nothing else maps become attributes: patterns of their paths, such as `basket.*`."""

    include: Paths = ()
    exclude: Paths = ()
    most: int = Field(default=64, ge=1, le=256)


class Protobuf(Part):
    """descriptors: a file that `protoc --include_imports --descriptor_set_out` wrote; message: its full name."""

    descriptors: str = Field(min_length=1)
    message: str = Field(min_length=1)


class Avro(Part):
    """Of records that no registry knows. schemas: files; framing: what stands before a record that tells its schema."""

    framing: Literal["none", "single_object"]
    schemas: Paths = Field(min_length=1)

    @model_validator(mode="after")
    def _a_bare_record_has_one_schema(self) -> Self:
        if self.framing == "none" and len(self.schemas) > 1:
            raise ValueError("without framing nothing tells which of several schemas a record has: one of them")
        return self


class Document(Part):
    """`fields` is as deep as the contract: a leaf, a table of leaves, or a list's `each` with `fields`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    source: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    format: Format
    target: Literal["click", "order", "ad_impression", "label", "catalog_item", "catalog_ad"]
    when: str = Field(default="", max_length=4_000)
    fields: dict[str, Any]
    attributes: Attributes = Attributes()
    protobuf: Protobuf | None = None
    avro: Avro | None = None

    @model_validator(mode="after")
    def _its_format_is_described(self) -> Self:
        if (self.format == "protobuf") is not (self.protobuf is not None):
            raise ValueError("format = protobuf and a table [protobuf] with descriptors and message go together")
        if self.avro is not None and self.format != "avro":
            raise ValueError("a table [avro] is for format = avro")
        return self


def read(path: str | Path) -> Document:
    """SettingsError where the file cannot be read, or its form is wrong: each place is named."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the mapping cannot be read: {error}", where=str(path), expected="a TOML file") from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Document:
    """`where` names the file in errors."""
    if len(text) > MAX_BYTES:
        raise SettingsError(f"{len(text):,} characters", where=where, expected=f"at most {MAX_BYTES:,}")
    try:
        return Document.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"no TOML: {error}", where=where, todo="docs/adopt.md shows a mapping") from error
    except RecursionError as error:
        raise SettingsError("tables nested too deep", where=where, todo="docs/adopt.md shows a mapping") from error
    except ValidationError as error:
        raise SettingsError(said(error), where=where, todo="docs/adopt.md lists the fields of a mapping") from error


def said(error: ValidationError, path: str = "") -> str:
    """`fields.amount.unit: Input should be …`, one after the other."""
    found = []
    for each in error.errors():
        place = ".".join([*filter(None, [path]), *map(str, each["loc"])])
        found.append(f"{place or 'the mapping'}: {each['msg'].removeprefix('Value error, ')}")
    return "; ".join(found)
