"""SIGTERM and SIGINT of what runs until it is stopped: both are a request to end in order, with exit code 0.
At every moment: before there is a loop that could end anything, nothing has begun, and the process ends at once.

This module is imported before all others, and imports nothing that takes time.
"""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

SIGNS = (signal.SIGTERM, signal.SIGINT)
#: Commands that run until they are stopped: by their first word, and by all of theirs but options.
SERVICES, LONGER = ("worker", "learner", "console"), (["webhooks"], ["mapping", "run"])
#: Options before the command that take a value.
VALUED = ("--config", "--tenant")
SAID = b"headrace: asked to end while it was starting; nothing had begun\n"


def runs_until_stopped(arguments: Sequence[str]) -> bool:
    """Whether these, of `headrace`, name a service."""
    words, left = [], list(arguments)
    while left:
        word = left.pop(0)
        if word in VALUED:
            left = left[1:]
        elif not word.startswith("-"):
            words.append(word)
    return words[:1] in [[name] for name in SERVICES] or words[:2] in LONGER


def end_at_once(arguments: Sequence[str]) -> None:
    """From now until `hear` a signal ends a service, with 0. Of other commands nothing is changed.

    Not by an exception: one that is raised inside of an import may be taken for the import's own, or be lost.
    """
    if runs_until_stopped(arguments):
        for sign in SIGNS:
            signal.signal(sign, _end)


def _end(*_: object) -> None:
    os.write(2, SAID)
    os._exit(0)


def hear(loop: "asyncio.AbstractEventLoop", stop: Callable[[], object]) -> None:
    """From now on the loop calls `stop` at each signal. Elsewhere than in the main thread nobody hears one."""
    for sign in SIGNS:
        with suppress(RuntimeError, ValueError):  # in a test's thread: what runs there has a `stop` of its own
            loop.add_signal_handler(sign, stop)
