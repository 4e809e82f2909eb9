"""Waiting for what is away: a broker, a registry. Said once, tried again until it works or nobody wants it any more."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import HeadraceError

T = TypeVar("T")

RETRY_S = 1.0


def until_it_works(what: str, attempt: Callable[[], T], stopping: threading.Event, log: logging.Logger) -> T:
    """Again and again while it raises a retriable error; once `stopping` is set, that error is raised."""
    last = ""
    while True:
        try:
            return attempt()
        except HeadraceError as error:
            if not error.retriable or stopping.is_set():
                raise
            if str(error) != last:
                log.warning("%s waits: %s", what, error)
            last = str(error)
            stopping.wait(RETRY_S)
