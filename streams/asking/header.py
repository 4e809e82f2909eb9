"""The answer as the published event carries it: a header with the score record and the features that it was made from.
It is sealed with the workers' key: else whoever may write events could also say what their scores are.
"""

from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import NamedTuple

ASKED = "headrace-asked"
_VERSION = 1
_SEAL_BYTES = 16
_LARGEST = 2**31 - 1  # of `served`'s bucket and row
_HEAD = Struct("<BBIIII")  # version, then lengths of task and score, bucket, row, length of features


def asked(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Whether a message's headers hold an answer, of whoever's."""
    return any(name == ASKED for name, _ in headers)


class Answer(NamedTuple):
    """score: the record as a message of its topic, but for the cut: of the event's own topic it is the newest offset
    before the event. bucket, row: as in `served`.
    """

    task: str
    score: bytes
    features: bytes
    bucket: int
    row: int


class Seal:
    """Writes and reads the header; `secret` is what all workers of the group know, empty for none."""

    def __init__(self, secret: bytes = b"") -> None:
        self._key = blake2b(secret, digest_size=32).digest() if secret else b""

    def header(self, answer: Answer, value: bytes) -> tuple[str, bytes]:
        """For a message with this value."""
        task, score, features, bucket, row = answer
        head = _HEAD.pack(_VERSION, len(task.encode()), len(score), bucket, row, len(features))
        body = head + task.encode() + score + features
        return ASKED, self._sealed(body, value) + body

    def read(self, headers: Sequence[tuple[str, bytes]], value: bytes | None) -> Answer | None:
        """The answer in a message's headers; None where there is none, or it was not written by a worker."""
        found = next((content for name, content in headers if name == ASKED), None)
        if found is None or value is None or len(found) < _SEAL_BYTES + _HEAD.size:
            return None
        seal, body = found[:_SEAL_BYTES], found[_SEAL_BYTES:]
        version, task, score, bucket, row, features = _HEAD.unpack_from(body)
        if version != _VERSION or len(body) != _HEAD.size + task + score + features or max(bucket, row) > _LARGEST:
            return None
        if not compare_digest(seal, self._sealed(body, value)):
            return None
        first, second = _HEAD.size + task, _HEAD.size + task + score
        try:
            name = body[_HEAD.size : first].decode()
        except UnicodeDecodeError:  # without a key anybody can seal anything
            return None
        return Answer(name, body[first:second], body[second:], bucket, row)

    def _sealed(self, body: bytes, value: bytes) -> bytes:
        digest = blake2b(value, digest_size=_SEAL_BYTES, key=self._key)
        digest.update(body)
        return digest.digest()
