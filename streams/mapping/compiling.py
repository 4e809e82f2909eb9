"""A mapping's document to one function from messages to records of the contract, checked against the contract first:
a field that it does not have, a required one that nothing fills, a constant or expression of another type.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from schemas import catalog
from schemas.errors import BadRecord, SettingsError
from schemas.resolution import default
from streams.mapping.attributes import Rest
from streams.mapping.converting import branch, shown, type_name
from streams.mapping.document import Document
from streams.mapping.expressions import condition
from streams.mapping.leaves import Leaves, bad, none, nothing, required
from streams.mapping.paths import Get, Message, getter, steps

IDS = ("event_id", "label_id")
"""What nothing fills is made of the message's place: the same one when it is read again."""
_MOST_LINES = 10_000


class Compiled:
    """Messages to records of the contract `document.target`, in physical values. Safe from any thread.

    `paths`: what of the source is read, by the field of the contract.
    """

    def __init__(self, document: Document, where: str = "the mapping") -> None:
        """SettingsError that names each thing that is wrong with the document."""
        self.document, self.where = document, where
        self._leaves = Leaves(document.fields)
        self.paths = self._leaves.paths
        self._holds = self._leaves.checked(lambda: condition(document.when, "when")) if document.when else None
        self._fields = self._record(catalog.load(document.target), document.fields, "")
        self._rest = self._attributes()
        if self._leaves.problems:
            raise SettingsError(
                "; ".join(dict.fromkeys(map(str, self._leaves.problems))), where=where,
                todo=f"docs/adopt.md lists what a mapping may say, schemas/avro/{document.target}.avsc the fields",
            )  # fmt: skip

    def __call__(self, message: Message) -> dict[str, Any] | None:
        """None for a message that `when` leaves out. BadRecord that names the field and where it came from."""
        value = message.value
        if type(value) is not dict:
            raise BadRecord("wrong_type", f"{shown(value)} is no object", expected="a record with fields")
        if self._holds is not None and not self._holds(message):
            return None
        record: dict[str, Any] = self._fields(value, message)
        if self._rest is not None:
            self._rest.add(record["attributes"], value)
        return record

    # -- compiling: each gives a function from (record or list element, message) to a physical value ---------------

    def _record(self, schema: Mapping[str, Any], given: Any, path: str) -> Get:
        fields = {field["name"]: field for field in schema["fields"]}
        if not isinstance(given, Mapping):
            self._leaves.wrong(f"{path or 'fields'} is a record", path, "a table of its fields")
            return nothing
        for name in given:
            if name not in fields:
                near = difflib.get_close_matches(str(name), fields, n=1)
                expected = near[0] if near else "one of " + ", ".join(fields)
                self._leaves.wrong(f"{schema['name']} has no field {name}", _joined(path, str(name)), expected)
        made = [(name, self._field(field, given, _joined(path, name))) for name, field in fields.items()]
        return lambda here, message: {name: get(here, message) for name, get in made}

    def _field(self, field: Mapping[str, Any], given: Mapping[str, Any], path: str) -> Get:
        name, schema = field["name"], field["type"]
        if name not in given:
            return self._unmapped(field, path)
        inner, nullable = branch(schema)
        match type_name(inner):
            case "record" if isinstance(inner, dict):
                return self._record(inner, given[name], path)
            case "array" if isinstance(inner, dict):
                return self._list(inner, given[name], path)
            case "map" if isinstance(inner, dict):
                return self._map(inner, given[name], path)
        fallback = none if nullable else _default(field) if "default" in field else required
        return self._leaves.leaf(inner, given[name], path, fallback)

    def _unmapped(self, field: Mapping[str, Any], path: str) -> Get:
        if path in IDS:
            return lambda here, message: f"{message.topic}/{message.partition}/{message.offset}"
        if "default" not in field:
            expected = f"a path, value or cel for a {type_name(branch(field['type'])[0])}"
            self._leaves.wrong(f"{path} is required, and nothing fills it", path, expected)
            return nothing
        made = _default(field)
        return lambda here, message: made()

    def _list(self, schema: Mapping[str, Any], given: Any, path: str) -> Get:
        if not isinstance(given, Mapping) or not {"each", "fields"} >= given.keys() >= {"each"}:
            self._leaves.wrong(
                f"{path} is a list", path, "each = the path of the list, and fields = a table of its elements'"
            )
            return nothing
        get = self._leaves.checked(lambda: getter(_text(given["each"]), f"{path}.each")) or nothing
        self.paths[path] = (_text(given["each"]),)
        one = self._record(schema["items"], given.get("fields", {}), f"{path}[]")

        def make(here: Any, message: Message) -> list[Any]:
            found = get(here, message)
            if type(found) is not list:
                raise bad("it is missing" if found is None else f"{shown(found)} is no list", path, self.paths)
            if len(found) > _MOST_LINES:
                raise bad(f"{len(found):,} elements", path, self.paths, "out_of_range")
            return [one(element, message) for element in found]

        return make

    def _map(self, schema: Mapping[str, Any], given: Any, path: str) -> Get:
        if not isinstance(given, Mapping):
            self._leaves.wrong(f"{path} is a table", path, "names, each with a path, value or cel")
            return nothing
        inner, _ = branch(schema["values"])
        made = [
            (str(key), self._leaves.leaf(inner, leaf, _joined(path, str(key)), none)) for key, leaf in given.items()
        ]

        def make(here: Any, message: Message) -> dict[str, Any]:
            found = ((key, get(here, message)) for key, get in made)
            return {key: value for key, value in found if value is not None}

        return make

    def _attributes(self) -> Rest | None:
        asked = self.document.attributes
        if not asked.include:
            return None
        fields = [field["name"] for field in catalog.load(self.document.target)["fields"]]
        if "attributes" not in fields:
            self._leaves.wrong(f"{self.document.target} has no attributes", "attributes", "nothing")
            return None
        mapped = [steps(path, field) for field, paths in self.paths.items() if "[]" not in field for path in paths]
        return Rest(asked.include, asked.exclude, [".".join(map(str, each)) for each in mapped], asked.most)


def _default(field: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: default(field["type"], field["default"], {})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
