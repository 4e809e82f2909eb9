"""Check of where traces go: that what makes them is installed, and that a collector takes an export.
It sends one export of no spans, which every OTLP receiver has to accept.
"""

import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec

from streams.config import Settings
from streams.doctor.finding import Finding
from streams.security import reveal
from streams.telemetry.contract import NOT_INSTALLED
from streams.telemetry.settings import header_pairs

LIBRARY = "opentelemetry.exporter.otlp.proto.http"
TIMEOUT_S = 3


def traces(settings: Settings) -> Iterator[Finding]:
    """A collector that is away is a warning: it costs spans, and no score."""
    wanted = settings.traces
    if not wanted.enabled:
        yield Finding("traces", "well", "off")
        return
    if not _installed():
        yield Finding("traces", "problem", "traces are on and OpenTelemetry is not installed", NOT_INSTALLED)
        return
    refusal = _refusal(wanted.endpoint, header_pairs(reveal(wanted.headers) or ""))
    if refusal:
        todo = "start the collector, or set traces.endpoint and traces.headers; until then spans are dropped"
        yield Finding("traces", "warning", f"{wanted.endpoint}: {refusal}", todo)
    else:
        yield Finding("traces", "well", f"{wanted.endpoint} takes them")


def _installed() -> bool:
    try:
        return find_spec(LIBRARY) is not None
    except ImportError:  # of a package above it
        return False


def _refusal(endpoint: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(
        endpoint, b"", {**headers, "Content-Type": "application/x-protobuf"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"answered {error.code}"
    except (OSError, ValueError) as error:
        return f"no answer: {getattr(error, 'reason', error)}"
