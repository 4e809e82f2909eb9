"""Avro's variable-length integers, by tables of two bytes at a time: the slow half of the compiled codecs.
The compiled code inlines what fits one or two bytes and calls these for the rest."""

from struct import Struct
from struct import error as StructError

CHUNK = 1 << 14
"""Fourteen bits, two bytes on the wire."""

_values = list(range(CHUNK))
# Two bytes, read as a little-endian short, to their fourteen bits. One int object per value, not per entry.
_SHORT = [_values[short & 0x7F | (short >> 1) & 0x3F80] for short in range(1 << 16)]
_three_shorts = Struct("<HHH").unpack_from

ENDED = [bytes((z,)) if z < 128 else bytes((z & 127 | 128, z >> 7)) for z in range(CHUNK)]
"""The whole varint of a zig-zagged number below CHUNK."""
LENGTH = ENDED[::2]
"""The varint of a length or count below CHUNK / 2."""
CONTINUED = [bytes((z & 127 | 128, z >> 7 | 128)) for z in range(CHUNK)]
"""The first two bytes of a longer one, by its low fourteen bits; `LONG_REST` or `INT_REST` has the others."""
KEPT = 1 << 16  # of the rests, at most


def long_at(data: bytes, at: int) -> tuple[int, int]:
    """The 64-bit integer at `at`, and where the next value begins.
    IndexError where the bytes end early, OverflowError beyond 64 bits."""
    number = data[at]
    if number > 127:
        number = number & 127 | data[at := at + 1] << 7
        shift = 14
        while number >> shift:  # the newest byte's continuation bit stands at `shift`
            if shift == 70:
                raise OverflowError("a number of more than 64 bits")
            number = number & (1 << shift) - 1 | data[at := at + 1] << shift
            shift += 7
        if number >> 64:
            raise OverflowError("a number of more than 64 bits")
    return number >> 1 ^ -(number & 1), at + 1


def int_at(data: bytes, at: int) -> tuple[int, int]:
    """The 32-bit integer at `at`, and where the next value begins."""
    number, at = long_at(data, at)
    if not -(1 << 31) <= number < 1 << 31:
        raise OverflowError("a number of more than 32 bits")
    return number, at


def length_at(data: bytes, at: int) -> tuple[int, int]:
    """The length in bytes of the string or bytes at `at`, and where they begin."""
    number, at = long_at(data, at)
    if number < 0:
        raise OverflowError("a negative length")
    return number, at


def time_at(data: bytes, at: int) -> tuple[int, int]:
    """As `long_at`, quicker for the six bytes that hold a timestamp in milliseconds from 1987 to 2039."""
    try:
        low, middle, high = _three_shorts(data, at)
    except StructError:
        return long_at(data, at)
    if low & middle & 0x8080 == 0x8080 and high & 0x8080 == 0x80 and not low & 1:
        return _SHORT[low] >> 1 | _SHORT[middle] << 13 | _SHORT[high] << 27, at + 6
    return long_at(data, at)


def count_at(data: bytes, at: int) -> tuple[int, int]:
    """How many items the array or map block at `at` holds, and where they begin; 0 ends the array.
    A negative count is followed by the block's size in bytes. An item takes a byte at least, so that a
    garbage count is refused (IndexError) before anything is allocated for it."""
    number, at = long_at(data, at)
    if number < 0:
        number = -number
        _, at = long_at(data, at)
    if number > len(data) - at:
        raise IndexError("more items than bytes")
    return number, at


def long_bytes(zigzag: int) -> bytes:
    """The varint of a zig-zagged 64-bit number."""
    if 0 <= zigzag < 1 << 42:  # a timestamp in milliseconds is below
        low, high = CONTINUED[zigzag & 0x3FFF], zigzag >> 14
        if zigzag >= 1 << 28:
            return low + CONTINUED[high & 0x3FFF] + ENDED[high >> 14]
        return low + ENDED[high] if high else ENDED[zigzag]
    if not 0 <= zigzag < 1 << 64:
        raise OverflowError("a number of more than 64 bits")
    return CONTINUED[zigzag & 0x3FFF] + long_bytes(zigzag >> 14)


class _Rest(dict[int, bytes]):
    """What follows the first fourteen bits, by its number. Times and offsets of a batch have few: a look-up is three
    times as fast as encoding. Bounded: it starts anew when full."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self._bits = bits

    def __missing__(self, rest: int) -> bytes:
        if rest >> self._bits - 14:
            raise OverflowError(f"a number of more than {self._bits} bits")
        if len(self) >= KEPT:
            self.clear()
        encoded = self[rest] = long_bytes(rest)
        return encoded


LONG_REST = _Rest(64)
INT_REST = _Rest(32)
