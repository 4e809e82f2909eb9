"""Python source, built line by line, that remembers which field of a schema each line serves.
A compiled codec is two to four times as fast as fastavro's walk, and an error in it still names its field."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from schemas.errors import SchemaError

MAX_LINES = 5_000
"""A schema that needs more code than this is refused: a named type used twice doubles at every level."""
MAX_DEPTH = 9
"""Levels of nesting: an array takes two loops, and Python stops at 20 loops in each other."""

_PATHS = "field_paths"


class Source:
    """A function in the making. `line` adds code, `block` indents some, `constant` names a value."""

    def __init__(self, signature: str) -> None:
        self._lines = [f"def {signature}:"]
        self._paths = [""]
        self._indent = 1
        self._variables = self._written = 0
        self._constants: dict[str, Any] = {}

    def line(self, code: str, path: str = "") -> None:
        """Add a line of code that serves the field at `path`."""
        self._written += 1
        if self._written > MAX_LINES:
            raise SchemaError("the schema is too large", where=path, expected=f"at most {MAX_LINES} steps")
        self._lines.append("    " * self._indent + code)
        self._paths.append(path)

    @contextmanager
    def block(self, head: str, path: str = "") -> Iterator[None]:
        """Add `head`, such as an `if` with its colon, and indent what follows."""
        self.line(head, path)
        self._indent += 1
        try:
            yield
        finally:
            self._indent -= 1

    def variable(self) -> str:
        """A new local name."""
        self._variables += 1
        return f"v{self._variables}"

    def constant(self, value: Any) -> str:
        """A new global name for `value`."""
        name = f"c{len(self._constants)}"
        self._constants[name] = value
        return name

    def mark(self) -> int:
        """Where the code ends now, to `rewind` to."""
        return len(self._lines)

    def rewind(self, mark: int) -> None:
        """Drop the lines added since `mark`. They still count against MAX_LINES."""
        del self._lines[mark:], self._paths[mark:]

    def compiled(self, title: str, given: dict[str, Any]) -> Callable[[Any], Any]:
        """The function, with the `given` names at its disposal. `title` is shown in tracebacks."""
        scope = {**given, **self._constants, _PATHS: self._paths}
        name = self._lines[0].removeprefix("def ").partition("(")[0]
        # A schema's own names stand in the code as quoted literals only.
        exec(compile("\n".join(self._lines), f"<{title}>", "exec"), scope)
        function: Callable[[Any], Any] = scope[name]
        return function


def failed_at(traceback: TracebackType | None) -> tuple[str, int]:
    """Where compiled code was when it raised: the field's path, and a reader's position in the message."""
    while traceback is not None:
        frame = traceback.tb_frame
        if _PATHS in frame.f_globals:
            return frame.f_globals[_PATHS][traceback.tb_lineno - 1], frame.f_locals.get("p", 0)
        traceback = traceback.tb_next
    return "", 0
