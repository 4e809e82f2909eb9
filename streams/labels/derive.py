"""Labels that follow from events: a click or an order that names what it answers, and what was bought after an ad.
Pure functions of decoded records in physical types; who calls them keeps the recent ad clicks of each user.

A label's id is a hash of what it is about, so that an event that comes twice, or a second click on the same ad,
gives the same label again and counts once. `observed_at` is the event's time.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import xxhash

from streams.events import Record
from streams.labels import rows
from streams.labels.rules import HEARTBEAT

Label = dict[str, Any]

SOURCE: Final = "derived"
ANSWERS: Final = frozenset({"view", "click", "cart", "wish"})
"""Actions on an item that say that a recommendation was taken up."""
CONVERSION_WINDOW_MS: Final = 7 * 86_400_000
MAX_AD_CLICKS: Final = 16  # kept of a user


def of_click(click: Record) -> list[Label]:
    """Of a Click: the ad that it answers, and the recommendation that it answers."""
    labels = []
    if click["impression_id"] and click["ad_id"]:
        labels.append(_label("ctr", click["impression_id"], click["ad_id"], "click", click["event_time"]))
    if click["request_id"] and click["item_id"] and click["action"] in ANSWERS:
        labels.append(_label("recommendations", click["request_id"], click["item_id"], "click", click["event_time"]))
    return labels


def of_order(order: Record) -> list[Label]:
    """Of an Order: each recommended item that it buys, once."""
    bought = dict.fromkeys((line["request_id"], line["item_id"]) for line in order["items"] if line["request_id"])
    return [_label("recommendations", *pair, "purchase", order["event_time"]) for pair in bought]


class AdClick(NamedTuple):
    """A user's click on an ad; `time` is UTC ms, `item_id` what the ad advertises."""

    time: int
    impression_id: str
    ad_id: str
    item_id: str


AdClicks = tuple[AdClick, ...]
"""The recent ad clicks of one user, by time, at most MAX_AD_CLICKS."""


def remember(clicks: AdClicks, click: Record, advertised: Mapping[str, str]) -> AdClicks:
    """The user's ad clicks with a Click, if it is one on an ad of a known item; `advertised`: item ids by ad id.

    A function of the set of clicks: neither their order nor a repeat changes what is kept.
    """
    item = advertised.get(click["ad_id"] or "")
    if not (item and click["impression_id"]):
        return clicks
    kept = {*clicks, AdClick(click["event_time"], click["impression_id"], click["ad_id"], item)}
    since = max(one.time for one in kept) - CONVERSION_WINDOW_MS
    return tuple(sorted(one for one in kept if one.time >= since)[-MAX_AD_CLICKS:])


def bought(order: Record, clicks: AdClicks, window_ms: int = CONVERSION_WINDOW_MS) -> list[AdClicks]:
    """Of each item of an Order that its user's ad clicks advertised within the window, those clicks: by time."""
    time, found = order["event_time"], []
    for item in dict.fromkeys(line["item_id"] for line in order["items"]):
        before = tuple(sorted(one for one in clicks if one.item_id == item and time - window_ms <= one.time <= time))
        if before:
            found.append(before)
    return found


def conversions(order: Record, clicks: AdClicks, window_ms: int = CONVERSION_WINDOW_MS) -> list[Label]:
    """What an Order buys of what its user's ad clicks advertised, within the window: the last click is credited."""
    credited = [before[-1] for before in bought(order, clicks, window_ms)]
    return [_label("ctr", last.impression_id, last.ad_id, "conversion", order["event_time"]) for last in credited]


def pack_clicks(clicks: AdClicks) -> bytes:
    """A row of streams.labels.state that is due when the last click is over; not for no clicks."""
    content = json.dumps(clicks, separators=(",", ":")).encode()
    return rows.note(max(one.time for one in clicks) + CONVERSION_WINDOW_MS, content)


def unpack_clicks(packed: bytes | None) -> AdClicks:
    """What `pack_clicks` packed; none for no row. StateError if it is another row."""
    found: Sequence[Sequence[Any]] = json.loads(rows.noted(packed)) if packed else ()
    return tuple(AdClick(*one) for one in found)


def heartbeat(task: str, source: str, time: int) -> Label:
    """Says that all labels of that source and task up to `time`, UTC ms, have been sent before it."""
    return _record(f"{task} {source} {time}", task, "", None, HEARTBEAT, 0.0, source, time)


def _label(task: str, target: str, candidate: str, name: str, time: int) -> Label:
    ident = xxhash.xxh3_128_hexdigest("\0".join((SOURCE, task, target, candidate, name)).encode())
    return _record(ident, task, target, candidate, name, 1.0, SOURCE, time)


def _record(
    ident: str, task: str, target: str, candidate: str | None, name: str, value: float, source: str, time: int
) -> Label:
    """A Label, in the order of its contract."""
    return {
        "label_id": ident,
        "task": task,
        "target_id": target,
        "candidate_id": candidate,
        "name": name,
        "value": value,
        "source": source,
        "observed_at": time,
        "revision": 0,
        "withdrawn": False,
    }
