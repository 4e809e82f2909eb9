"""Recommendations on clicks: the top-K next items over the whole catalogue, for the user as of this click.
The click itself is the last token of the sequence, so that a first visit already gets an answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Zipped
from streams.batch import CLICKS
from streams.events import Record
from streams.features import HISTORY_LENGTH, SEQUENCE_FIELDS, Inputs, Rows, Table, sequence_inputs, sequence_items
from streams.tasks.base import Context, LabelRule, Result, Serving, Task
from streams.tasks.selection import MOST_WITHHELD, PLAIN, bought, chosen, left_out

TOP_K = 10
POOL = TOP_K + MOST_WITHHELD
"""Of a fallback's items before what was bought is taken away."""
WITHHELD = "withheld"
NO_CANDIDATE = -1e8  # a row below this was masked: a catalogue smaller than K fills up with such


class Recommendation(Task):
    """A score is a list of items, best first; its label is the click on or purchase of one of them."""

    name = "recommendations"
    topic = CLICKS
    schema = "recommendation_score"
    features = np.dtype(SEQUENCE_FIELDS)
    labels = LabelRule("click", 6 * 3600, grace_s=6 * 3600, negatives=0.0, also=(("purchase", 7 * 86_400),))
    loss = "softmax"
    metric = "ndcg@10"

    def target(self, event: Record) -> str:
        """The click's own id: a later click or order names it as its request_id."""
        return str(event["event_id"])

    def fill(self, rows: Rows, events: Sequence[Record], context: Context) -> None:
        """Nothing: the user's history and the click itself say it all."""

    def inputs(self, rows: Rows, table: Table) -> Inputs:
        """A release that raises a user's own items reads which they are; others do not. Nothing is withheld."""
        withheld = np.zeros((len(rows), HISTORY_LENGTH), np.int32)
        return sequence_inputs(rows, table) | {"history_items": sequence_items(rows), WITHHELD: withheld}

    def inputs_served(self, rows: Rows, table: Table, serving: Serving) -> Inputs:
        found = self.inputs(rows, table)
        if serving.selection.bought_days:
            found[WITHHELD] = bought(rows, serving.catalog, serving.selection)
        return found

    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: Serving
    ) -> list[Result]:
        ids, pool, scores = serving.catalog.ids, outputs["rows"], outputs["scores"]
        if serving.selection.chooses or serving.catalog.blocks:
            open_BM = scores > NO_CANDIDATE
            pool = np.where(open_BM, pool, 0)  # a small catalogue is filled up with rows that there are none of
            open_BM &= ~left_out(pool, rows, _times(events), serving.catalog, serving.selection)
            return _listed(chosen(scores, pool, open_BM, TOP_K, serving.catalog, serving.selection), pool, scores, ids)
        pool, scores = pool[:, :TOP_K], scores[:, :TOP_K]
        whole = bool((scores > NO_CANDIDATE).all())
        ranked = zip(pool.tolist(), scores.tolist(), strict=True)
        if whole:
            return [_result([ids[row] for row in top], chances) for top, chances in ranked]
        found = [
            [(ids[row], chance) for row, chance in zip(*pair, strict=True) if chance > NO_CANDIDATE] for pair in ranked
        ]
        return [_result([ident for ident, _ in kept], [chance for _, chance in kept]) for kept in found]

    def fallback(self, events: Sequence[Record], rows: Rows, serving: Serving) -> list[Result]:
        """What was looked at most, lately counting more, in the release's training span: of that what may be shown
        now, and where it is not enough, whatever else may.
        """
        catalog = serving.catalog
        popular = [catalog.items.get(ident, 0) for ident in serving.settings.get("popular", [])]
        pool = np.tile(catalog.first_candidates(popular, POOL), (len(events), 1))
        open_BM = ~left_out(pool, rows, _times(events), catalog, serving.selection)
        plain = chosen(np.zeros(pool.shape), pool, open_BM, TOP_K, catalog, PLAIN)
        return _listed(plain, pool, np.zeros(pool.shape, np.float32), catalog.ids)

    def said(self, score: Record) -> Result:
        return _result([item["item_id"] for item in score["items"]], [item["score"] for item in score["items"]])


def _times(events: Sequence[Record]) -> list[int]:
    return [event["event_time"] for event in events]


def _listed(
    places_BK: NDArray[np.intp], pool_BM: NDArray[np.intp], scores_BM: NDArray[Any], ids: Sequence[str]
) -> list[Result]:
    found = zip(places_BK.tolist(), pool_BM.tolist(), scores_BM.tolist(), strict=True)
    out = []
    for places, pool, scores in found:
        kept = [place for place in places if place >= 0]
        out.append(_result([ids[pool[place]] for place in kept], [scores[place] for place in kept]))
    return out


def _result(candidates: list[str], scores: list[float]) -> Result:
    return Result({"items": Zipped(item_id=candidates, score=scores)}, candidates, scores)
