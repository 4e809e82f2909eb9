"""Click probability of every ad of an impression's slate, at once; and how likely a click on it is to end in an order.
The user is encoded once; each ad attends to the user's history and is compared with it by item and category, and its
position is an input of its own. The placement and the impression's attributes come by the hash of their names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.signatures import CONVERSION
from schemas.columns import Zipped
from streams.batch import IMPRESSIONS, KINDS
from streams.events import MAX_SLATE, Record, money
from streams.features import (
    HISTORY_LENGTH,
    MINOR_UNITS,
    SEQUENCE_FIELDS,
    Inputs,
    Rows,
    Table,
    look_up,
    sequence_inputs,
)
from streams.tasks.attributes import pairs, text_value
from streams.tasks.base import Context, LabelRule, Result, Serving, Task, calibrated

ATTRIBUTES = 16  # of an impression that are kept
BUCKETS = 4096
"""Of ads, and of the page's named values; a release's graph has as many rows in its tables. 0 is "nothing"."""
LARGEST = 8.0  # of the logarithm of a number among the attributes
HALF_HOUR = 1800
NOTHING_BOUGHT = (None,) * MAX_SLATE
IS_CLICK = np.array([0 < kind <= KINDS["search"] for kind in range(256)])


class ClickThrough(Task):
    """A score is one pCTR an ad; its label is the click that names the impression and the ad. Beside it stands pCVR,
    the chance of an order after such a click, where the release has a head for it.
    """

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
            ("placement", "<u2"),  # a hash, 0 where none is given
            ("category", "<u2", (HISTORY_LENGTH,)),  # streams.catalog.category_number of each history entry
            ("context_category", "<u2"),
            ("ad_category", "<u2", (MAX_SLATE,)),
            ("ad_item", "<i4", (MAX_SLATE,)),  # catalogue rows of what the ads advertise, 0 unknown
            ("attribute_id", "<u4", (ATTRIBUTES,)),  # pairs as in streams.tasks.attributes
            ("attribute_value", "<f4", (ATTRIBUTES,)),
        ]
    )
    labels = LabelRule(  # a purchase counts for seven days after the click, which may come an hour after the slate
        "click", 30 * 60, grace_s=30 * 60, negatives=0.2, also=(("conversion", 3_600 + 7 * 86_400),), discounted=True
    )
    loss = "binary_cross_entropy"
    metric = "normalised_entropy"

    def target(self, event: Record) -> str:
        """The impression's own id: a click names it as its impression_id."""
        return str(event["event_id"])

    def shown(self, event: Record) -> list[bool]:
        return [ad["shown"] for ad in event["slate"]]

    def fill(self, rows: Rows, events: Sequence[Record], context: Context) -> None:
        catalog = context.catalog
        items, ads, advertised = catalog.items.get, catalog.ads.get, catalog.advertised.get
        rows["context_item"] = [items(event["context_item_id"], 0) for event in events]
        rows["ads"] = [len(event["slate"]) for event in events]
        real_BA = np.arange(MAX_SLATE) < rows["ads"][:, None]
        slate = [ad for event in events for ad in event["slate"]]
        ids = [ad["ad_id"] for ad in slate]
        ad_rows = np.array([ads(ident, 0) for ident in ids], np.int32)
        item_rows = np.array([items(advertised(ident, ""), 0) for ident in ids], np.int32)
        own, of_item = catalog.category[ad_rows], catalog.category[item_rows]
        rows["ad"][real_BA], rows["ad_item"][real_BA] = ad_rows, item_rows
        rows["ad_category"][real_BA] = np.where(own > 0, own, of_item)
        rows["position"][real_BA] = [ad["position"] for ad in slate]
        rows["bid"][real_BA] = [money(ad["bid"]) / MINOR_UNITS if ad["bid"] else 0.0 for ad in slate]
        rows["placement"] = [int(text_value(event["placement"])) % 65_535 + 1 for event in events]
        rows["category"] = catalog.category[rows["item"]]
        rows["context_category"] = catalog.category[rows["context_item"]]
        for number, event in enumerate(events):
            if found := pairs(event["attributes"])[:ATTRIBUTES]:
                rows["attribute_id"][number, : len(found)], rows["attribute_value"][number, : len(found)] = zip(
                    *found, strict=True
                )

    def inputs(self, rows: Rows, table: Table) -> Inputs:
        scalars = np.empty((*rows["ad"].shape, 3), np.float32)
        scalars[..., 0] = rows["position"] / np.float32(10)
        scalars[..., 1] = np.log1p(rows["bid"])
        scalars[..., 2] = np.arange(MAX_SLATE) < rows["ads"][:, None]
        return (
            sequence_inputs(rows, table)
            | {
                "context_vectors": look_up(table, rows["context_item"]),
                "slate_vectors": look_up(table, rows["ad"]),
                "slate_scalars": scalars,
            }
            | slate_inputs(rows)
            | _page(rows)
        )

    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: Serving
    ) -> list[Result]:
        probabilities = calibrated(outputs["logit"], serving.calibration).tolist()
        if CONVERSION not in outputs:
            return [_result(event, chances) for event, chances in zip(events, probabilities, strict=True)]
        bought = conversions(outputs[CONVERSION], rows, serving.calibration)
        return [_result(*each) for each in zip(events, probabilities, bought, strict=True)]

    def fallback(self, events: Sequence[Record], rows: Rows, serving: Serving) -> list[Result]:
        """The mean click rate of the release's training span."""
        mean = float(serving.settings.get("mean", 0.0))
        return [_result(event, [mean] * MAX_SLATE) for event in events]

    def said(self, score: Record) -> Result:
        ads = score["ads"]
        return _result(
            {**score, "slate": ads}, [ad["probability"] for ad in ads], [ad.get("conversion") for ad in ads]
        )  # fmt: skip


def slate_inputs(rows: Rows) -> dict[str, NDArray[np.int32]]:
    """history_ids (B, L, 2): item and category of each event, the page's own last, as in the sequence. slate_ids
    (B, C, 4): the ad's bucket, its item, its category, its position.
    """
    history = np.empty((*rows["item"].shape, 2), np.int32)
    history[:, :-1, 0], history[:, -1, 0] = rows["item"][:, 1:], rows["context_item"]
    history[:, :-1, 1], history[:, -1, 1] = rows["category"][:, 1:], rows["context_category"]
    slate = np.empty((*rows["ad"].shape, 4), np.int32)
    ad = rows["ad"]
    slate[..., 0] = np.where(ad > 0, (ad - 1) % (BUCKETS - 1) + 1, 0)
    slate[..., 1], slate[..., 2], slate[..., 3] = rows["ad_item"], rows["ad_category"], rows["position"]
    return {"history_ids": history, "slate_ids": slate}


def _page(rows: Rows) -> Inputs:
    """page_ids and page_values (B, 17): the placement, then the attributes: a text is a name of its own with the value
    1, a number its name with the logarithm. page_scalars (B, 4): slates and clicks of the half hour before, how many
    events are known, whether the page is of an item.
    """
    kind_BL, recent_BL = rows["kind"], rows["age"] <= HALF_HOUR
    name, value = rows["attribute_id"], rows["attribute_value"]
    text = (name & 1) == 1
    mixed = name.astype(np.int64) * 31 + np.where(text, value, 0).astype(np.int64)
    ids = np.zeros((len(rows), ATTRIBUTES + 1), np.int32)
    ids[:, 0], ids[:, 1:] = rows["placement"] % (BUCKETS - 1) + 1, np.where(name != 0, mixed % (BUCKETS - 1) + 1, 0)
    values = np.ones((len(rows), ATTRIBUTES + 1), np.float32)
    logs = np.sign(value) * np.minimum(np.log1p(np.abs(value)), np.float32(LARGEST))
    values[:, 1:] = np.where(name != 0, np.where(text, np.float32(1), logs), np.float32(0))
    scalars = np.empty((len(rows), 4), np.float32)
    slates = ((kind_BL == KINDS["impression"]) & recent_BL).sum(axis=1)
    scalars[:, 0] = np.minimum(slates, 8) / np.float32(8)
    scalars[:, 1] = np.log1p((IS_CLICK[kind_BL] & recent_BL).sum(axis=1)) / np.float32(3)
    scalars[:, 2] = np.log1p((kind_BL > 0).sum(axis=1)) / np.float32(4)
    scalars[:, 3] = rows["context_item"] > 0
    return {"page_ids": ids, "page_values": values, "page_scalars": scalars}


def conversions(logit: NDArray[np.float32], rows: Rows, calibration: Mapping[str, float]) -> list[list[float | None]]:
    """Of each ad of each slate the chance of an order after a click; None where its item is not known, since nothing is
    credited to it then. Calibrated on clicks, by `conversion_a` and `conversion_b`.
    """
    own = {name: calibration[f"conversion_{name}"] for name in ("a", "b") if f"conversion_{name}" in calibration}
    chance, known = calibrated(logit, own).astype(object), rows["ad_item"] > 0
    chance[~known] = None
    found: list[list[float | None]] = chance.tolist()
    return found


def _result(
    event: Record, probabilities: Sequence[float], conversions: Sequence[float | None] = NOTHING_BOUGHT
) -> Result:
    slate = event["slate"][: len(probabilities)]
    ids, chances = [ad["ad_id"] for ad in slate], list(probabilities[: len(slate)])
    places, bought = [ad["position"] for ad in slate], list(conversions[: len(slate)])
    ads = Zipped(ad_id=ids, position=places, probability=chances, conversion=bought)
    return Result({"request_id": event["request_id"], "placement": event["placement"], "ads": ads}, ids, chances)
