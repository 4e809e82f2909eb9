"""Curves of a training, as TensorBoard reads them: loss, rate and examples a second of each step, and held-out figures.
It only writes down what it is told; where no folder is named, nothing, and then tensorboardX is not needed.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from schemas.errors import SettingsError


class Curves:
    """One training's scalars. Tags: `training/loss`, `training/rate`, `training/examples_per_s`, `held_out/NAME`,
    where hit@10 is hit_at_10: TensorBoard's tags know no @.
    """

    def __init__(self, folder: Path | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """now: seconds. Raises SettingsError where a folder is named and tensorboardX is not installed."""
        self._folder, self._now = folder, now
        self._writer: Any = None
        self._proto: Any = None
        self._before = 0.0
        if folder is not None:
            _library()

    @property
    def drawn(self) -> bool:
        return self._folder is not None

    def begin(self, step: int = 0) -> None:
        """The training goes on after `step`: what an earlier run of it wrote of later steps is taken back."""
        if self._folder is not None:
            events, proto = _library()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = events.EventsWriter(str(self._folder / "events"), filename_suffix=f".{step:06}")
            self._proto = proto
            if step:
                start = proto.SessionLog(status=proto.SessionLog.START)
                self._write(step + 1, session_log=start)
        self._before = self._now()

    def step(self, step: int, *, loss: float, rate: float, examples: int) -> None:
        """After a step, of `examples` examples; its loss is that of before the step."""
        if self._writer is None:
            return
        now = self._now()
        seconds, self._before = now - self._before, now
        self._add("training/loss", loss, step)
        self._add("training/rate", rate, step)
        if seconds > 0:
            self._add("training/examples_per_s", examples / seconds, step)

    def held(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of held-out examples after a step. The time until now is not training's."""
        for name, value in figures.items():
            self._add(f"held_out/{name.replace('@', '_at_')}", value, step)
        self._before = self._now()

    def flush(self) -> None:
        """What was told so far outlives a kill."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """All of it is in the file afterwards; `begin` opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, tag: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._write(step, summary={"value": [{"tag": tag, "simple_value": value}]})

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._proto.Event(wall_time=time.time(), step=step, **what))


def _library() -> tuple[Any, Any]:
    """What writes events, and what they are made of; its writer of scalars would hold them back in a queue."""
    try:
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2
    except ImportError as error:
        raise SettingsError(
            "curves need tensorboardX, which is not there", where="curves",
            todo="install the extra: `uv pip install 'headrace[curves]'`",
        ) from error  # fmt: skip
    return event_file_writer, event_pb2
