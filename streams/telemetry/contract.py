"""What the loop knows of traces, and how they come to be: OpenTelemetry is imported only where settings ask for it.
With traces off there is no object, and the loop's whole cost is to see that there is none, once a micro-batch."""

from typing import TYPE_CHECKING, Protocol

from schemas.errors import SettingsError
from streams.config import Settings

if TYPE_CHECKING:
    from streams.telemetry.spans import Traces

NOT_INSTALLED = "install the extra: pip install 'headrace[traces]', or set traces.enabled to false"


class Trace(Protocol):
    """The spans of one micro-batch that has sampled events. Used from the event loop, in the order of the stages."""

    def stage(self, name: str, seconds: float) -> None:
        """A stage ended just now, and took so long."""

    def scored(self) -> None:
        """The scores are acknowledged: the events' own spans end."""

    def end(self) -> None:
        """All that follows is acknowledged too."""


def make_traces(settings: Settings) -> "Traces | None":
    """None where traces are off. SettingsError where OpenTelemetry is not there."""
    if not settings.traces.enabled:
        return None
    try:
        from streams.telemetry.export import exporting
    except ImportError as error:
        raise SettingsError(
            f"traces are on and OpenTelemetry cannot be imported: {error}", where="traces.enabled", todo=NOT_INSTALLED
        ) from error
    return exporting(settings)
