"""Opening an engine at the fastest precision that its certificate allows: int8, else bf16, else f32.
What is refused is said in the log with its reason; a release without a probe is served as asked, but never in int8.
"""

import logging
from collections.abc import Sequence

from engines import kind_of, open_engine
from engines.base import Engine
from engines.parity import Report
from engines.probe import PROBE, certify
from engines.releases import Release
from schemas.errors import EngineError, ReleaseError

SAFER = {"int8": "bf16", "bf16": "f32"}
NO_PRECISION = "none"  # the null engine's: zeros agree with nothing
log = logging.getLogger(__name__)


def open_certified(
    backend: str, release: Release, *, precision: str, buckets: Sequence[int], threads: int
) -> tuple[Engine, Report | None]:
    """A warm engine, and its certificate where the release has a probe.

    Raises EngineError for a backend that cannot be had, or if not even f32 passes: then the release, or this build
    of the library, is broken.
    """
    kind_of(backend.partition(":")[0])  # a library that is missing is missing at every precision
    while True:
        try:
            return _opened(backend, release, precision, buckets, threads)
        except (EngineError, ReleaseError) as error:  # of the release: it has no graph of this precision
            if precision not in SAFER:
                raise
            log.warning(
                "%s/%s is not served in %s but in %s: %s",
                release.task, release.version, precision, SAFER[precision], error,
            )  # fmt: skip
            precision = SAFER[precision]


def _opened(
    backend: str, release: Release, precision: str, buckets: Sequence[int], threads: int
) -> tuple[Engine, Report | None]:
    probed = PROBE in release.manifest.files
    if precision == "int8" and not probed:
        raise EngineError("int8 needs a certificate", where=release.task, expected=f"a release with {PROBE}")
    engine = open_engine(backend, release, precision=precision, buckets=buckets, threads=threads)
    if not probed or engine.precision == NO_PRECISION:
        return engine, None
    try:
        return engine, certify(engine, release)
    except EngineError:
        engine.close()
        raise
