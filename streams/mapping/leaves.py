"""One leaf of a mapping to a function that finds, translates and converts its value; the document's mistakes are kept.
A mistake is found when the mapping is read, never by a record: constants are converted, and CEL is compiled, then.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.catalog import Schema
from schemas.errors import BadRecord, SettingsError
from streams.mapping.converting import Convert, Mismatch, amount, converter, shown, type_name
from streams.mapping.document import Leaf, said
from streams.mapping.expressions import expression
from streams.mapping.money import decimals
from streams.mapping.paths import Get, Message, getter

T = TypeVar("T")
Fallback = Callable[[], Any]

GUEST = "anon:"
_CEL: dict[str, tuple[str, ...]] = {
    "string": ("STRING", "INT"),
    "int": ("INT", "UINT", "DOUBLE", "STRING"),
    "long": ("INT", "UINT", "DOUBLE", "STRING"),
    "double": ("DOUBLE", "INT", "UINT", "STRING"),
    "boolean": ("BOOL",),
    "enum": ("STRING",),
    "decimal": ("INT", "UINT", "DOUBLE", "STRING"),
    "timestamp-millis": ("TIMESTAMP", "STRING", "INT", "UINT", "DOUBLE"),
    "union": ("STRING", "DOUBLE", "INT", "UINT", "BOOL", "NULL"),
}


def none() -> None:
    """The fallback of what may be null."""


def required() -> None:
    """The fallback of what may not be missing: it is compared with, not called."""


def nothing(here: Any, message: Message) -> None:
    """In place of what has a mistake."""


class Leaves:
    """Makes leaves. `problems`: all that is wrong; `paths`: what is read, by the field of the contract.

    `fields` is the document's: an amount in minor units asks it for the currency.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.problems: list[SettingsError] = []
        self.paths: dict[str, tuple[str, ...]] = {}

    def leaf(self, schema: Schema, given: Any, path: str, fallback: Fallback) -> Get:
        leaf = self._parsed(given, path)
        if leaf is None:
            return nothing
        convert = self.checked(lambda: converter(schema, leaf, path))
        get = self._source(leaf, schema, path)
        if convert is None or get is None:
            return nothing
        convert = self._translated(convert, leaf, path)
        if leaf.default is not None:
            fallback = self._constant(convert, leaf.default, f"{path}.default")
        if leaf.value is not None:
            made = self._constant(convert, leaf.value, f"{path}.value")
            return lambda here, message: made()
        if leaf.unit == "minor":
            return self._minor(get, leaf, path, fallback)
        guests = self._guests(leaf, path)
        paths = self.paths

        def make(here: Any, message: Message) -> Any:
            value = get(here, message)
            try:
                if value is None or (value == "" and guests):
                    if guests and (guest := _first(guests, here, message)) is not None:
                        return f"{GUEST}{convert(guest)}"
                    if fallback is required:
                        raise bad("it is missing", path, paths)
                    return fallback()
                return convert(value)
            except Mismatch as error:
                raise bad(str(error), path, paths, error.code) from None

        return make

    def _minor(self, get: Get, leaf: Leaf, path: str, fallback: Fallback) -> Get:
        """An amount in the smallest unit of its currency: the leaf's own, else the one that the record has."""
        currency = self._currency(leaf, path)
        paths = self.paths

        def make(here: Any, message: Message) -> Any:
            value = get(here, message)
            if value is None:
                if fallback is required:
                    raise bad("it is missing", path, paths)
                return fallback()
            try:
                return amount(value, decimals(currency(message)))
            except Mismatch as error:
                raise bad(str(error), path, paths, error.code) from None

        return make

    def _currency(self, leaf: Leaf, path: str) -> Callable[[Message], str]:
        given = self._fields.get("currency")
        if leaf.currency or given is None:
            if not leaf.currency:
                self.wrong("minor units of which currency?", path, "currency = a code, or a field `currency`")
            return lambda message: leaf.currency
        rule = self.leaf("string", given, "currency", required)
        return lambda message: str(rule(message.value, message))

    def _parsed(self, given: Any, path: str) -> Leaf | None:
        if isinstance(given, str):
            return Leaf(path=(given,))
        if not isinstance(given, Mapping):
            self.wrong(f"{shown(given)} is no source", path, "a path, or a table with path, value or cel")
            return None
        try:
            return Leaf.model_validate(given)
        except ValidationError as error:
            self.problems.append(SettingsError(said(error, f"fields.{path}")))
            return None

    def _source(self, leaf: Leaf, schema: Schema, path: str) -> Get | None:
        if leaf.cel:
            found = self.checked(lambda: expression(leaf.cel, path))
            if found is None:
                return None
            get, kind = found
            if kind != "DYN" and not leaf.values and kind not in _CEL[type_name(schema)]:
                self.wrong(f"the expression is a {kind.lower()}", path, f"a {type_name(schema)}")
            return get
        self.paths[path] = (*leaf.path, *leaf.guest)
        getters = self._getters(leaf.path, path)
        if len(getters) == 1:
            return getters[0]
        return lambda here, message: _first(getters, here, message)

    def _guests(self, leaf: Leaf, path: str) -> list[Get]:
        if leaf.guest and path != "user_id":
            self.wrong("guest is for user_id", path, "nothing")
        return self._getters(leaf.guest, path)

    def _getters(self, paths: Sequence[str], field: str) -> list[Get]:
        return [self.checked(partial(getter, each, field)) or nothing for each in paths]

    def _translated(self, convert: Convert, leaf: Leaf, path: str) -> Convert:
        if not leaf.values:
            return convert
        known = {word: self._constant(convert, value, f"{path}.values.{word}")() for word, value in leaf.values.items()}
        other = None if leaf.otherwise is None else self._constant(convert, leaf.otherwise, f"{path}.otherwise")

        def translate(value: Any) -> Any:
            word = str(value).lower() if type(value) is bool else str(value) if type(value) in (int, str) else None
            if word in known:
                return known[word]
            return other() if other is not None else convert(value)

        return translate

    def _constant(self, convert: Convert, value: Any, path: str) -> Callable[[], Any]:
        """A constant, which is converted now: of another type it is the document's mistake."""
        try:
            made = convert(value)
        except Mismatch as error:
            self.wrong(str(error), path, "a constant of the contract's type")
            return none
        return lambda: made

    def checked(self, make: Callable[[], T]) -> T | None:
        """What `make` gives; what it complains of is kept, so that one look at a file tells all of it."""
        try:
            return make()
        except SettingsError as problem:
            self.problems.append(problem)
            return None

    def wrong(self, what: str, path: str, expected: str) -> None:
        self.problems.append(SettingsError(what, where=f"fields.{path}" if path else "fields", expected=expected))


def _first(getters: Sequence[Get], here: Any, message: Message) -> Any:
    """The first that is there; an empty text is not."""
    for get in getters:
        value = get(here, message)
        if value is not None and value != "":
            return value
    return None


def bad(what: str, field: str, paths: Mapping[str, tuple[str, ...]], code: str = "wrong_type") -> BadRecord:
    sources = ", ".join(paths.get(field, ()))
    return BadRecord(code, what, where=f"{field}, mapped from {sources}" if sources else field)
