"""The section `traces` of the settings: whether spans are made, how many, and where they go.
A section as those of `streams.config_sections`."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from streams.config_sections import matching
from streams.security import Section


def _pairs(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        header_pairs(value.get_secret_value())
    return value


def header_pairs(text: str) -> dict[str, str]:
    """`a=1,b=2`, as OTEL_EXPORTER_OTLP_HEADERS has them. ValueError where a part is none; it does not say which."""
    pairs = dict[str, str]()
    for part in filter(None, map(str.strip, text.split(","))):
        name, sign, value = part.partition("=")
        if not sign or not name.strip():
            raise ValueError("name=value, several with commas")
        pairs[name.strip().lower()] = value.strip()
    return pairs


Address = Annotated[str, matching(r"https?://[^\s/@#?]+(/[^\s@#]*)?", "an address like http://host:4318/v1/traces")]


class TraceSettings(Section):
    """OpenTelemetry traces, over OTLP and HTTP. `headrace[traces]` brings its libraries."""

    enabled: bool = Field(default=False, description="whether sampled events get spans, and scores a traceparent")
    endpoint: Address = "http://127.0.0.1:4318/v1/traces"
    headers: Annotated[SecretStr | None, AfterValidator(_pairs)] = Field(
        default=None, description="of each export, such as a key: name=value, with commas"
    )
    most_per_batch: int = Field(
        default=16, ge=1, le=128, description="events of one micro-batch that get spans; all hand their context on"
    )
