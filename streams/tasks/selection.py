"""Which ranked items are recommended: none that was bought or is blocked, and, if asked for, not all of one kind.
It looks at ranks, rows and the catalogue alone, and what it was asked for is in `served`, so a list can be had again.

Shape suffixes: B events, M ranked rows of each, best first, L history length, K chosen, T text width.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadRecord
from streams.batch import KINDS
from streams.catalog import Catalogue, category_number
from streams.features import HISTORY_LENGTH, Rows

DAY_S = 86_400
MOST_WITHHELD = HISTORY_LENGTH
"""Rows that one user's history can take away."""
Flags = NDArray[np.bool_]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is left out and how alike the rest may be. As it stands nothing is changed but for blocked items.

    bought_days: items that the user bought within so many days, as far as the history reaches, are left out, but for
    the categories in `repeatable`. diversity: by how much an item's log-odds fall when its text is that of one chosen
    before. most_a_category: of K items, as long as there are others.
    """

    bought_days: float = 0.0
    repeatable: tuple[str, ...] = ()
    diversity: float = 0.0
    most_a_category: int = 0

    @property
    def chooses(self) -> bool:
        """Whether the engine must know what is withheld, and rank a few more than are chosen."""
        return self != Selection(repeatable=self.repeatable)

    @property
    def text(self) -> str:
        """As `served` holds it: what is not as it stands, in JSON; empty for nothing."""
        if not self.chooses:
            return ""
        changed = {name: value for name, value in asdict(self).items() if value != getattr(PLAIN, name)}
        return json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """The inverse of `text`. Raises BadRecord."""
        try:
            found: dict[str, Any] = json.loads(text) if text else {}
            return cls(**{**found, "repeatable": tuple(found.get("repeatable", ()))})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise BadRecord(
                "out_of_range", f"a selection {text[:80]!r}", where="served.selection",
                expected="what this version writes there", todo="look at it with the version that wrote it",
            ) from error  # fmt: skip


PLAIN = Selection()
"""The first of the ranking, but for what is blocked."""


def left_out(pool_BM: Ints, rows: Rows, times: Sequence[int], catalog: Catalogue, selection: Selection) -> Flags:
    """(B, M) which of the pool's catalogue rows may not be shown: bought, or blocked at the event's time (UTC ms)."""
    held_BM = np.zeros(pool_BM.shape, np.bool_)
    if catalog.blocks:
        held_BM |= catalog.blocked_until[pool_BM] > np.asarray(times, np.int64)[:, None]
    if selection.bought_days:
        bought_BL = bought(rows, catalog, selection)
        bought_BL = bought_BL[:, bought_BL.any(axis=0)]
        held_BM |= ((pool_BM[:, :, None] == bought_BL[:, None, :]) & (bought_BL > 0)[:, None, :]).any(axis=2)
    return held_BM


def bought(rows: Rows, catalog: Catalogue, selection: Selection) -> NDArray[np.int32]:
    """(B, L) catalogue rows of what was bought too lately to be shown again, 0 elsewhere."""
    lately_BL = (rows["kind"] == KINDS["purchase"]) & (rows["age"] < selection.bought_days * DAY_S)
    items_BL: NDArray[np.int32] = np.where(lately_BL & (rows["item"] < len(catalog)), rows["item"], np.int32(0))
    if selection.repeatable:
        again = [category_number(name) for name in selection.repeatable]
        items_BL[np.isin(catalog.category[items_BL], again)] = 0
    return items_BL


def chosen(
    scores_BM: NDArray[np.floating[Any]],
    pool_BM: Ints,
    open_BM: Flags,
    most: int,
    catalog: Catalogue,
    selection: Selection,
) -> Ints:
    """(B, K) places in the pool of what is recommended, in order; -1 where no more are open.

    An item's worth is its score less `diversity` times the largest cosine between its text and a chosen one's: maximal
    marginal relevance (Carbonell and Goldstein 1998) with its lambda divided out. Each is the best of those left, so a
    choice among fewer that holds the same winners comes out the same, which is what lets a list be checked alone.
    """
    if not (selection.diversity or selection.most_a_category):
        order = np.argsort(~open_BM, axis=1, kind="stable")[:, :most]
        return np.where(np.take_along_axis(open_BM, order, axis=1), order, -1)
    choice = _Choice(scores_BM, pool_BM, open_BM, catalog, selection)
    return np.stack([choice.next() for _ in range(min(most, pool_BM.shape[1]))], axis=1)


class _Choice:
    """The choice as it grows, of all events at once."""

    def __init__(
        self, scores_BM: NDArray[Any], pool_BM: Ints, open_BM: Flags, catalog: Catalogue, selection: Selection
    ) -> None:
        self._selection, self._each = selection, np.arange(len(pool_BM))
        self._worth_BM = np.where(open_BM, scores_BM.astype(np.float64), -np.inf)
        self._nearest_BM = np.zeros(pool_BM.shape)
        self._category_BM = catalog.category[pool_BM]
        self._of_category_BM = np.zeros(pool_BM.shape, np.int32)
        self._text_BMT = catalog.text[pool_BM] if selection.diversity else np.zeros((*pool_BM.shape, 0), np.float32)

    def next(self) -> Ints:
        """(B,) the places of the next ones."""
        gain_BM = self._worth_BM - self._selection.diversity * self._nearest_BM
        if most := self._selection.most_a_category:
            rather_BM = np.where(self._of_category_BM < most, gain_BM, -np.inf)
            others_B1 = np.isneginf(rather_BM.max(axis=1, keepdims=True))  # all that is left is of full categories
            gain_BM = np.where(others_B1, gain_BM, rather_BM)
        place_B: Ints = gain_BM.argmax(axis=1)
        found_B = np.isfinite(gain_BM[self._each, place_B])
        self._take(place_B)
        return np.where(found_B, place_B, -1)

    def _take(self, place_B: Ints) -> None:
        if self._selection.diversity:
            alike_BM = np.einsum("bmt,bt->bm", self._text_BMT, self._text_BMT[self._each, place_B])
            np.maximum(self._nearest_BM, alike_BM, out=self._nearest_BM)
        category_BM = self._category_BM
        own_B1 = category_BM[self._each, place_B][:, None]
        self._of_category_BM += (category_BM == own_B1) & (own_B1 > 0)
        self._worth_BM[self._each, place_B] = -np.inf
