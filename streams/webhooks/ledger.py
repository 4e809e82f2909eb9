"""How far one partition of alerts is done by one endpoint: offsets finish in any order, a commit leaves no gap.
What is finished beyond the gap goes along in the commit's metadata, so that a restart does not post it again.
"""

from collections.abc import Iterable

#: The broker takes 4,096 bytes; what does not fit is posted again after a restart.
METADATA_BYTES = 3_000


class Ledger:
    """Offsets are opened in their order and finished in any."""

    def __init__(self, position: int, metadata: str = "") -> None:
        """As they were committed."""
        self._end = position
        self._unfinished: dict[int, None] = {}
        self._beyond = set(_offsets(position, metadata))

    def opened(self, offset: int) -> bool:
        """False where there is nothing to do: it was finished before."""
        self._end = max(self._end, offset + 1)
        if offset in self._beyond:
            return False
        self._unfinished[offset] = None
        return True

    def finished(self, offset: int) -> None:
        if offset in self._unfinished:
            del self._unfinished[offset]
            self._beyond.add(offset)

    def committable(self) -> tuple[int, str]:
        """Position and metadata to commit."""
        position = next(iter(self._unfinished), self._end)
        self._beyond = {offset for offset in self._beyond if offset >= position}
        return position, _ranges(position, sorted(self._beyond))


def _ranges(position: int, offsets: Iterable[int]) -> str:
    """`2-10,15`: how far each is from the position; the first that fit."""
    runs: list[list[int]] = []
    for offset in offsets:
        distance = offset - position
        if runs and runs[-1][1] == distance - 1:
            runs[-1][1] = distance
        else:
            runs.append([distance, distance])
    text = ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)
    return text if len(text) <= METADATA_BYTES else text[:METADATA_BYTES].rpartition(",")[0]


def _offsets(position: int, metadata: str) -> Iterable[int]:
    """What `_ranges` wrote; nothing of what it did not."""
    for run in metadata.split(","):
        first, _, last = run.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            yield from range(position + int(first), position + int(last or first) + 1)
