"""The circuit breaker of one endpoint: after enough deliveries have failed one after another, one attempt at a time.
It also keeps the pause that an endpoint asked for. Pure: time is an argument.
"""

FAILURES = 5
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
NEVER = float("inf")


class Breaker:
    """Closed: attempts go on. Open: none until a pause is over, then one; its answer closes it, or the pause is longer.

    Failures are counted by delivery: one that nobody takes does not shut out the others.
    """

    def __init__(self) -> None:
        self._failed: set[object] = set()
        self._pause_s = 0.0  # of an open one
        self._open_until = 0.0
        self._hold_until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        return self._pause_s > 0

    def ready_at(self) -> float:
        """From when on an attempt may begin; NEVER: not before the one that runs is answered."""
        if self._trying:
            return NEVER
        return max(self._open_until if self.open else 0.0, self._hold_until)

    def began(self) -> None:
        """An attempt began."""
        self._trying = self.open

    def abandoned(self) -> None:
        """An attempt ended without telling anything."""
        self._trying = False

    def succeeded(self) -> None:
        """The endpoint took what it was sent, or said why it never will."""
        self._failed.clear()
        self._trying, self._pause_s = False, 0.0

    def failed(self, delivery: object, now: float) -> None:
        if not self.open:
            self._failed.add(delivery)
            if len(self._failed) >= FAILURES:
                self._pause(FIRST_PAUSE_S, now)
        elif self._trying:
            self._pause(min(self._pause_s * 2, LONGEST_PAUSE_S), now)

    def hold(self, until: float) -> None:
        """The endpoint wants to hear nothing until then."""
        self._hold_until = max(self._hold_until, until)

    def _pause(self, seconds: float, now: float) -> None:
        self._trying, self._pause_s, self._open_until = False, seconds, now + seconds
