"""What a user will buy next, on every click: the items that the model ranks, without those just bought.
A fourth task beside the three, as docs/add-a-task.md shows it; nothing but this file and one line adds it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.batch import CLICKS, KINDS
from streams.events import Record
from streams.features import SEQUENCE_FIELDS, Inputs, Rows, Table, sequence_inputs
from streams.tasks.base import Context, LabelRule, Result, Serving, Task

TOP_K = 10
BOUGHT = 16
DAY_MS = 86_400_000


class NextPurchase(Task):
    """A score is a list of items, best first; its label is the order line that buys one of them."""

    name = "next_purchase"
    topic = CLICKS
    schema = "recommendation_score"
    features = np.dtype([*SEQUENCE_FIELDS, ("bought", "<i4", (BOUGHT,))])
    labels = LabelRule("purchase", 7 * 86_400)
    loss = "softmax"
    metric = "ndcg@10"

    def target(self, event: Record) -> str:
        return str(event["event_id"])

    def fill(self, rows: Rows, events: Sequence[Record], context: Context) -> None:
        """The items bought in the day before, the newest first: what `results` leaves out."""
        history, since = context.history, context.time[:, None] - DAY_MS
        bought_BL = (history.kind == KINDS["purchase"]) & (history.time >= since)
        for row, items, bought in zip(rows, history.item, bought_BL, strict=True):
            newest = items[bought][::-1][:BOUGHT]
            row["bought"][: len(newest)] = newest

    def inputs(self, rows: Rows, table: Table) -> Inputs:
        return sequence_inputs(rows, table)

    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: Serving
    ) -> list[Result]:
        ranked = zip(rows["bought"].tolist(), outputs["rows"].tolist(), outputs["scores"].tolist(), strict=True)
        return [_result(_new(bought, tops, scores, serving.catalog.ids)) for bought, tops, scores in ranked]

    def fallback(self, events: Sequence[Record], rows: Rows, serving: Serving) -> list[Result]:
        """The most popular items of the release's training span."""
        popular = [(ident, 0.0) for ident in serving.settings.get("popular", [])[:TOP_K]]
        return [_result(popular) for _ in events]

    def said(self, score: Record) -> Result:
        return _result([(item["item_id"], item["score"]) for item in score["items"]])


def _new(bought: list[int], tops: list[int], scores: list[float], ids: list[str]) -> list[tuple[str, float]]:
    """The first TOP_K that were not bought; a catalogue smaller than that fills up with rows far below zero."""
    left = [(row, score) for row, score in zip(tops, scores, strict=True) if row not in bought and score > -1e8]
    return [(ids[row], score) for row, score in left[:TOP_K]]


def _result(ranked: list[tuple[str, float]]) -> Result:
    items = [{"item_id": ident, "score": score} for ident, score in ranked]
    return Result({"items": items}, [ident for ident, _ in ranked], [score for _, score in ranked])
