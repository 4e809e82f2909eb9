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
from streams.features import SEQUENCE_FIELDS, Inputs, Rows, Table, sequence_inputs, sequence_items
from streams.tasks.base import Context, LabelRule, Result, Serving, Task

TOP_K = 10
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
        """A release that raises a user's own items reads which they are; others do not."""
        return sequence_inputs(rows, table) | {"history_items": sequence_items(rows)}

    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: Serving
    ) -> list[Result]:
        ids, scores = serving.catalog.ids, outputs["scores"]
        whole = bool((scores > NO_CANDIDATE).all())
        ranked = zip(outputs["rows"].tolist(), scores.tolist(), strict=True)
        if whole:
            return [_result([ids[row] for row in top], chances) for top, chances in ranked]
        found = [
            [(ids[row], chance) for row, chance in zip(*pair, strict=True) if chance > NO_CANDIDATE] for pair in ranked
        ]
        return [_result([ident for ident, _ in kept], [chance for _, chance in kept]) for kept in found]

    def fallback(self, events: Sequence[Record], serving: Serving) -> list[Result]:
        """The most popular items of the release's training span."""
        popular = list(serving.settings.get("popular", []))[:TOP_K]
        return [_result(popular, [0.0] * len(popular))] * len(events)

    def said(self, score: Record) -> Result:
        return _result([item["item_id"] for item in score["items"]], [item["score"] for item in score["items"]])


def _result(candidates: list[str], scores: list[float]) -> Result:
    return Result({"items": Zipped(item_id=candidates, score=scores)}, candidates, scores)
