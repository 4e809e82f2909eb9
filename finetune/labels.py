"""What became of each event: clicks that name an impression, verdicts on orders, the item that a user went on to.
Every rule is a function of what was recorded up to a moment, so that nothing from after it slips into a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from finetune.conversions import Conversions
from streams.features import Rows
from streams.labels.rules import rank
from streams.tasks.automation import look, signs_of

Record = Mapping[str, Any]


NOTHING: Mapping[str, str] = {}
AUTOMATED_WEIGHT = 0.05
"""Of a label whose clicks look automated, over that of another: as `learning.automated_weight` is by default."""


class Verdict(NamedTuple):
    """What one label says of an order. observed_at: UTC ms. label: the unsigned 64-bit hash of its id."""

    observed_at: int
    revision: int
    value: float
    source: str
    label: int
    withdrawn: bool = False


@dataclass(slots=True)
class Labels:
    """Labels of a stream.

    `clicks`: (impression, ad) to UTC ms. `verdicts`: order to what each label says. `conversions`: of clicks on ads.
    """

    clicks: dict[tuple[str, str], int] = field(default_factory=dict)
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    conversions: Conversions = field(default_factory=Conversions)

    def add(self, topic: str, record: Record, advertised: Mapping[str, str] = NOTHING) -> None:
        """Notes what a record of the stream says, if it is a click on an ad, an order, or a fraud label.

        advertised: item ids by ad id; without them no click is known to have ended in an order.
        """
        if topic == "clicks" and record["impression_id"] is not None:
            self.clicks.setdefault((record["impression_id"], record["ad_id"]), record["event_time"])
            self.conversions.click(record, advertised)
        elif topic == "orders":
            self.conversions.order(record)
        elif topic == "labels" and record["task"] == record["name"] == "fraud":  # a sign of life is no label
            hashed = xxhash.xxh3_64_intdigest(record["label_id"].encode())
            said = Verdict(
                record["observed_at"], record["revision"], record["value"], record["source"], hashed,
                record.get("withdrawn", False),
            )  # fmt: skip
            self.verdicts.setdefault(record["target_id"], []).append(said)

    def known_by(self, moment: int) -> "Labels":
        """Those that were there before `moment`, UTC ms."""
        clicks = {pair: time for pair, time in self.clicks.items() if time < moment}
        verdicts = {
            order: early
            for order, said in self.verdicts.items()
            if (early := [each for each in said if each.observed_at < moment])
        }
        return Labels(clicks, verdicts, self.conversions.known_by(moment))

    def is_fraud(self, order_id: str) -> bool:
        """What the label that counts says; no label means no fraud."""
        newest = self.newest(order_id)
        return newest is not None and newest.value > 0.5

    def newest(self, order_id: str) -> Verdict | None:
        """The newest revision of the source that outranks the others, if anybody says anything."""
        newest: dict[int, Verdict] = {}
        for each in self.verdicts.get(order_id, ()):
            place = rank(each.source)
            if place not in newest or (each.revision, each.value) > (newest[place].revision, newest[place].value):
                newest[place] = each
        return next((newest[place] for place in sorted(newest) if not newest[place].withdrawn), None)


def fraud_labels(events: Sequence[Record], labels: Labels) -> NDArray[np.float32]:
    """(B,) 1 for each order that is fraud."""
    return np.array([labels.is_fraud(event["order_id"]) for event in events], np.float32)


def click_labels(events: Sequence[Record], labels: Labels, slots: int) -> NDArray[np.float32]:
    """(B, slots) 1 where a click names the impression and the ad."""
    label = np.zeros((len(events), slots), np.float32)
    for number, event in enumerate(events):
        for place, ad in enumerate(event["slate"][:slots]):
            label[number, place] = (event["event_id"], ad["ad_id"]) in labels.clicks
    return label


def conversion_labels(
    events: Sequence[Record], labels: Labels, slots: int, until: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both (B, slots): 1 where a click on the ad ended in an order, and 1 where it is known by `until`, UTC ms, whether
    it did. Nothing is known of what was not clicked.
    """
    bought, known = np.zeros((2, len(events), slots), np.float32)
    for number, event in enumerate(events):
        for place, ad in enumerate(event["slate"][:slots]):
            told = labels.conversions.told((event["event_id"], ad["ad_id"]), until)
            bought[number, place], known[number, place] = told is True, told is not None
    return bought, known


def shown_ads(events: Sequence[Record], slots: int) -> NDArray[np.float32]:
    """(B, slots) 1 for each ad that came into view: what was not seen is no negative."""
    shown = np.zeros((len(events), slots), np.float32)
    for number, event in enumerate(events):
        shown[number, : len(event["slate"])] = [ad["shown"] for ad in event["slate"][:slots]]
    return shown


def click_weights(rows: Rows, events: Sequence[Record], labels: Labels, slots: int) -> NDArray[np.float32]:
    """(B, slots) 1, and AUTOMATED_WEIGHT where the user's clicks look automated: of rows and events of impressions, as
    the learner discounts what was served."""
    weight = np.ones((len(events), slots), np.float32)
    for number, (event, found) in enumerate(zip(events, signs_of(rows), strict=True)):
        for place, ad in enumerate(event["slate"][:slots]):
            clicked = labels.clicks.get((event["event_id"], ad["ad_id"]))
            if look(found, None if clicked is None else clicked - event["event_time"]).automated:
                weight[number, place] = AUTOMATED_WEIGHT
    return weight


def next_items(
    user: NDArray[np.integer], time: NDArray[np.int64], item: NDArray[np.int32], window_ms: int
) -> NDArray[np.int32]:
    """(N,) for each click the user's next other item within the window; 0 where there is none.

    The clicks are all there are, in time order; item 0, the unknown one, is never an answer.
    """
    target = np.zeros(len(item), np.int32)
    order = np.lexsort((np.arange(len(user)), user))
    upcoming = other = (0, 0)  # (item, time) of the next known item of the user, and of the next that is another one
    owner = -1
    for place in order[::-1].tolist():
        here, now = int(item[place]), int(time[place])
        if user[place] != owner:
            owner, upcoming, other = int(user[place]), (0, 0), (0, 0)
        found, when = upcoming if upcoming[0] != here else other
        if found and when - now <= window_ms:
            target[place] = found
        if here:
            if here != upcoming[0]:
                other = upcoming
            upcoming = (here, now)
    return target
