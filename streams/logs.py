"""Structured logs on stderr: JSON lines for machines, one readable line for people, the same fields in both.
Secrets of the settings are masked in whatever is logged, by whichever library."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from pydantic import BaseModel, SecretStr

from streams.config import Settings

MASK = "**********"
# What logging itself puts on a record; anything else came by `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Unless on debug: libraries report each request at INFO, and deprecations that only their authors can mend.
_TALKATIVE = ("aiokafka", "kafka", "faust", "mode", "urllib3", "httpx", "asyncio", "aiohttp.access")
# While a broker, or a collector of traces, is away these say the same of each connection, again and again.
REPETITIVE = ("aiokafka", "kafka", "opentelemetry")
REPEAT_S = 30.0
REMEMBERED = 1_000
QUIET = {**dict.fromkeys(_TALKATIVE, logging.WARNING), "py.warnings": logging.ERROR}


def setup(settings: Settings, stream: TextIO | None = None, level: str = "") -> None:
    """Makes the root logger write to `stream` (stderr) and nowhere else. `level` stands for the setting."""
    level = level or settings.log.level
    stream = stream or sys.stderr
    json_lines = settings.log.format == "json" or (settings.log.format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter((JsonLines if json_lines else Human)(list(secrets(settings))))
    if level != "debug":
        handler.addFilter(Repeats(REPETITIVE))
    if settings.tenant:
        handler.addFilter(Named(settings.tenant))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else max(quiet, root.level))


class Repeats(logging.Filter):
    """Of the loggers `names` (and below) each distinct message once, and while it goes on, again with a count each
    REPEAT_S. What was left out when it ended is said when it comes again. REMEMBERED messages, the newest, are told
    apart. For a root's only handler: the count is appended to the record. Any thread.
    """

    def __init__(self, names: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._names, self._clock, self._lock = frozenset(names), clock, threading.Lock()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when it was said, and how often left out since

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in self._names:
            return True
        key, now = (record.name, record.getMessage()), self._clock()
        with self._lock:
            said, more = self._said.pop(key, (float("-inf"), 0))
            fresh = now - said >= REPEAT_S
            self._said[key] = (now, 0) if fresh else (said, more + 1)
            if len(self._said) > REMEMBERED:
                del self._said[next(iter(self._said))]
        if fresh and more:
            record.msg, record.args = f"{key[1]}; and {more} more in {now - said:.0f} s", ()
        return fresh


class Named(logging.Filter):
    """Each record says whose it is: the logs of several shops may come together."""

    def __init__(self, shop: str) -> None:
        super().__init__()
        self._shop = shop

    def filter(self, record: logging.LogRecord) -> bool:
        record.shop = self._shop
        return True


def secrets(settings: BaseModel) -> Iterator[str]:
    """Every secret value in the settings, in plain."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, BaseModel):
            yield from secrets(value)


class Masking(logging.Formatter):
    """Formats a record's parts, then masks each secret in the whole line."""

    def __init__(self, hidden: list[str]) -> None:
        super().__init__()
        self.hidden = sorted((secret for secret in hidden if secret), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        return self.masked(self.line(record))

    def masked(self, line: str) -> str:
        for secret in self.hidden:
            # In a JSON line a quote or backslash of the secret stands escaped.
            line = line.replace(secret, MASK).replace(json.dumps(secret)[1:-1], MASK)
        return line

    def line(self, record: logging.LogRecord) -> str:
        raise NotImplementedError

    def trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonLines(Masking):
    """One JSON object a line: time (UTC), level, logger, message, the caller's fields, error."""

    def line(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            entry["error"] = self.trace(record)
        return json.dumps(entry, default=str)


class Human(Masking):
    """`12:30:01 warning streams.scoring: message  key=value key=value`, local time; a traceback below."""

    def line(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        given = "".join(f" {key}={value}" for key, value in fields(record).items())
        head = f"{clock} {record.levelname.lower()} {record.name}: {record.getMessage()}"
        return "\n".join(part for part in (head + (f" {given}" if given else ""), self.trace(record)) if part)


def fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """What the caller gave by `extra=`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}
