"""Engines: a release's graph, from arrays to arrays, on whatever runs it fastest. Add a backend by writing an
Engine and one line in BACKENDS; `tests/checks_engine.py` then runs against it too.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import cast

from engines.base import Engine
from engines.releases import Release
from schemas.errors import EngineError

BACKENDS: dict[str, str] = {
    "openvino": "engines.openvino:OpenVinoEngine",
    "eager": "engines.eager:EagerEngine",
    "null": "engines.null:NullEngine",
}
"""Name to import path: a backend's library is imported only when it is chosen."""


def open_engine(backend: str, release: Release, *, precision: str, buckets: Sequence[int], threads: int) -> Engine:
    """An engine of the release, built, and warmed in each bucket. Takes 0.1 to 0.5 s: do it beside the live
    one.

    Raises EngineError for an unknown backend, one whose library is missing, or a graph that it cannot build.
    """
    if backend not in BACKENDS:
        raise EngineError(f"backend {backend!r}", where="engine.backend", expected=f"one of {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[backend].partition(":")
    try:
        kind = getattr(import_module(module), name)
    except ImportError as error:
        raise EngineError(
            f"backend {backend} needs {error.name or error}, which is not installed",
            where="engine.backend",
            todo="install Headrace's extra for it (train for eager), or choose another backend",
        ) from error
    engine = cast(Engine, kind(release, precision=precision, buckets=buckets, threads=threads))
    engine.warm()
    return engine
