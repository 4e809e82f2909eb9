"""How many decimals each currency has (ISO 4217), and amounts in any unit to the contract's 1/10,000.
An amount is exact or refused, but for a float, which is rounded to the contract's scale.
"""

from decimal import Decimal, InvalidOperation
from typing import Any

SCALE = 4
LIMIT = 10 ** (18 - SCALE)  # units of currency
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"
DECIMALS = {
    **dict.fromkeys(_NONE.split(), 0),
    **dict.fromkeys(_THREE.split(), 3),
    **dict.fromkeys(_FOUR.split(), 4),
}
"""Of the currencies that have not two."""
FIXED = {"units": 0, "hundredths": 2, "micros": 6}


class NoAmount(ValueError):
    """What was given is no amount, or not one that the contract can hold."""


def decimals(currency: str) -> int:
    return DECIMALS.get(currency, 2)


def unscaled(value: Any, places: int) -> bytes:
    """The contract's bytes of `value` x 10^-places units of currency. NoAmount."""
    number = _whole(value, places)
    if not -LIMIT < number // 10**SCALE < LIMIT:
        raise NoAmount("more than 14 digits before the point")
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


def _whole(value: Any, places: int) -> int:
    kind = type(value)
    if kind is int and places <= SCALE:
        if abs(value) > LIMIT * 10**places:
            raise NoAmount("more than 14 digits before the point")
        whole: int = value * 10 ** (SCALE - places)
        return whole
    if kind not in (int, float, str, Decimal):
        raise NoAmount("no number")
    try:
        amount = Decimal(repr(value) if kind is float else value)
    except InvalidOperation:
        raise NoAmount("no number") from None
    if not amount.is_finite() or amount.adjusted() > 40:
        raise NoAmount("more than 14 digits before the point" if amount.is_finite() else "no finite number")
    if amount and amount.adjusted() < -40 and kind is not float:
        raise NoAmount(f"more than {SCALE} decimals")
    scaled = amount.scaleb(SCALE - places)
    rounded = scaled.to_integral_value()
    if scaled != rounded and kind is not float:
        raise NoAmount(f"more than {SCALE} decimals")
    return int(rounded)
