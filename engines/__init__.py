"""Engines: a release's graph, from arrays to arrays, on whatever runs it fastest. Add a backend by writing an
Engine and one line in BACKENDS; `tests/checks_engine.py` then runs against it too.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

from schemas.errors import EngineError

if TYPE_CHECKING:  # the process that compiles loads this package, and has no use for theirs
    from engines.base import Engine
    from engines.releases import Release

BACKENDS: dict[str, str] = {
    "openvino": "engines.openvino:OpenVinoEngine",
    "eager": "engines.eager:EagerEngine",
    "onnxruntime": "engines.onnxruntime:OnnxRuntimeEngine",
    "null": "engines.null:NullEngine",
    "tensorrt": "engines.tensorrt:TensorRtEngine",
    "triton": "engines.triton:TritonEngine",
}
"""Name to import path: a backend's library is imported only when it is chosen."""
EXTRAS = {"eager": "train", "tensorrt": "gpu"}
"""The extra of pyproject.toml that brings a backend's library, where it has not the backend's own name."""


def open_engine(backend: str, release: "Release", *, precision: str, buckets: Sequence[int], threads: int) -> "Engine":
    """An engine of the release, built, and warmed in each bucket. Takes 0.1 to 0.5 s: do it beside the live
    one.

    backend: a name of BACKENDS, or `name:address`: `tensorrt:1` is the second GPU, `triton:host:8001` a server.

    Raises EngineError for an unknown backend, one whose library is missing, or a graph that it cannot build.
    """
    name, _, address = backend.partition(":")
    where = {"address": address} if address else {}
    engine = kind_of(name)(release, precision=precision, buckets=buckets, threads=threads, **where)
    engine.warm()
    return engine


def kind_of(backend: str) -> "Callable[..., Engine]":
    """The backend's class, its library imported. Raises EngineError as `open_engine` does."""
    if backend not in BACKENDS:
        raise EngineError(f"backend {backend!r}", where="engine.backend", expected=f"one of {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[backend].partition(":")
    try:
        return cast("Callable[..., Engine]", getattr(import_module(module), name))
    except ImportError as error:
        raise EngineError(
            f"backend {backend} needs {error.name or error}, which is not installed",
            where="engine.backend",
            todo=f"install Headrace's extra for it ({EXTRAS.get(backend, backend)}), or choose another backend",
        ) from error
