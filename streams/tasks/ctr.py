"""Click probability of every ad of an impression's slate, at once.
The user is encoded once; each ad attends to the user's history, and its position is an input of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Zipped
from streams.batch import IMPRESSIONS
from streams.events import MAX_SLATE, Record, money
from streams.features import MINOR_UNITS, SEQUENCE_FIELDS, Inputs, Rows, Table, look_up, sequence_inputs
from streams.tasks.base import Context, LabelRule, Result, Serving, Task, calibrated


class ClickThrough(Task):
    """A score is one pCTR an ad; its label is the click that names the impression and the ad."""

    name = "ctr"
    topic = IMPRESSIONS
    schema = "ctr_score"
    features = np.dtype(
        [
            *SEQUENCE_FIELDS,
            ("context_item", "<i4"),
            ("ad", "<i4", (MAX_SLATE,)),
            ("position", "u1", (MAX_SLATE,)),
            ("bid", "<f4", (MAX_SLATE,)),
            ("ads", "u1"),
        ]
    )
    labels = LabelRule(
        "click", 30 * 60, grace_s=30 * 60, negatives=0.2, also=(("conversion", 7 * 86_400),), discounted=True
    )
    loss = "binary_cross_entropy"
    metric = "normalised_entropy"

    def target(self, event: Record) -> str:
        """The impression's own id: a click names it as its impression_id."""
        return str(event["event_id"])

    def shown(self, event: Record) -> list[bool]:
        return [ad["shown"] for ad in event["slate"]]

    def fill(self, rows: Rows, events: Sequence[Record], context: Context) -> None:
        items, ads = context.catalog.items.get, context.catalog.ads.get
        rows["context_item"] = [items(event["context_item_id"], 0) for event in events]
        rows["ads"] = [len(event["slate"]) for event in events]
        real_BA = np.arange(MAX_SLATE) < rows["ads"][:, None]
        shown = [ad for event in events for ad in event["slate"]]
        rows["ad"][real_BA] = [ads(ad["ad_id"], 0) for ad in shown]
        rows["position"][real_BA] = [ad["position"] for ad in shown]
        rows["bid"][real_BA] = [money(ad["bid"]) / MINOR_UNITS if ad["bid"] else 0.0 for ad in shown]

    def inputs(self, rows: Rows, table: Table) -> Inputs:
        scalars = np.empty((*rows["ad"].shape, 3), np.float32)
        scalars[..., 0] = rows["position"] / np.float32(10)
        scalars[..., 1] = np.log1p(rows["bid"])
        scalars[..., 2] = np.arange(MAX_SLATE) < rows["ads"][:, None]
        return sequence_inputs(rows, table) | {
            "context_vectors": look_up(table, rows["context_item"]),
            "slate_vectors": look_up(table, rows["ad"]),
            "slate_scalars": scalars,
        }

    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: Serving
    ) -> list[Result]:
        probabilities = calibrated(outputs["logit"], serving.calibration).tolist()
        return [_result(event, chances) for event, chances in zip(events, probabilities, strict=True)]

    def fallback(self, events: Sequence[Record], serving: Serving) -> list[Result]:
        """The mean click rate of the release's training span."""
        mean = float(serving.settings.get("mean", 0.0))
        return [_result(event, [mean] * MAX_SLATE) for event in events]

    def said(self, score: Record) -> Result:
        return _result({**score, "slate": score["ads"]}, [ad["probability"] for ad in score["ads"]])


def _result(event: Record, probabilities: Sequence[float]) -> Result:
    slate = event["slate"][: len(probabilities)]
    ids, chances = [ad["ad_id"] for ad in slate], list(probabilities[: len(slate)])
    ads = Zipped(ad_id=ids, position=[ad["position"] for ad in slate], probability=chances)
    return Result({"request_id": event["request_id"], "placement": event["placement"], "ads": ads}, ids, chances)
