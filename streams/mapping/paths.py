"""Where in a record a value is: `customer.id`, `lines[0].sku`, `meta["utm.source"]`, or of the message itself `$key`.
A path that leads nowhere gives None, as a null does: which of both it was is not worth a field's fate.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from schemas.errors import SettingsError

_STEP = re.compile(r"""\.?([^.\[\]"$][^.\[\]"]*) | \[(\d{1,6})\] | \["((?:[^"\\]|\\.)*)"\]""", re.VERBOSE)
ROOTS = ("$key", "$topic", "$partition", "$offset", "$timestamp", "$headers", "$root")


class Message(NamedTuple):
    """A decoded message. `value`: as JSON has it, a dict for all that can be mapped. `time`: UTC ms, the broker's."""

    value: Any
    key: str = ""
    headers: Mapping[str, str] = {}
    topic: str = ""
    partition: int = 0
    offset: int = 0
    time: int = 0


Get = Callable[[Any, Message], Any]
"""From the record or, inside a list, its element; and the message."""
_OF_MESSAGE: dict[str, Callable[[Message], Any]] = {
    "$key": lambda message: message.key or None,
    "$topic": lambda message: message.topic,
    "$partition": lambda message: message.partition,
    "$offset": lambda message: message.offset,
    "$timestamp": lambda message: message.time,
    "$headers": lambda message: message.headers,
    "$root": lambda message: message.value,
}


def steps(path: str, where: str) -> tuple[str | int, ...]:
    """Names and indexes. SettingsError where it is no path."""
    root, rest = "", path
    if path.startswith("$"):
        root = re.match(r"\$\w*", path)[0]  # type: ignore[index]  # it begins so
        rest = path[len(root) :]
        if root not in ROOTS:
            raise _no_path(path, where, f"one of {', '.join(ROOTS)}")
    found: list[str | int] = [root] if root else []
    at = 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if step is None or (at == 0 and not root and rest.startswith(".")):
            raise _no_path(path, where, 'a path such as customer.id, lines[0].sku or meta["utm.source"]')
        name, index, quoted = step.groups()
        found.append(int(index) if index is not None else name if name is not None else quoted.replace('\\"', '"'))
        at = step.end()
    if not found:
        raise _no_path(path, where, "a path such as customer.id")
    return tuple(found)


def getter(path: str, where: str) -> Get:
    """Follows a path. SettingsError where it is none."""
    parts = steps(path, where)
    if isinstance(parts[0], str) and parts[0] in _OF_MESSAGE:
        of, rest = _OF_MESSAGE[parts[0]], parts[1:]
        return lambda here, message: _follow(of(message), rest)
    if len(parts) == 1 and isinstance(name := parts[0], str):
        return lambda here, message: here.get(name) if type(here) is dict else None
    return lambda here, message: _follow(here, parts)


def _follow(value: Any, parts: tuple[str | int, ...]) -> Any:
    for part in parts:
        if type(value) is dict:
            value = value.get(part)
        elif type(value) is list and type(part) is int and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _no_path(path: str, where: str, expected: str) -> SettingsError:
    return SettingsError(f"{path!r} is no path", where=where, expected=expected)
