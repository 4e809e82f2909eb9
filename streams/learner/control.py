"""What a person asks of the learner, and what it says of itself: both on models.learning, compacted, from anywhere.
A pause outlasts the learner; a wish for a fine-tune is granted once.
"""

import json
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from schemas.confluent import ConfluentRegistry
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.acknowledged import AcknowledgedWriter
from streams.compacted import Compacted
from streams.config import Settings
from streams.events import Record

TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Command:
    """paused: no fine-tune begins. asked_at: UTC ms when one was asked for; 0: never."""

    task: str
    paused: bool = False
    asked_at: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """state: waiting, training, watching, paused, pinned or cold. detail: figures and sentences."""

    task: str
    state: str
    detail: Mapping[str, Any]
    said_at: int


class Control:
    """Follows the topic: `command` and `status` by task, as of now. Safe from any thread."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._decode = Decoder(registry, "learning")
        self._lock = threading.Lock()
        self._commands: dict[str, Command] = {}
        self._statuses: dict[str, Status] = {}
        self._reader = Compacted(settings, settings.topics.learning, self._apply)

    def wait_current(self, timeout: float = TIMEOUT_S) -> None:
        self._reader.wait_current(timeout)

    def stop(self) -> None:
        self._reader.stop()

    def command(self, task: str) -> Command:
        with self._lock:
            return self._commands.get(task, Command(task))

    def statuses(self) -> dict[str, Status]:
        with self._lock:
            return dict(self._statuses)

    def _apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record, task = self._decode(value), key.decode().partition("/")[0]
        with self._lock:
            if record["kind"] == "command":
                self._commands[task] = Command(task, record["paused"], record["asked_at"], record["by"])
            else:
                detail = json.loads(record["detail"] or "{}")
                self._statuses[task] = Status(task, record["state"], detail, record["said_at"])


class Speaker:
    """Writes to the topic; returns when the broker has it."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._topic = settings.topics.learning
        self._encode = Encoder(registry, self._topic, "learning")
        self._writer = AcknowledgedWriter(settings, self._topic)

    def say(self, status: Status) -> None:
        """Raises ProduceFailed, BrokerUnavailable."""
        said = {"state": status.state, "detail": json.dumps(status.detail), "said_at": status.said_at}
        self._send(f"{status.task}/status", {"task": status.task, "kind": "status", **said})

    def ask(self, command: Command, now_ms: int) -> None:
        """Raises ProduceFailed, BrokerUnavailable."""
        asked = {"paused": command.paused, "asked_at": command.asked_at, "by": command.by, "said_at": now_ms}
        self._send(f"{command.task}/command", {"task": command.task, "kind": "command", **asked})

    def _send(self, key: str, known: Record) -> None:
        silent: Record = {"paused": False, "asked_at": 0, "by": "", "state": "", "detail": ""}
        self._writer.send(key.encode(), self._encode({**silent, **known}), 0)


def command(settings: Settings, task: str, now_ms: int, **changed: Any) -> Command:
    """Changes what is asked of a task, leaving the rest of it as it was; what is asked now."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        control = Control(settings, registry)
        try:
            control.wait_current()
            wanted = replace(control.command(task), **changed)
        finally:
            control.stop()
        Speaker(settings, registry).ask(wanted, now_ms)
    return wanted


def statuses(settings: Settings) -> tuple[dict[str, Status], dict[str, Command]]:
    """What the learner last said of each task, and what is asked of it."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        control = Control(settings, registry)
        try:
            control.wait_current()
            said = control.statuses()
            return said, {task: control.command(task) for task in {*said, *settings.tasks}}
        finally:
            control.stop()
