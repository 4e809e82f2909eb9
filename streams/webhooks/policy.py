"""What an answer of an endpoint means, and how long to wait before the next attempt.
Pure: time and chance are arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

Meaning = Literal["delivered", "again", "final"]
#: From 0 to 1, not included.
Chance = float

FIRST_PAUSE_S = 1.0
#: An endpoint that asks for more is asked again after this: it may be wrong, and alerts age.
LONGEST_HOLD_S = 3_600.0
#: The endpoint is slow or wants a pause; any other 4xx says that the same request will not do later either.
AGAIN = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt. `status` is None where no answer came; `error` then says why."""

    status: int | None
    error: str = ""
    body: str = ""
    retry_after_s: float | None = None
    seconds: float = 0.0

    @property
    def meaning(self) -> Meaning:
        if self.status is None or self.status in AGAIN or self.status >= 500:
            return "again"
        return "delivered" if 200 <= self.status < 300 else "final"

    @property
    def reason(self) -> str:
        """In words."""
        if self.status is None:
            return self.error
        if 300 <= self.status < 400:
            return f"status {self.status}: redirects are not followed"
        return f"status {self.status}"


@dataclass(frozen=True, slots=True)
class Policy:
    """Pauses double up to `most_s`; nothing is tried again later than `retry_for_s` after its first attempt."""

    retry_for_s: float
    most_s: float

    def pause(self, attempts: int, answer: Answer, chance: Chance) -> float:
        """Seconds to wait after so many attempts. Half of it is chance: endpoints that fail together do not come
        back together. Never less than the endpoint asked for."""
        whole = min(self.most_s, FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 60))
        return max(whole * (0.5 + chance / 2), self.hold(answer))

    def hold(self, answer: Answer) -> float:
        """Seconds for which the endpoint wants to hear nothing."""
        return min(answer.retry_after_s or 0.0, LONGEST_HOLD_S)

    def is_last(self, first_at: float, next_at: float) -> bool:
        """Whether an attempt at `next_at` would be too late: the one before it was the last."""
        return next_at > first_at + self.retry_for_s


def retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds from `now_s` (UTC) that the header Retry-After asks for; None without one that can be read."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None
