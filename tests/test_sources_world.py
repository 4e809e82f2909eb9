"""The simulated world: one story, the same each time, with true probabilities that its outcomes bear out."""

import hashlib
import json
import math
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from schemas.errors import DataUnavailable, SettingsError
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.contracts import CONTRACTS
from streams.events import EVENT_TYPES, check
from streams.labels.derive import AdClicks, conversions, remember
from streams.labels.joined import Counts
from streams.labels.rules import Rule
from streams.labels.watermark import SourceLife
from streams.sources import retail, world
from streams.sources.book import MINUTE_MS
from streams.sources.cashier import FIRST_AD_ORDER
from streams.sources.shop import DAY_MS
from streams.sources.telling import Timed
from streams.sources.truth import Truth, read_truth, write_truth
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task
from tests.labels_shop import join_of

SMALL = WorldConfig(start="2011-09-01", end="2011-09-15", shop="generated", orders_a_day=30)
LATER = "2011-09-08"
HOUR_MS = 3_600_000
FRAUD_SCRIPTS = {"card_testing", "account_takeover", "bust_out", "refund_abuse"}
INNOCENT_SCRIPTS = {"rush", "new_start", "growth", "shared_computer"}


def digest(events: list[Timed]) -> str:
    text = json.dumps([tuple(event) for event in events], default=lambda raw: raw.hex())
    return hashlib.sha256(text.encode()).hexdigest()


def of(events: list[Timed], topic: str) -> list[dict[str, Any]]:
    return [event.record for event in events if event.topic == topic and not event.is_heartbeat]


def heartbeats(events: list[Timed]) -> list[dict[str, Any]]:
    return [event.record for event in events if event.is_heartbeat]


@pytest.fixture(scope="module")
def small() -> World:
    return World(SMALL, 1)


@pytest.fixture(scope="module")
def told(small: World) -> list[Timed]:
    return list(small.events())


@pytest.fixture(scope="module")
def large() -> World:
    """Big enough to hold outcomes against their probabilities."""
    return World(replace(SMALL, orders_a_day=220, fraud_rate=0.03, browse=0.5, guests=0.2), 2)


@pytest.fixture(scope="module")
def large_told(large: World) -> list[Timed]:
    return list(large.events())


# -- one story --


def test_the_same_seed_tells_the_same_bytes(told: list[Timed]) -> None:
    assert digest(list(World(SMALL, 1).events())) == digest(told)


def test_telling_again_tells_the_same(small: World, told: list[Timed]) -> None:
    next(small.events())
    assert digest(list(small.events())) == digest(told)


def test_another_seed_tells_another_story(told: list[Timed]) -> None:
    assert digest(list(World(SMALL, 2).events())) != digest(told)


def test_the_order_of_sets_and_dicts_does_not_matter(told: list[Timed]) -> None:
    code = "from tests.test_sources_world import *; print(digest(list(World(SMALL, 1).events())))"
    environment = {"PYTHONHASHSEED": "12345", "PATH": "", "TZ": "Asia/Tokyo"}
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment, check=True
    )
    assert done.stdout.strip() == digest(told)


def test_events_come_in_time_order_and_inside_of_the_span(small: World, told: list[Timed]) -> None:
    times = [event.time for event in told]
    assert times == sorted(times)
    orders = [event.time for event in told if event.topic == "orders"]
    assert small.start <= times[0]
    assert max(orders) < small.end


def test_every_record_is_of_its_contract_and_in_range(small: World, told: list[Timed]) -> None:
    registry, checks = MemoryRegistry(), {kind.name: kind for kind in EVENT_TYPES}
    encoders = {name: Encoder(registry, name, contract) for name, contract in CONTRACTS.items()}
    decoders = {name: Decoder(registry, contract) for name, contract in CONTRACTS.items()}
    items, ads = small.catalog()
    everything = [(event.topic, event.record) for event in told]
    everything += [("items", record) for record in items] + [("ads", record) for record in ads]
    for topic, record in everything:
        assert decoders[topic](encoders[topic](record)) == record
        if topic in checks:
            check(record, checks[topic], milliseconds("2030-01-01"))


def test_ids_are_unique(told: list[Timed]) -> None:
    ids = [event.record["event_id"] for event in told if event.topic != "labels"]
    assert len(ids) == len(set(ids))
    order_ids = [record["order_id"] for record in of(told, "orders")]
    assert len(order_ids) == len(set(order_ids))


def test_a_cut_of_the_history_is_that_part_of_the_story(small: World, told: list[Timed]) -> None:
    cut = list(small.history_records("2011-09-05", LATER))
    assert cut == [event for event in told if milliseconds("2011-09-05") <= event.time < milliseconds(LATER)]


def test_the_volume_is_known_before_it_is_told(small: World, told: list[Timed]) -> None:
    before_the_end = sum(event.time < small.end for event in told)
    assert sum(small.volume().values()) == pytest.approx(before_the_end, rel=0.1)


# -- visits, orders and ads --


def test_most_orders_follow_looks_at_what_is_bought(told: list[Timed]) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for record in of(told, "clicks"):
        seen[record["session_id"]].add(record["item_id"])
    orders = of(told, "orders")
    looked_at = [bool(seen[o["session_id"]] & {line["item_id"] for line in o["items"]}) for o in orders]
    assert sum(looked_at) / len(orders) > 0.8


def test_an_amount_is_the_sum_of_its_lines(told: list[Timed]) -> None:
    for order in of(told, "orders"):
        total = sum(line["quantity"] * int.from_bytes(line["unit_price"], "big") for line in order["items"])
        assert int.from_bytes(order["amount"], "big") == total


def test_an_ad_click_answers_a_shown_ad_within_minutes(told: list[Timed]) -> None:
    shown = {
        (record["event_id"], ad["ad_id"]): record
        for record in of(told, "impressions")
        for ad in record["slate"]
        if ad["shown"]
    }
    clicks = [record for record in of(told, "clicks") if record["ad_id"]]
    delays = []
    for record in clicks:
        impression = shown[record["impression_id"], record["ad_id"]]
        assert record["user_id"] == impression["user_id"]
        delays.append(record["event_time"] - impression["event_time"])
    assert min(delays) > 0
    assert max(delays) < 15 * 60_000


def test_the_truth_names_exactly_the_clicks_that_come(small: World, told: list[Timed]) -> None:
    clicked = {(record["impression_id"], record["ad_id"]) for record in of(told, "clicks") if record["ad_id"]}
    known = {
        (truth.event_id, ad)
        for truth in map(small.truth, [record["event_id"] for record in of(told, "impressions")])
        if truth
        for ad, outcome in zip(truth.candidates, truth.outcomes, strict=True)
        if outcome
    }
    assert clicked == known


def test_no_request_is_answered_before_one_is_served(told: list[Timed]) -> None:
    assert not any(record["request_id"] for record in of(told, "clicks"))


def test_the_truth_is_never_published(told: list[Timed]) -> None:
    published = {word for event in told for word in (*event.record, *event.record.get("attributes", {}))}
    assert not published & {"kind", "script", "probability", "fraud", "outcome", "campaign"}


# -- what ads sell --


@pytest.fixture(scope="module")
def selling() -> World:
    """Many clicks on ads, and many orders that follow them."""
    return World(replace(SMALL, orders_a_day=120, click_rate=0.2, conversion_rate=0.15, browse=0.5), 5)


@pytest.fixture(scope="module")
def sold(selling: World) -> list[Timed]:
    return list(selling.events())


class Ad(NamedTuple):
    """An ad that was clicked: P(its item is ordered | click), whether it was, and when it was shown."""

    impression: str
    ad: str
    chance: float
    bought: int
    time: int


def clicked_ads(made: World) -> list[Ad]:
    found = []
    for truth in made.truths():
        told = zip(truth.candidates, truth.conversions, truth.converted, truth.outcomes, strict=True)
        for ad, chance, bought, clicked in told if truth.task == "ctr" else ():
            if clicked:
                found.append(Ad(truth.event_id, ad, chance, bought, truth.event_time))
    return found


def test_without_a_rate_of_conversions_the_truth_says_nothing_of_them(small: World, told: list[Timed]) -> None:
    assert not any(truth.conversions or truth.converted for truth in small.truths())


def test_the_same_seed_sells_the_same(selling: World, sold: list[Timed]) -> None:
    assert digest(list(World(selling.config, 5, shop=selling.shop).events())) == digest(sold)


def test_the_rate_of_conversions_is_about_what_was_set(selling: World, sold: list[Timed]) -> None:
    ads = clicked_ads(selling)
    assert len(ads) > 2_000
    assert np.mean([each.bought for each in ads]) == pytest.approx(0.15, abs=0.03)
    assert np.std([each.chance for each in ads]) > 0.04


def test_conversions_agree_with_their_true_probabilities(selling: World, sold: list[Timed]) -> None:
    chances, bought = (
        np.array(each) for each in zip(*((a.chance, a.bought) for a in clicked_ads(selling)), strict=True)
    )
    for part in np.array_split(np.argsort(chances), 4):
        spread = math.sqrt((chances[part] * (1 - chances[part])).sum())
        assert abs(bought[part].sum() - chances[part].sum()) < 4 * spread


def test_labels_that_are_derived_from_what_is_told_are_what_the_truth_says(selling: World, sold: list[Timed]) -> None:
    """By the join's own rules: the last click before the order, within seven days."""
    advertised = dict(zip(selling.ads.ids, [selling.shop.items.ids[item] for item in selling.ads.item], strict=True))
    clicks: dict[str, AdClicks] = defaultdict(tuple)
    labelled = set()
    for event in sold:
        user = event.record.get("user_id", "")
        if event.topic == "clicks":
            clicks[user] = remember(clicks[user], event.record, advertised)
        elif event.topic == "orders":
            found = conversions(event.record, clicks[user])
            labelled |= {(label["target_id"], label["candidate_id"]) for label in found}
    known = {(each.impression, each.ad) for each in clicked_ads(selling) if each.bought}
    assert len(labelled & known) > 0.98 * len(known)
    assert len(labelled - known) < 0.02 * len(known)


def test_an_order_that_an_ad_brought_is_of_one_item_and_comes_within_a_day(selling: World, sold: list[Timed]) -> None:
    brought = [record for record in of(sold, "orders") if int(record["order_id"]) >= FIRST_AD_ORDER]
    assert len(brought) == sum(each.bought for each in clicked_ads(selling))
    seen: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in of(sold, "clicks"):
        if record["ad_id"]:
            seen[record["user_id"], record["item_id"]].append(record["event_time"])
    for record in brought:
        [line] = record["items"]
        times = [record["event_time"] - time for time in seen[record["user_id"], line["item_id"]]]
        assert any(MINUTE_MS <= time <= DAY_MS for time in times)
        assert selling.truth(record["event_id"]) is not None


def test_planned_orders_stay_but_for_what_a_click_decided(selling: World, sold: list[Timed]) -> None:
    orders, items = selling.shop.orders, selling.shop.items
    by_id = {record["order_id"]: record for record in of(sold, "orders")}
    gone = lines = 0
    for number in np.flatnonzero(orders.time >= selling.start).tolist():
        record, where = by_id[orders.ids[number]], orders.lines(number)
        whole = Counter(items.ids[item] for item in orders.item[where])
        kept = Counter(line["item_id"] for line in record["items"])
        assert kept <= whole
        assert kept
        gone, lines = gone + (whole - kept).total(), lines + whole.total()
    assert 0 < gone < 0.05 * lines


def test_the_truth_of_conversions_is_in_the_file(selling: World, sold: list[Timed], tmp_path: Path) -> None:
    write_truth(tmp_path / "truth.parquet", selling.truths())
    table = read_truth(tmp_path / "truth.parquet").to_pylist()
    found = {(row["event_id"], row["candidate_id"]): row for row in table}
    for each in clicked_ads(selling)[:200]:
        row = found[each.impression, each.ad]
        assert (row["conversion"], row["converted"], row["outcome"]) == (each.chance, each.bought, 1)
    assert all(row["conversion"] is None for row in table if row["task"] == "fraud")


# -- fraud --


def fraud_truths(made: World) -> list[Truth]:
    return [truth for truth in made.truths() if truth.task == "fraud"]


def test_every_kind_of_campaign_and_of_look_alike_is_played(large: World, large_told: list[Timed]) -> None:
    scripts = {truth.script for truth in fraud_truths(large)}
    assert scripts == FRAUD_SCRIPTS | INNOCENT_SCRIPTS | {""}


def test_the_rate_of_fraud_is_about_what_was_set(large: World, large_told: list[Timed]) -> None:
    outcomes = [truth.outcomes[0] for truth in fraud_truths(large)]
    assert np.mean(outcomes) == pytest.approx(0.03, rel=0.35)


@pytest.mark.parametrize("task", ["fraud", "ctr"])
def test_outcomes_agree_with_their_true_probabilities(large: World, large_told: list[Timed], task: str) -> None:
    truths = [truth for truth in large.truths() if truth.task == task]
    chances = np.concatenate([truth.probabilities for truth in truths])
    outcomes = np.concatenate([truth.outcomes for truth in truths])
    assert ((chances > 0) & (chances < 1)).all()
    for part in np.array_split(np.argsort(chances), 4):
        spread = math.sqrt((chances[part] * (1 - chances[part])).sum())
        assert abs(outcomes[part].sum() - chances[part].sum()) < 4 * spread


def test_campaigns_are_likelier_fraud_than_look_alikes_and_those_than_others(
    large: World, large_told: list[Timed]
) -> None:
    chances: dict[str, list[float]] = defaultdict(list)
    for truth in fraud_truths(large):
        group = "campaign" if truth.script in FRAUD_SCRIPTS else "innocent" if truth.script else "ordinary"
        chances[group].append(truth.probabilities[0])
    assert np.mean(chances["campaign"]) > 5 * np.mean(chances["innocent"])
    assert np.mean(chances["innocent"]) > np.mean(chances["ordinary"])


def test_no_single_field_gives_fraud_away(large: World, large_told: list[Timed]) -> None:
    """Whatever one field says of an order, both frauds and innocent orders say it."""
    orders = {event.record["order_id"]: event.record for event in large_told if event.topic == "orders"}
    said: dict[tuple[str, object], Counter[int]] = defaultdict(Counter)
    for truth in fraud_truths(large):
        order, outcome = orders[truth.target_id], truth.outcomes[0]
        said["ships elsewhere", order["shipping_address"] != order["billing_address"]][outcome] += 1
        said["hosted", order["ip"].startswith("ip-hosting")][outcome] += 1
        said["foreign card", order["payment"]["issuer_country"] not in (None, order["country"])][outcome] += 1
        said["express", order["attributes"]["express"]][outcome] += 1
        said["one line", len(order["items"]) == 1][outcome] += 1
    assert all(counts[0] and counts[1] and counts[1] < 0.9 * counts.total() for counts in said.values())


def test_labels_come_as_late_as_in_life(large: World, large_told: list[Timed]) -> None:
    times = {truth.target_id: truth.event_time for truth in fraud_truths(large)}
    outcome = {truth.target_id: truth.outcomes[0] for truth in fraud_truths(large)}
    delays: dict[str, list[float]] = defaultdict(list)
    for record in of(large_told, "labels"):
        delays[record["source"]].append((record["observed_at"] - times[record["target_id"]]) / DAY_MS)
        if record["value"] or record["source"] != "analyst":
            assert outcome[record["target_id"]] == 1
    assert len(delays["analyst"]) / len(times) == pytest.approx(0.10, abs=0.02)
    assert max(delays["analyst"]) <= 1 / 24
    assert 4 < np.median(delays["chargeback"]) < 11


def test_a_fraud_is_labelled_in_the_end_and_a_missed_one_revised(large: World, large_told: list[Timed]) -> None:
    newest: dict[str, tuple[int, float]] = {}
    for record in of(large_told, "labels"):
        newest[record["target_id"]] = max(
            newest.get(record["target_id"], (-1, 0.0)), (record["revision"], record["value"])
        )
    for truth in fraud_truths(large):
        assert newest.get(truth.target_id, (0, 0.0))[1] == truth.outcomes[0]


# -- the source of chargebacks is alive --


def test_chargebacks_say_every_hour_that_they_are_alive_until_the_last_label(small: World, told: list[Timed]) -> None:
    times = [record["observed_at"] for record in heartbeats(told)]
    assert {(record["task"], record["source"]) for record in heartbeats(told)} == {("fraud", "chargeback")}
    assert times == list(range(small.start + HOUR_MS, times[-1] + 1, HOUR_MS))
    last = max(small.end, *(record["observed_at"] for record in of(told, "labels")))
    assert last <= times[-1] < last + HOUR_MS


def test_a_heartbeat_comes_after_all_labels_of_its_time(told: list[Timed]) -> None:
    alive = 0
    for event in told:
        if event.topic == "labels":
            assert event.is_heartbeat or event.record["observed_at"] > alive
            alive = event.time if event.is_heartbeat else alive


def test_the_label_join_takes_a_heartbeat_for_a_sign_of_life_and_for_no_label(told: list[Timed]) -> None:
    join = join_of(Rule.of(make_task("fraud")))
    life = SourceLife()
    for record in heartbeats(told)[:24]:
        assert join.label(record, record["observed_at"]) == []
        life.seen(record["source"], record["observed_at"], record["observed_at"])
    assert life.until(join.rule.sources) == milliseconds("2011-09-02")
    assert join.take_counts() == Counts()


# -- drift --


def kinds_by_half(made: World) -> tuple[Counter[str], Counter[str]]:
    early, late = Counter[str](), Counter[str]()
    for truth in fraud_truths(made):
        (early if truth.event_time < milliseconds(LATER) else late)[truth.kind] += 1
    return early, late


def test_a_new_kind_of_fraud_starts_on_its_day_and_not_before() -> None:
    made = World(replace(SMALL, orders_a_day=100, fraud_drift=LATER), 3)
    assert list(made.events())
    early, late = kinds_by_half(made)
    assert early["reshipping"] == 0
    assert late["reshipping"] > 3


def test_without_a_drift_there_is_no_new_kind(large: World, large_told: list[Timed]) -> None:
    assert sum(kinds_by_half(large), Counter())["reshipping"] == 0


def test_a_drift_starts_on_demand_while_the_story_is_told() -> None:
    made = World(replace(SMALL, orders_a_day=100), 3)
    for event in made.events():
        if event.time >= milliseconds(LATER):
            made.start_drift("fraud")
    early, late = kinds_by_half(made)
    assert early["reshipping"] == 0
    assert late["reshipping"] > 3


def test_the_story_before_a_drift_is_the_story_without_it(told: list[Timed]) -> None:
    drifted = World(replace(SMALL, fraud_drift=LATER, taste_drift=LATER), 1).history_records(SMALL.start, LATER)
    assert list(drifted) == [event for event in told if event.time < milliseconds(LATER)]


def test_a_shift_of_taste_changes_what_is_clicked() -> None:
    usual, shifted = World(SMALL, 4), World(replace(SMALL, taste_drift=LATER), 4)
    rates = []
    for made in (usual, shifted):
        assert list(made.events())
        rates.append(
            {
                truth.event_id: truth.probabilities
                for truth in made.truths()
                if truth.task == "ctr" and truth.event_time >= milliseconds(LATER)
            }
        )
    same = rates[0].keys() & rates[1].keys()
    assert not same or any(rates[0][event_id] != rates[1][event_id] for event_id in same)
    means = [np.mean(np.concatenate(list(rate.values()))) for rate in rates]
    assert means[0] != pytest.approx(means[1], rel=0.02)


# -- what it is made from --


def test_without_its_data_the_world_is_a_generated_shop(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(**_: object) -> None:
        raise DataUnavailable("no network")

    monkeypatch.setattr(retail, "load", unavailable)
    made = World(replace(SMALL, shop="auto"), 1)
    assert not made.shop.real
    assert str(made) == "a generated shop: all of it is simulated"
    with pytest.raises(DataUnavailable):
        World(replace(SMALL, shop="real"), 1)


def test_the_shops_own_orders_are_told_as_they_were(small: World, told: list[Timed]) -> None:
    orders, items = small.shop.orders, small.shop.items
    by_id = {record["order_id"]: record for record in of(told, "orders")}
    for number in np.flatnonzero(orders.time >= small.start).tolist():
        record, lines = by_id[orders.ids[number]], orders.lines(number)
        assert record["event_time"] == orders.time[number]
        assert record["user_id"] == orders.customers[orders.customer[number]]
        assert [line["item_id"] for line in record["items"]] == [items.ids[item] for item in orders.item[lines]]


def test_a_share_of_the_customers_brings_about_that_share_of_orders(small: World) -> None:
    half = World(replace(SMALL, customers=0.5, fraud_rate=0.0), 1, shop=small.shop)
    whole = World(replace(SMALL, fraud_rate=0.0), 1, shop=small.shop)
    assert len(half.plan.orders) == pytest.approx(0.5 * len(whole.plan.orders), rel=0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "2011-13-01"}, "not a day"),
        ({"start": "2011-10-01"}, "is not before"),
        ({"fraud_rate": 0.9}, "fraud_rate is 0.9"),
        ({"fraud_drift": "tomorrow"}, "not a day"),
        ({"customers": -1}, "customers is -1"),
        ({"conversion_rate": 0.9}, "conversion_rate is 0.9"),
    ],
)
def test_a_world_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        replace(SMALL, **change)


def test_a_drift_of_no_known_name_is_refused(small: World) -> None:
    with pytest.raises(SettingsError, match="fraud, taste"):
        small.start_drift("weather")


def test_a_span_without_orders_is_an_empty_story(small: World) -> None:
    empty = World(replace(SMALL, start="2031-01-01", end="2031-01-03"), 1, shop=small.shop)
    assert not [event for event in empty.events() if event.topic != "labels"]
    assert world.DRIFTS == ("fraud", "taste")
