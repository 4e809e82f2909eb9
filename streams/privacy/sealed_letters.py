"""Dead letters where fields are pseudonymised: nobody reads in them what nobody is to read elsewhere.
A message that cannot be read has no fields, so all of it is sealed; with the key it comes home byte by byte.
"""

import base64
import json
from collections.abc import Callable
from functools import cached_property

from schemas.reading import Record
from streams.config import Settings
from streams.privacy.persons import persons
from streams.privacy.seals import Seals, seals

OURS = "headrace-"
"""Headers that we put there ourselves: they say nothing of anybody."""
MESSAGE = "it is sealed: `headrace deadletters show` opens it, where the key is"
QUOTING = ("message", "expected", "what_to_do")

Closed = tuple[bytes | None, Record]
"""The key that a letter is published under, and the letter."""
Close = Callable[[Record], Closed]


def left_open(letter: Record) -> Closed:
    """Where nothing is pseudonymised: under its original key."""
    return letter["key"], letter


class LetterSeals:
    """Asks for the key with the first letter that needs it. From any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _seals(self) -> Seals:
        return seals(self._settings, "letters")

    def close(self, letter: Record) -> Closed:
        """Published under a keyed hash of the original key: a user's letters stay together, in order."""
        place, value = _place(letter), letter["value"]
        quoted = {name: letter[name] for name in QUOTING}
        headers = [[one["name"], _text(one["value"])] for one in letter["headers"]]
        said = json.dumps({**quoted, "headers": headers}).encode()
        key: bytes | None = letter["key"]
        closed = {
            **letter,
            "key": key if key is None else self._seals.seal(key, f"{place} key"),
            "value": value if value is None else self._seals.seal(value, f"{place} value"),
            "headers": [one for one in letter["headers"] if one["name"].startswith(OURS)],
            "message": MESSAGE, "expected": "", "what_to_do": "",
            "sealed": True, "said": self._seals.seal(said, f"{place} said"),
        }  # fmt: skip
        return None if key is None else self.name(key), closed

    def open(self, letter: Record) -> Record:
        """The letter as it was before it was closed; one that never was, as it is. StateError without its key."""
        if not letter["sealed"]:
            return letter
        place = _place(letter)
        said = json.loads(self._seals.open(letter["said"] or b"", f"{place} said"))
        headers = [{"name": name, "value": _bytes(text)} for name, text in said.pop("headers")]
        parts = {
            name: letter[name] if letter[name] is None else self._seals.open(letter[name], f"{place} {name}")
            for name in ("key", "value")
        }
        return {**letter, **parts, **said, "headers": headers, "sealed": False, "said": None}

    def name(self, key: bytes) -> bytes:
        """What the letters of a key are published under."""
        return persons(self._settings).of(key.decode("utf-8", "surrogateescape")).encode()


def closing(settings: Settings) -> Close:
    """What every letter is sent through before it is published. SettingsError, of the key."""
    if not settings.privacy.pseudonymise:
        return left_open
    made = LetterSeals(settings)
    made.name(b"")  # a key that cannot be used ends the start, and not the first letter
    return made.close


def _place(letter: Record) -> str:
    return f"{letter['topic']}[{letter['partition']}] at {letter['offset']}"


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
