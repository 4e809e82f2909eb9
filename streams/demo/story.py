"""What the demo is about: a new kind of fraud begins, is missed, is labelled, is learned, and is found from then on.
Pure: scores and what the simulation knows go in; shares found, marks and sentences come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

NEWEST = 20
"""Frauds of which a share is told."""


@dataclass(frozen=True, slots=True)
class Found:
    """A fraud. time: UTC ms of the order; caught: it was not simply approved."""

    time: int
    new: bool
    caught: bool
    release: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened. time: UTC ms of the shop's clock."""

    time: int
    text: str


@dataclass(slots=True)
class Story:
    """Of one run. new_kind: its name in the simulation; begins: UTC ms of the shop's clock."""

    new_kind: str
    begins: int
    frauds: list[Found] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    now: int = 0
    _release: str = ""

    def __post_init__(self) -> None:
        self.marks.append(Mark(self.begins, f"new fraud: {words(self.new_kind)}"))

    def scored(self, time: int, kind: str, decision: str, release: str) -> None:
        """An order's score; kind: of the fraud that struck, "" if none."""
        self.now = max(self.now, time)
        if self._release and release != self._release:
            self.marks.append(Mark(time, f"live: {release}"))
        self._release = release
        if kind:
            self.frauds.append(Found(time, kind == self.new_kind, decision != "approve", release))

    def happened(self, text: str) -> None:
        """Now, by the shop's clock."""
        self.marks.append(Mark(self.now, text))

    def newest(self, new: bool) -> tuple[int, int]:
        """Caught, and how many in all, of the newest frauds that are of the new kind, or are not."""
        chosen = [fraud for fraud in self.frauds if fraud.new == new][-NEWEST:]
        return sum(fraud.caught for fraud in chosen), len(chosen)

    def curve(self, new: bool, width: int = NEWEST) -> list[tuple[int, float]]:
        """(UTC ms, share caught of the newest `width`), from the first `width` frauds of that kind on."""
        chosen = sorted((fraud for fraud in self.frauds if fraud.new == new), key=lambda fraud: fraud.time)
        return [
            (chosen[end - 1].time, sum(fraud.caught for fraud in chosen[end - width : end]) / width)
            for end in range(width, len(chosen) + 1)
        ]

    @property
    def releases(self) -> list[str]:
        """In the order in which they served."""
        return list(dict.fromkeys(fraud.release for fraud in self.frauds))

    def caught(self, release: str, new: bool) -> tuple[int, int]:
        """Caught, and all, of the frauds that this release scored since the new kind began."""
        chosen = [f for f in self.frauds if f.release == release and f.new == new and f.time >= self.begins]
        return sum(fraud.caught for fraud in chosen), len(chosen)

    def lines(self) -> list[str]:
        """The story so far, a sentence a line."""
        if self.now < self.begins:
            return [f"on {day(self.begins)} a new kind of fraud will begin: {words(self.new_kind)}"]
        told = [f"{words(self.new_kind)}, a kind of fraud that no model has seen, began on {day(self.begins)}"]
        for release in self.releases:
            (found, of), (others, of_others) = self.caught(release, True), self.caught(release, False)
            if of or of_others:
                told.append(f"{release} caught {found} of {of} of it, and {others} of {of_others} other frauds")
        return told


def words(kind: str) -> str:
    return kind.replace("_", " ")


def day(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d")


def rate(pair: Sequence[int]) -> str:
    """`15 of 20`, or a dash where there is nothing yet."""
    return f"{pair[0]} of {pair[1]}" if pair[1] else "-"
