"""A first mapping from samples: fields of the contract to paths, by names, types and the shapes of values.
It guesses, and says of what it is not sure: a person reads it, `headrace mapping check` tries it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from schemas import catalog
from streams.mapping.converting import branch, type_name
from streams.mapping.synonyms import GUESTS, SYNONYMS

SURE, POSSIBLE = 0.8, 0.55
KINDS = 20  # words that a field which tells kinds of records apart has at most
UNITS = frozenset({"minor", "cents", "cent", "pence"})
GENERIC = frozenset({"id", "number", "type", "kind", "token", "name", "count", "value", "time", "date", "ts"})
"""What says little below another record: an id there is that record's."""
KEPT = 50  # values of a path that are looked at
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_ZONED = re.compile(r"(Z|[+-]\d\d:?\d\d)$")
_PLAIN = re.compile(r"[^.\[\]\"$\\\x00-\x1f\x7f\ud800-\udfff]+(\.[^.\[\]\"$\\\x00-\x1f\x7f\ud800-\udfff]+)*")
"""Names that stand in a path, and in TOML, as they are."""


@dataclass(slots=True)
class Seen:
    """What a path holds in the samples."""

    count: int = 0
    values: list[Any] = field(default_factory=list)

    def add(self, value: Any) -> None:
        self.count += 1
        if len(self.values) < KEPT:
            self.values.append(value)


@dataclass(frozen=True, slots=True)
class Guess:
    """A line of the mapping; `doubt` says why a person should look, empty where it is sure. No `toml`: not found."""

    field: str
    toml: str
    doubt: str = ""


Record = Mapping[str, Any]


def suggest(target: str, samples: Sequence[Any]) -> tuple[str, list[Guess]]:
    """The `when` of a topic that holds several kinds of records, else empty; and a guess for each field of the contract
    that something fills, or that must be filled.
    """
    given: list[Record] = [sample for sample in samples if isinstance(sample, dict)]
    when, rows = _one_kind(target, given)
    return when, list(_record(catalog.load(target), _paths(rows), len(rows), "", ""))


def _one_kind(target: str, rows: list[Record]) -> tuple[str, list[Record]]:
    """The kind of records that fills most of what the contract requires, and the condition that picks it."""
    best, found = _required(target, rows), ("", rows)
    for name in sorted({name for row in rows[:KEPT] for name in row if _PLAIN.fullmatch(str(name))}):
        words = {word for row in rows if isinstance(word := row.get(name), str) and _PLAIN.fullmatch(word)}
        if name.isidentifier() and 1 < len(words) <= min(KINDS, len(rows) // 3):
            for word in sorted(words):
                part = [row for row in rows if row.get(name) == word]
                if (filled := _required(target, part)) > best:
                    best, found = filled, (f'source.{name} == "{word}"', part)
    return found


def _required(target: str, rows: list[Record]) -> float:
    """Of the fields that must be there, how many are, in the mean over the rows; without lists' own fields."""
    seen = _paths(rows)
    total = 0.0
    for field_ in catalog.load(target)["fields"]:
        inner, nullable = branch(field_["type"])
        if nullable or "default" in field_ or field_["name"] in ("event_id", "user_id", "label_id"):
            continue
        fits = _SHAPES.get(type_name(inner), _is_text) if type_name(inner) != "array" else _is_list
        likely = [path for path in seen if _alike(field_["name"], path, "") > SURE and _share(seen[path], fits) > 0.5]
        total += max((seen[path].count for path in likely), default=0) / max(1, len(rows))
    return round(total, 3)


def _record(schema: Mapping[str, Any], seen: Mapping[str, Seen], rows: int, path: str, context: str) -> Iterator[Guess]:
    for each in schema["fields"]:
        inner, nullable = branch(each["type"])
        place, optional = f"{path}{each['name']}", nullable or "default" in each
        match type_name(inner):
            case "map":
                continue
            case "record" if isinstance(inner, dict):
                yield from _record(inner, seen, rows, f"{place}.", each["name"])
            case "array" if isinstance(inner, dict):
                yield from _list(inner, seen, place, each["name"])
            case _:
                yield from _leaf(inner, each["name"], seen, rows, place, context, optional)


def _list(schema: Mapping[str, Any], seen: Mapping[str, Seen], place: str, name: str) -> Iterator[Guess]:
    lists = {path: found for path, found in seen.items() if any(isinstance(value, list) for value in found.values)}
    best = max(lists, key=lambda path: _alike(name, path, ""), default="")
    if not best:
        yield Guess(place, "", "required, and no list was found")
        return
    doubt = "" if _alike(name, best, "") >= SURE else "by being the list that is most like it"
    yield Guess(f"{place}.each", f'"{best}"', doubt)
    elements = [
        one for value in lists[best].values if isinstance(value, list) for one in value if isinstance(one, dict)
    ]
    for guess in _record(schema["items"], _paths(elements), len(elements), "", ""):
        yield Guess(f"{place}.fields.{guess.field}", guess.toml, guess.doubt)


def _leaf(
    schema: Any, name: str, seen: Mapping[str, Seen], rows: int, place: str, context: str, optional: bool
) -> Iterator[Guess]:
    fits = _SHAPES.get(type_name(schema), _is_text)
    scored = {
        path: _alike(name, path, context) * (0.5 + 0.5 * share)
        for path, found in seen.items()
        if (share := _share(found, fits)) > 0.5
    }
    best = max(scored, key=lambda path: (scored[path], -path.count(".")), default="")
    made = place in ("event_id", "label_id")  # of the message's place, where nothing fills it
    if made and (not best or seen[best].count < rows or not _is_unique(seen[best])):
        return
    if not best or scored[best] < (SURE if optional or made else POSSIBLE):
        if not optional:
            yield Guess(place, "", f"required, and nothing like a {type_name(schema)} of this name was found")
        return
    doubts = [] if scored[best] >= SURE else ["the name is only alike"]
    if seen[best].count < rows and not optional:
        doubts.append(f"missing in {rows - seen[best].count} of {rows} samples")
    close = [path for path, score in scored.items() if path != best and score > scored[best] - 0.05]
    if close:
        doubts.append("or " + ", ".join(sorted(close)[:3]))
    toml, more = _written(schema, name, best, seen, rows)
    if "guest =" in toml:  # that some have no id is what it is for
        doubts = [doubt for doubt in doubts if not doubt.startswith("missing")]
    yield Guess(place, toml, "; ".join([*doubts, *more]))


def _written(schema: Any, name: str, path: str, seen: Mapping[str, Seen], rows: int) -> tuple[str, list[str]]:
    """The source as TOML, and what about it is a guess."""
    values = [value for value in seen[path].values if value is not None]
    match type_name(schema):
        case "timestamp-millis":
            return _time(path, values)
        case "decimal":
            return _amount(path, values)
        case "enum":
            strange = sorted({value for value in values if _PLAIN.fullmatch(value)} - set(schema["symbols"]))
            if strange:
                words = ", ".join(f'"{word}" = "{_nearest(word, schema["symbols"])}"' for word in strange[:20])
                return f'{{ path = "{path}", values = {{ {words} }}, otherwise = "unknown" }}', ["translate the words"]
    if name == "user_id":
        guest = max(seen, key=lambda each: max(_likeness(word, each) for word in GUESTS), default="")
        if guest and guest != path and max(_likeness(word, guest) for word in GUESTS) >= SURE:
            return f'{{ path = "{path}", guest = "{guest}" }}', []
    return f'"{path}"', []


def _time(path: str, values: Sequence[Any]) -> tuple[str, list[str]]:
    if any(isinstance(value, str) and _ISO.match(value) for value in values):
        if all(_ZONED.search(value) for value in values if isinstance(value, str)):
            return f'"{path}"', []
        return f'{{ path = "{path}", zone = "UTC" }}', ["no zone is written: whose time is it?"]
    largest = max((float(value) for value in values), default=0.0)
    unit = next(unit for unit, limit in _EPOCHS if largest < limit)
    return f'{{ path = "{path}", time = "{unit}" }}', []


_EPOCHS = (("epoch_s", 1e11), ("epoch_ms", 1e14), ("epoch_us", 1e17), ("epoch_ns", float("inf")))


def _amount(path: str, values: Sequence[Any]) -> tuple[str, list[str]]:
    words = set(_words(path))
    if words & UNITS:
        return f'{{ path = "{path}", unit = "minor" }}', []
    if words & {"micros", "micro"}:
        return f'{{ path = "{path}", unit = "micros" }}', []
    if values and all(type(value) is int for value in values) and max(values) >= 100:
        return f'{{ path = "{path}", unit = "minor" }}', ["whole numbers: minor units, or units?"]
    return f'"{path}"', []


def _paths(rows: Sequence[Mapping[str, Any]]) -> dict[str, Seen]:
    """What each path holds. Lists are one path: their elements are looked at apart."""
    seen: defaultdict[str, Seen] = defaultdict(Seen)
    for row in rows:
        for path, value in _leaves(row, "", 6):
            if value is not None:
                seen[path].add(value)
    return dict(seen)


def _leaves(row: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        here = f"{path}.{name}" if path else str(name)
        if isinstance(value, dict) and depth:
            yield from _leaves(value, here, depth - 1)
        elif _PLAIN.fullmatch(here):
            yield here, value


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


def _alike(name: str, path: str, context: str) -> float:
    """How much a path sounds like a field: by its last name, by its last two; earlier synonyms count more."""
    known = SYNONYMS.get(name, (name.replace("_", " "),))
    parents, wanted = set(_words(path.rpartition(".")[0])), _words(context)
    at_home = any(parent[:3] == word[:3] for parent in parents for word in wanted) if context else not parents
    scored = (
        _likeness(word, path) * (1.0 if at_home or word not in GENERIC else 0.7) - 0.01 * place
        for place, word in enumerate(known)
    )
    return min(1.0, max(scored) + (0.05 if context and at_home else 0.0))


@lru_cache(65_536)
def _likeness(words: str, path: str) -> float:
    parts = path.split(".")
    named = ([word for word in _words(".".join(parts[-count:])) if word not in UNITS] for count in (1, 2, 3))
    tails = [" ".join(words_) for words_ in named if words_]
    if not tails:
        return 0.0
    return max(SequenceMatcher(None, words, tail).ratio() if tail != words else 1.0 for tail in tails)


def _nearest(word: str, symbols: Sequence[str]) -> str:
    parts = _words(word)
    return next((symbol for symbol in symbols if symbol in parts), "unknown")


def _share(found: Seen, fits: Callable[[Any], bool]) -> float:
    values = [value for value in found.values if value is not None]
    return sum(map(fits, values)) / len(values) if values else 0.0


def _is_unique(found: Seen) -> bool:
    return len({str(value) for value in found.values}) == len(found.values)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or (isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value) is not None)


def _is_time(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_ISO.match(value))
    return type(value) in (int, float) and value > 9e8


_SHAPES: dict[str, Callable[[Any], bool]] = {
    "timestamp-millis": _is_time,
    "decimal": _is_number,
    "int": lambda value: type(value) is int or (isinstance(value, str) and value.isdecimal()),
    "double": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "enum": lambda value: isinstance(value, str),
}
