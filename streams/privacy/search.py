"""Looks for a name in every topic and in the files of this machine, byte by byte: the proof of a deletion, for anybody.
It knows nothing of what a record means, so it also finds what a contract hides, or what a key says.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from streams.config import Settings
from streams.offsets import bounds, places, read_range
from streams.topics import topic_specs

FOLDERS = ("state", "entities", "labels", "learner", "console", "access", "privacy")
"""Of data_dir: ours, and no copy of the broker's."""
PIECE = 1 << 24
OURS, SHOP = "headrace", "the shop"


class Hit(NamedTuple):
    """of: whose it is to delete. number: of records, or 1 for a file."""

    where: str
    of: str
    number: int


def search(settings: Settings, *names: str) -> list[Hit]:
    """Topics and files that hold one of the names. Raises BrokerUnavailable, SettingsError."""
    needles = [name.encode() for name in names]
    of_the_shop = {*settings.topics.inputs, settings.topics.labels, settings.topics.lists}
    found = []
    for spec in topic_specs(settings):
        count = sum(1 for record in records(settings, spec.name) if _holds(record, needles))
        if count:
            found.append(Hit(spec.name, SHOP if spec.name in of_the_shop else OURS, count))
    return found + [Hit(str(path), OURS, 1) for path in files(settings) if _file_holds(path, needles)]


def records(settings: Settings, topic: str) -> Iterator[bytes]:
    """All that each record of a topic says: key, headers and value."""
    for (_, partition), (low, high) in bounds(settings, places(settings, topic)).items():
        for messages in read_range(settings, topic, partition, low, high):
            for message in messages:
                headers = [part for name, value in message.headers() or () for part in (name.encode(), value or b"")]
                yield b"\0".join((message.key() or b"", message.value() or b"", *headers))


def files(settings: Settings) -> Iterator[Path]:
    for name in FOLDERS:
        yield from (path for path in sorted((settings.data_dir / name).rglob("*")) if path.is_file())


def _holds(text: bytes, needles: Iterable[bytes]) -> bool:
    return any(needle in text for needle in needles)


def _file_holds(path: Path, needles: Sequence[bytes]) -> bool:
    """Piece by piece; each begins with the end of the one before."""
    longest = max(map(len, needles), default=0)
    try:
        with path.open("rb") as file:
            kept = b""
            while piece := file.read(PIECE):
                if _holds(kept + piece, needles):
                    return True
                kept = piece[-longest:]
    except FileNotFoundError:  # it was ours, and is gone meanwhile
        pass
    return False
