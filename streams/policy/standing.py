"""Which policies stand now: the live one decides, a shadow is only asked.
Whoever follows the topic replaces them; who scores takes each once a micro-batch.
"""

from dataclasses import dataclass

from streams.policy.decide import Policy


@dataclass(slots=True)
class Standing:
    """None: the release's own thresholds decide."""

    live: Policy | None = None
    shadow: Policy | None = None
