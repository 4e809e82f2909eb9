"""Whether a decimal keeps to the digits that its schema allows: the same for who reads it and for who writes it.
Eight bytes hold most numbers of 19 digits, so their number alone does not say; seven are never more than 17 digits.
"""

MOST_BYTES = 8
"""A decimal of 18 digits, the most that a contract has, fits in 8 bytes, and in an int64 of state."""


def sure_bytes(precision: int) -> int:
    """So many bytes of two's complement are never more than `precision` digits; MOST_BYTES at most."""
    size = 0
    while size < MOST_BYTES and 1 << 8 * size + 7 < 10**precision:
        size += 1
    return size


def excess(unscaled: bytes, precision: int) -> str:
    """What is too much of an amount, in words; empty: it keeps to its digits."""
    if len(unscaled) > MOST_BYTES:
        return f"a decimal of {len(unscaled)} bytes"
    digits = len(str(abs(int.from_bytes(unscaled, "big", signed=True))))
    return f"a decimal of {digits} digits" if digits > precision else ""
