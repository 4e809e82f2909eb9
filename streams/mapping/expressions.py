"""CEL in mappings: an expression over `source` (the record), `item` (inside a list), and the message's own facts.
CEL is no Python: no side effects, a bounded number of steps. What is not there counts as missing, not as a failure.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from cel_expr_python import cel

from schemas.errors import BadRecord, SettingsError
from streams.mapping.paths import Get, Message
from streams.policy.growth import too_much

_T = cel.Type
_DYN_MAP = _T.Map(_T.STRING, _T.DYN)
_VARIABLES = {
    "source": _DYN_MAP,
    "item": _T.DYN,
    "key": _T.STRING,
    "headers": _T.Map(_T.STRING, _T.STRING),
    "topic": _T.STRING,
    "partition": _T.INT,
    "offset": _T.INT,
    "time": _T.INT,
}
_GIVEN: Mapping[str, Callable[[Any, Message], Any]] = {
    "source": lambda here, message: message.value,
    "item": lambda here, message: here,
    "key": lambda here, message: message.key,
    "headers": lambda here, message: dict(message.headers),
    "topic": lambda here, message: message.topic,
    "partition": lambda here, message: message.partition,
    "offset": lambda here, message: message.offset,
    "time": lambda here, message: message.time,
}
_NAME = re.compile(r"[A-Za-z_]\w*")
_ABSENT = re.compile(r"NOT_FOUND|Key not found|no such key|index.*out of")


@cache
def _environment() -> Any:
    return cel.NewEnv(variables=_VARIABLES)


def expression(text: str, where: str) -> tuple[Get, str]:
    """What it gives, None where a key of it is not there; and its type's name as CEL knows it (`DYN`: only then).

    SettingsError where it does not compile; what it gives raises BadRecord where it fails on a record.
    """
    if complaint := too_much(text):
        raise SettingsError(f"CEL that cannot be used: {complaint}", where=where)
    try:
        compiled = _environment().compile(text)
    except (RuntimeError, ValueError, TypeError) as error:
        raise SettingsError(
            f"CEL that cannot be used: {_first_line(str(error))}", where=where, expected=f"CEL over {', '.join(_GIVEN)}"
        ) from error
    names = [name for name in _GIVEN if name in set(_NAME.findall(text))]
    environment = _environment()

    def get(here: Any, message: Message) -> Any:
        try:
            known = environment.Activation({name: _GIVEN[name](here, message) for name in names})
            answer = compiled.eval(known)  # CEL, not Python: no side effects, no calls out
            value = answer.value()
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise _failed(text, str(error), where) from None
        if answer.type() == _T.ERROR:
            if _ABSENT.search(str(value)):
                return None
            raise _failed(text, str(value), where)
        return value

    return get, str(compiled.return_type().name())


def condition(text: str, where: str) -> Callable[[Message], bool]:
    """True where it holds; false, too, where what it looks at is not there. SettingsError where it is no yes or no."""
    get, kind = expression(text, where)
    if kind not in ("BOOL", "DYN"):
        raise SettingsError(f"it is a {kind.lower()}", where=where, expected="CEL that is true or false")
    return lambda message: get(message.value, message) is True


def _failed(text: str, why: str, where: str) -> BadRecord:
    return BadRecord("wrong_type", f"{text!r} failed: {_first_line(why)[:200]}", where=where)


def _first_line(complaint: str) -> str:
    first = complaint.partition("\n")[0].removeprefix("INVALID_ARGUMENT: ")
    return re.sub(r"ERROR: <input>:(\d+):(\d+): ", r"line \1, column \2: ", first).replace(" (in container '')", "")
