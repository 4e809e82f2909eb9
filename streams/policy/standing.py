"""Which policies stand now: the live one decides, a shadow is only asked.
Whoever follows the topic replaces them; who scores takes each once a micro-batch.
"""

from dataclasses import dataclass, field

from streams.policy.decide import Policy


@dataclass(slots=True)
class Standing:
    """None: the release's own thresholds decide. refused: by key of the topic, why what is there cannot be used."""

    live: Policy | None = None
    shadow: Policy | None = None
    refused: dict[str, str] = field(default_factory=dict)
