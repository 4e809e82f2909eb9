"""The catalogue: items and ads as append-only rows of arrays, looked up by id on the hot path.
It is a view of the compacted topics catalog.items, catalog.ads and catalog.vectors; rows are numbered by whoever
encodes the texts, so that a row id in `served` means the same item for ever.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.errors import BadRecord

ITEM, AD = 0, 1
TEXT_DIMS = 384
UNKNOWN_ROW = 0
MOST_ROWS = 1 << 22
"""Rows are of 1.6 KB: a number beyond this is a mistake, and would fill the memory before anybody could say so."""
NOT_A_CANDIDATE = np.float32(-1e9)
ENDLESS = 2**62  # of what ends some day: not yet


def category_number(name: str | None) -> int:
    """1 to 65,535 for a category's name; two of 300 share one once in two shops. 0 for none."""
    return xxhash.xxh3_64_intdigest(name.encode()) % 65_535 + 1 if name else 0


class Catalogue:
    """Row 0 is the unknown item: a zero vector, no price, never a candidate.

    `version` changes whenever anything does, `vectors_version` only with the texts, prices or number of rows, which
    are what a release's vector table is made from.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self.items: dict[str, int] = {}
        self.ads: dict[str, int] = {}
        self.ids: list[str] = [""]
        self.version = 0
        self.vectors_version = 0
        self.encoder = ""
        """The version of the encoder that made the vectors: one for all of them."""
        self._text = np.zeros((capacity, TEXT_DIMS), np.float32)
        self._price = np.zeros(capacity, np.float32)
        self._kind = np.zeros(capacity, np.int32)
        self._hashes = np.zeros((capacity, 3), np.float32)
        self._available = np.zeros(capacity, np.bool_)
        self._category = np.zeros(capacity, np.uint16)
        self.advertised: dict[str, str] = {}
        """What each ad advertises: item ids by ad id."""
        self._categories: dict[tuple[int, str], int] = {}
        self._waiting: dict[tuple[int, str], tuple[float, bool]] = {}
        self.blocks: dict[str, int] = {}
        """Blocked items, and until when: UTC ms of event time."""
        self._until = np.zeros(capacity, np.int64)
        self._now, self._next_end = 0, ENDLESS

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def text(self) -> NDArray[np.float32]:
        """(rows, 384) text vectors."""
        return self._text[: len(self)]

    @property
    def kind(self) -> NDArray[np.int32]:
        """(rows,) ITEM or AD."""
        return self._kind[: len(self)]

    @property
    def scalars(self) -> NDArray[np.float32]:
        """(rows, 5): log1p(price) / 5, whether there is a price, and the id as three hashes, for the item tower."""
        price = self._price[: len(self), None]
        facts = (np.log1p(price) / np.float32(5), (price > 0).astype(np.float32), self.hashes)
        return np.concatenate(facts, axis=1)

    @property
    def hashes(self) -> NDArray[np.float32]:
        """(rows, 3) whole numbers below 2^24, which float32 holds exactly."""
        return self._hashes[: len(self)]

    @property
    def category(self) -> NDArray[np.uint16]:
        """(rows,) the category's name as a number, 0 where none is given: see `category_number`."""
        return self._category[: len(self)]

    def price(self, row: int) -> float:
        """Units of currency; 0 where unknown."""
        return float(self._price[row])

    def candidate_bias(self) -> NDArray[np.float32]:
        """(rows,) 0 for an item that may be recommended, NOT_A_CANDIDATE for all else."""
        candidate = self._available[: len(self)] & (self.kind == ITEM) & (self.blocked_until <= self._now)
        candidate[UNKNOWN_ROW] = False
        return np.where(candidate, np.float32(0), NOT_A_CANDIDATE)

    @property
    def blocked_until(self) -> NDArray[np.int64]:
        """(rows,) UTC ms of event time until which an item is blocked, 0 where it is not."""
        return self._until[: len(self)]

    def first_candidates(self, rather: Sequence[int], most: int) -> NDArray[np.intp]:
        """Rows of items that may be recommended: the first `most` of `rather`, and then of all others."""
        candidate = self.candidate_bias() == 0
        wanted = np.asarray(list(dict.fromkeys(rather)), np.intp)
        wanted = wanted[candidate[wanted]][:most]
        candidate[wanted] = False
        return np.concatenate([wanted, np.flatnonzero(candidate)[: most - len(wanted)]])

    def block(self, ident: str, until: int | None) -> None:
        """An item that is not to be recommended until then (UTC ms of event time); None: it may be again."""
        self.blocks = {name: end for name, end in self.blocks.items() if name != ident}
        if until is not None:
            self.blocks[ident] = until
            self._next_end = min(self._next_end, until)
        if row := self.items.get(ident):
            self._until[row] = until or 0
        self.version += 1

    def pass_time(self, now_ms: int) -> None:
        """The clock, UTC ms: what was blocked until now is a candidate again."""
        self._now = now_ms
        if now_ms >= self._next_end:
            self._next_end = min((until for until in self.blocks.values() if until > now_ms), default=ENDLESS)
            self.version += 1

    def apply_item(self, record: Mapping[str, Any]) -> None:
        """A CatalogItem in physical types; it counts once its vector is there."""
        price = max(0.0, _price(record))  # one below 0, which `check_item` refuses, is in some old topics: it is none
        self._categories[ITEM, record["item_id"]] = category_number(record.get("category"))
        self._set(ITEM, record["item_id"], price, record["available"])

    def apply_ad(self, record: Mapping[str, Any]) -> None:
        """A CatalogAd in physical types."""
        ad, item = record["ad_id"], record.get("item_id")
        self._categories[AD, ad] = category_number(record.get("category"))
        if item:
            self.advertised[ad] = item
        else:
            self.advertised.pop(ad, None)
        self._set(AD, ad, 0.0, record["active"])

    def apply_vector(self, record: Mapping[str, Any]) -> None:
        """A CatalogVector: names the row of an item or ad, or gives it new text."""
        kind = ITEM if record["kind"] == "item" else AD
        row, ident = record["row"], record["id"]
        while row >= len(self.ids):
            self._append("")
        self.ids[row] = ident
        (self.items if kind == ITEM else self.ads)[ident] = row
        self._text[row] = np.frombuffer(record["vector"], "<f4")
        self.encoder = record.get("encoder") or self.encoder
        self._kind[row] = kind
        self._hashes[row] = hashes_of(ident)
        price, available = self._waiting.pop((kind, ident), (float(self._price[row]), bool(self._available[row])))
        self._price[row], self._available[row] = price, available
        self._category[row] = self._categories.get((kind, ident), 0)
        self._until[row] = self.blocks.get(ident, 0) if kind == ITEM else 0
        self.version += 1
        self.vectors_version += 1

    def withdraw(self, kind: int, ident: str) -> None:
        """A deleted item or ad: no candidate any more; its row stays, as what was served names it."""
        self._waiting.pop((kind, ident), None)
        if row := (self.items if kind == ITEM else self.ads).get(ident):
            self._available[row] = False
            self.version += 1

    def _set(self, kind: int, ident: str, price: float, available: bool) -> None:
        row = (self.items if kind == ITEM else self.ads).get(ident)
        if row is None:
            self._waiting[kind, ident] = (price, available)
            return
        if self._price[row] != np.float32(price):
            self._price[row] = price
            self.vectors_version += 1
        self._available[row] = available
        self._category[row] = self._categories.get((kind, ident), 0)
        self.version += 1

    def _append(self, ident: str) -> None:
        if len(self.ids) == len(self._price):
            size = 2 * len(self._price)
            self._text = np.resize(self._text, (size, TEXT_DIMS))
            self._price = np.resize(self._price, size)
            self._kind = np.resize(self._kind, size)
            self._hashes = np.resize(self._hashes, (size, 3))
            self._available = np.resize(self._available, size)
            self._category = np.resize(self._category, size)
            self._until = np.resize(self._until, size)
        row = len(self.ids)
        self._text[row], self._price[row], self._kind[row], self._available[row] = 0, 0, 0, False
        self._hashes[row] = 0
        self._category[row] = self._until[row] = 0
        self.ids.append(ident)


def check_item(record: Mapping[str, Any]) -> None:
    """Raises BadRecord for a CatalogItem that no shop can mean: the logarithm of such a price is no number, and every
    score that looks at the item would be none either.
    """
    if _price(record) < 0:
        raise BadRecord("out_of_range", f"price is {_price(record)}", where="price", expected="0 or more, or null")


def check_vector(record: Mapping[str, Any]) -> None:
    """Raises BadRecord for a CatalogVector that has no place in the table, or would spoil it."""
    row, vector = record["row"], record["vector"]
    if not UNKNOWN_ROW < row < MOST_ROWS:
        raise BadRecord("out_of_range", f"row is {row}", where="row", expected=f"1 to {MOST_ROWS - 1:,}")
    if len(vector) != 4 * TEXT_DIMS:
        what = f"a vector of {len(vector):,} bytes"
        raise BadRecord("out_of_range", what, where="vector", expected=f"{4 * TEXT_DIMS}: {TEXT_DIMS} float32")
    if not np.isfinite(np.frombuffer(vector, "<f4")).all():
        raise BadRecord("out_of_range", "a vector that is not finite", where="vector", expected="numbers")


def _price(record: Mapping[str, Any]) -> float:
    """Units of currency; 0 where there is none."""
    return int.from_bytes(record["price"], "big", signed=True) / 10_000 if record["price"] else 0.0


def hashes_of(ident: str) -> NDArray[np.float32]:
    """(3,) of an id's bytes: two places for a vector of its own, and a number to tell it from who shares them."""
    digest = hashlib.blake2b(ident.encode(), digest_size=9).digest()
    return np.frombuffer(digest, np.uint8).reshape(3, 3).astype(np.float32) @ np.array([1 << 16, 1 << 8, 1], np.float32)
