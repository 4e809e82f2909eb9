"""Click-through: what its rows hold of page, ads and history, what its heads compare, and what its scores say."""

from typing import Any

import numpy as np
import pytest
import torch

from engines.ctr_head import CtrHead
from engines.model import HeadraceConfig, HeadraceModel
from engines.samples import sample
from engines.signatures import CONVERSION, PAGE_NAMED, SIZES, signature
from finetune.first import new_model
from finetune.losses import tensors
from schemas.catalog import load
from schemas.compatibility import check, released
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.batch import CLICKS, IMPRESSIONS, KINDS
from streams.catalog import Catalogue, category_number
from streams.events import event_batch
from streams.features import fill_sequence
from streams.state import UserState
from streams.tasks import make_task
from streams.tasks.base import Context, Serving
from streams.tasks.ctr import ATTRIBUTES, BUCKETS
from tests.records import NOON_MS, click, impression, money

TASK = make_task("ctr")
WIDTH = 16
CATEGORIES = ("mugs", "bags")


def catalogue() -> Catalogue:
    """Items i0 to i5, mugs and bags in turn; ad a0 is for i0 and has no category, a1 has one and names no item."""
    catalog = Catalogue()
    vectors = [("item", f"i{n}") for n in range(6)] + [("ad", "a0"), ("ad", "a1")]
    for number in range(6):
        category = CATEGORIES[number % 2]
        catalog.apply_item({"item_id": f"i{number}", "category": category, "price": money(1), "available": True})
    catalog.apply_ad({"ad_id": "a0", "item_id": "i0", "category": None, "active": True})
    catalog.apply_ad({"ad_id": "a1", "item_id": None, "category": "bags", "active": True})
    for row, (kind, ident) in enumerate(vectors, start=1):
        vector = np.random.default_rng(row).standard_normal(384).astype("<f4").tobytes()
        catalog.apply_vector({"kind": kind, "id": ident, "row": row, "vector": vector})
    return catalog


def slate(*ads: str, **over):
    lines = [{"ad_id": ad, "position": place, "bid": None, "shown": True} for place, ad in enumerate(ads)]
    return impression(event_id="now", event_time=NOON_MS, slate=lines, **{"context_item_id": None, **over})


def row_of(event, history=(), slates_before=0):
    catalog, state = catalogue(), UserState(slots=64)
    before = [
        click(event_id=f"h{n}", event_time=NOON_MS - 60_000 * (len(history) - n), item_id=item)
        for n, item in enumerate(history)
    ]
    shown = [impression(event_id=f"s{n}", event_time=NOON_MS - 1000 * (n + 1)) for n in range(slates_before)]
    records = [*before, *shown, event]
    topic = [CLICKS] * len(before) + [IMPRESSIONS] * (len(shown) + 1)
    batch = event_batch(records, topic, [0] * len(records), list(range(len(records))), catalog)
    absorbed = state.absorb(batch)
    index = np.array([len(records) - 1])
    past = state.gather(absorbed, index)
    rows = np.zeros(1, TASK.features)
    fill_sequence(rows, past, batch, index)
    context = Context(
        batch.time[index], past, absorbed.totals[index], absorbed.first_time[index], absorbed.known[index],
        np.zeros((1, 5, 2), np.int32), catalog,
    )  # fmt: skip
    TASK.fill(rows, [event], context)
    return rows


def inputs_of(*args, **how):
    rows = row_of(*args, **how)
    return TASK.inputs(rows, np.ones((9, WIDTH), np.float32))


def test_an_ad_has_its_own_category_or_that_of_what_it_advertises():
    row = row_of(slate("a0", "a1", "unheard of"))[0]
    assert row["ad_category"][:4].tolist() == [category_number("mugs"), category_number("bags"), 0, 0]
    assert row["ad_item"][:3].tolist() == [1, 0, 0]


def test_the_history_says_items_and_categories_and_ends_with_the_page():
    ids = inputs_of(slate("a0", context_item_id="i1"), history=["i2", "i3"])["history_ids"][0]
    mugs, bags = map(category_number, CATEGORIES)
    assert ids[-3:].tolist() == [[3, mugs], [4, bags], [2, bags]]
    assert not ids[:-3].any()


def test_slates_of_the_last_half_hour_are_counted():
    assert inputs_of(slate("a0"), slates_before=4)["page_scalars"][0, 0] == 0.5
    assert inputs_of(slate("a0"))["page_scalars"][0, 0] == 0


def test_placement_and_attributes_are_named_values():
    given = inputs_of(slate("a0", attributes={"shop": "north", "load": 99.0, "off": None}))
    other = inputs_of(slate("a0", attributes={"shop": "south", "load": 3.0}))
    assert ((given["page_ids"] > 0).sum(), given["page_ids"].max() < BUCKETS) == (3, True)
    assert sorted(given["page_values"][0, :3].tolist()) == pytest.approx([1, 1, np.log1p(99)])
    assert not given["page_values"][0, 3:].any()
    assert (given["page_ids"] != other["page_ids"]).sum() == 1  # another shop; the load has another value only


def test_more_attributes_than_fit_are_left_out():
    crowd = inputs_of(slate("a0", attributes={f"n{number}": 1.0 for number in range(3 * ATTRIBUTES)}))
    assert (crowd["page_ids"] > 0).sum() == ATTRIBUTES + 1 == PAGE_NAMED


def head() -> CtrHead:
    torch.manual_seed(0)
    model = HeadraceModel(HeadraceConfig(task="ctr", width=WIDTH, heads=2, hidden=32))
    made = model.head
    assert isinstance(made, CtrHead)
    made.interests.begin(0.1, (KINDS["impression"],))
    return made


def shares(*args, **how) -> list[list[float]]:
    """Of each of two ads: the share of the history that is its item, and its category."""
    with torch.inference_mode():
        found: list[list[float]] = head().interests(tensors(inputs_of(*args, **how)))[0, :2, :2].tolist()
    return found


def test_what_the_user_looked_at_last_counts_most_and_shares_are_parts_of_one():
    (item, mugs), (_, bags) = shares(slate("a0", "a1"), history=["i0", "i1", "i2", "i3", "i5"])
    assert 0 < item < mugs < bags < 1
    assert mugs + bags == pytest.approx(1, abs=0.01)  # the page itself hardly counts


def test_who_has_no_history_shares_nothing():
    (item, mugs), (_, bags) = shares(slate("a0", "a1"))
    assert item == mugs == bags == 0


def test_padding_changes_no_share():
    shape = signature({**SIZES, "task": "ctr", "width": WIDTH})
    given = {name: torch.from_numpy(array) for name, array in sample(shape, 6, seed=3).items()}
    noisy = {name: tensor.clone() for name, tensor in given.items()}
    padding = given["history_kinds"] == 0
    padding[:, -1] = False
    noisy["history_ids"][padding] = 5
    noisy["history_vectors"][padding] = 9.0
    with torch.inference_mode():
        torch.testing.assert_close(head().interests(noisy), head().interests(given))


# -- orders after clicks


def said_of(outputs, *events):
    """Results of a slate each, without a history, as a release with or without a second head has them."""
    rows = np.concatenate([row_of(event) for event in events])
    serving = Serving(catalogue(), {"a": 1.0, "b": 0.0, "conversion_a": 2.0, "conversion_b": -1.0}, {"mean": 0.1})
    return TASK.results(outputs, events, rows, serving), TASK.fallback(events, rows, serving)


def logits(of_orders: float | None = None):
    clicks = {"logit": np.full((1, 8), 0.5, np.float32)}
    return clicks if of_orders is None else {**clicks, CONVERSION: np.full((1, 8), of_orders, np.float32)}


def test_an_order_after_a_click_has_a_chance_and_a_calibration_of_its_own():
    [result], [fallback] = said_of(logits(of_orders=1.0), slate("a0", "a1"))
    first, second = result.fields["ads"]
    assert first["conversion"] == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert first["probability"] == second["probability"] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert result.prediction == [first["probability"], second["probability"]]
    assert second["conversion"] is None  # a1 advertises no item that is known, and nothing would be credited to it
    assert [ad["conversion"] for ad in fallback.fields["ads"]] == [None, None]


def test_a_release_without_the_second_head_says_nothing_of_orders():
    [result], _ = said_of(logits(), slate("a0", "a1"))
    assert [ad["conversion"] for ad in result.fields["ads"]] == [None, None]


@pytest.mark.parametrize("outputs", [logits(), logits(of_orders=1.0)])
def test_what_was_said_of_orders_is_read_and_said_again(outputs):
    registry, [event] = MemoryRegistry(), [slate("a0", "a1")]
    [result], _ = said_of(outputs, event)
    common = {name: event[name] for name in ("event_id", "user_id", "event_time")}
    cut = {"clicks": -1, "orders": -1, "impressions": 4}
    common |= {"scored_at": NOON_MS, "release": "ctr/1", "engine": "e", "timings": {"queue_us": 1, "infer_us": 1}}
    common |= {"late": False, "fallback": None, "cut": cut}
    message = Encoder(registry, "scores.ctr", "ctr_score")(common | result.fields)
    score = Decoder(registry, "ctr_score")(message)
    as_floats = [ad | {name: ad[name] and float(np.float32(ad[name])) for name in ("probability", "conversion")}
                 for ad in result.fields["ads"]]  # fmt: skip
    assert TASK.said(score).fields["ads"] == score["ads"] == as_floats


def test_a_reader_of_the_first_contract_still_reads_a_score():
    first: Any = released("ctr_score")[0]
    field = next(each for each in first["fields"] if each["name"] == "ads")
    assert check(first, load("ctr_score")) == []
    assert [each["name"] for each in field["type"]["items"]["fields"]] == ["ad_id", "position", "probability"]


def test_what_is_learned_of_orders_moves_neither_the_vectors_nor_what_is_said_of_clicks():
    torch.manual_seed(0)
    model = HeadraceModel(HeadraceConfig(task="ctr", width=WIDTH, heads=2, hidden=32, conversions=1))
    shape = signature({**SIZES, "task": "ctr", "width": WIDTH})
    inputs = {name: torch.from_numpy(array) for name, array in sample(shape, 6, seed=3).items()}
    for name in ("slate_vectors", "history_vectors"):
        inputs[name].requires_grad_(True)
    model(**inputs)[CONVERSION].sum().backward()
    moved = {name for name, each in model.named_parameters() if each.grad is not None}
    assert moved == {name for name, _ in model.named_parameters() if name.startswith("head.conversion.")}
    assert inputs["slate_vectors"].grad is inputs["history_vectors"].grad is None


def test_a_model_with_a_head_for_orders_begins_as_one_without():
    with_head, without = (new_model("ctr", None, conversions=number).state_dict() for number in (1, 0))
    assert all(torch.equal(value, with_head[name]) for name, value in without.items())
    assert with_head.keys() - without.keys() == {name for name in with_head if name.startswith("head.conversion.")}
