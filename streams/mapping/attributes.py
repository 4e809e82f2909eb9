"""What no field maps, and a pattern lets through, goes to `attributes` under its own path.
Bounded: so many attributes, so deep, texts cut; a shop's record may hold anything.
"""

from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from streams.mapping.converting import Mismatch, attribute

DEPTH = 8
KNOWN_PATHS = 4_096
PATH_CHARS = 256


class Rest:
    """Adds to a record's attributes. What was decided of a path is remembered."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str], mapped: Collection[str], most: int) -> None:
        self._include, self._exclude, self._mapped, self._most = include, exclude, frozenset(mapped), most
        self._decided: dict[str, bool] = {}

    def add(self, attributes: dict[str, Any], value: dict[str, Any]) -> None:
        for path, leaf in _leaves(value, "", DEPTH):
            if len(attributes) >= self._most:
                return
            if self._wanted(path) and path not in attributes:
                try:
                    found = attribute(leaf)
                except Mismatch:
                    continue
                if found is not None:
                    attributes[path] = found

    def _wanted(self, path: str) -> bool:
        known = self._decided.get(path)
        if known is None:
            known = len(path) <= PATH_CHARS and path not in self._mapped and self._matches(path)
            if len(self._decided) < KNOWN_PATHS:
                self._decided[path] = known
        return known

    def _matches(self, path: str) -> bool:
        wanted = any(fnmatchcase(path, pattern) for pattern in self._include)
        return wanted and not any(fnmatchcase(path, pattern) for pattern in self._exclude)


def _leaves(value: dict[str, Any], path: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        here = f"{path}.{name}" if path else str(name)
        if type(part) is dict:
            if depth:
                yield from _leaves(part, here, depth - 1)
        elif type(part) is not list:
            yield here, part
