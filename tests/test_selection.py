"""What is chosen of a ranking: nothing that may not be shown, as many as there can be, and as unlike as asked for."""

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.errors import BadRecord
from streams.batch import KINDS
from streams.catalog import ENDLESS, NOT_A_CANDIDATE, Catalogue
from streams.features import Rows
from streams.tasks import make_task
from streams.tasks.base import Result, Serving
from streams.tasks.recommendation import POOL, TOP_K
from streams.tasks.selection import DAY_S, PLAIN, Selection, chosen
from tests.records import NOON_MS, click, money

ITEMS, KINDS_OF_ITEM = 120, ("lamps", "bags", "cards")
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
TASK = make_task("recommendations")
CHOICES = st.builds(
    Selection,
    bought_days=st.sampled_from([0.0, 1.0, 30.0]),
    repeatable=st.sampled_from([(), ("cards",), KINDS_OF_ITEM]),
    diversity=st.sampled_from([0.0, 0.5, 3.0]),
    most_a_category=st.integers(0, 5),
)


@cache
def texts() -> list[bytes]:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((len(KINDS_OF_ITEM), 384))
    found = middles[np.arange(ITEMS) % len(KINDS_OF_ITEM)] + 0.5 * rng.standard_normal((ITEMS, 384))
    return [(text / np.linalg.norm(text)).astype("<f4").tobytes() for text in found]


def catalogue(items: int = ITEMS) -> Catalogue:
    """Item n is row n + 1, of category n % 3; the texts of a category are alike."""
    catalog = Catalogue()
    for number, vector in enumerate(texts()[:items]):
        kind = number % len(KINDS_OF_ITEM)
        stock = {"price": money(1), "available": True, "category": KINDS_OF_ITEM[kind]}
        catalog.apply_item({"item_id": f"i{number}", **stock})
        catalog.apply_vector({"kind": "item", "id": f"i{number}", "row": number + 1, "vector": vector})
    return catalog


def category(ident: str) -> str:
    return KINDS_OF_ITEM[int(ident[1:]) % len(KINDS_OF_ITEM)]


def ranking(events: int, pool: int = POOL, items: int = ITEMS, seed: int = 0) -> dict[str, NDArray[Any]]:
    """As an engine ranks: distinct rows, falling scores."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(items)[:pool] + 1 for _ in range(events)])
    return {"rows": rows, "scores": -np.sort(-rng.normal(0, 2, rows.shape).astype(np.float32), axis=1)}


def history(*bought: dict[int, float]) -> Rows:
    """Feature rows of users who bought these catalogue rows so many days ago, and looked at the others of 1 to 40."""
    rows = np.zeros(len(bought), TASK.features)
    for row, each in zip(rows, bought, strict=True):
        for place, (item, days) in enumerate(each.items()):
            row["item"][place], row["kind"][place], row["age"][place] = item, KINDS["purchase"], days * DAY_S
        seen = range(len(each), 64)
        row["item"][len(each) :], row["kind"][len(each) :] = [place % 40 + 1 for place in seen], KINDS["view"]
    return rows


def results(outputs: dict[str, Any], rows: Rows, catalog: Catalogue, selection: Selection) -> list[Result]:
    events = [click(event_time=NOON_MS) for _ in rows]
    return TASK.results(outputs, events, rows, Serving(catalog, {}, {}, selection=selection))


@unhurried
@given(selection=CHOICES, bought=st.sets(st.integers(1, ITEMS), max_size=64), seed=st.integers(0, 99), data=st.data())
def test_what_is_withheld_never_appears_and_the_list_is_as_long_as_it_can_be(
    selection: Selection, bought: set[int], seed: int, data: st.DataObject
) -> None:
    catalog, outputs = catalogue(), ranking(1, seed=seed)
    days = {row: data.draw(st.sampled_from([0.5, 10.0, 50.0])) for row in bought}
    blocked = data.draw(st.dictionaries(st.integers(0, ITEMS - 1), st.sampled_from([NOON_MS, NOON_MS + 1, ENDLESS])))
    for number, until in blocked.items():
        catalog.block(f"i{number}", until)
    [result] = results(outputs, history(days), catalog, selection)
    gone = {f"i{number}" for number, until in blocked.items() if until > NOON_MS}
    gone |= {
        f"i{row - 1}"
        for row, age in days.items()
        if age < selection.bought_days and category(f"i{row - 1}") not in selection.repeatable
    }
    ranked = [catalog.ids[row] for row in outputs["rows"][0]]
    may = [ident for ident in ranked if ident not in gone]
    assert not gone & set(result.candidates)
    assert len(set(result.candidates)) == len(result.candidates) == min(TOP_K, len(may))
    assert result.prediction == [outputs["scores"][0][ranked.index(ident)] for ident in result.candidates]
    if not (selection.diversity or selection.most_a_category):
        assert result.candidates == may[:TOP_K]


@unhurried
@given(selection=CHOICES, seed=st.integers(0, 999))
def test_a_choice_among_those_that_were_chosen_is_the_same_choice(selection: Selection, seed: int) -> None:
    """What lets `reproduce` check a list whose other candidates are not known any more."""
    catalog, outputs = catalogue(), ranking(3, seed=seed)
    pool, scores = outputs["rows"], outputs["scores"]
    first = chosen(scores, pool, np.ones(pool.shape, np.bool_), TOP_K, catalog, selection)
    only = np.zeros(pool.shape, np.bool_)
    np.put_along_axis(only, first, True, axis=1)
    np.testing.assert_array_equal(chosen(scores, pool, only, TOP_K, catalog, selection), first)


@unhurried
@given(most=st.integers(1, 5), seed=st.integers(0, 99))
def test_no_category_has_more_than_its_share_while_others_are_left(most: int, seed: int) -> None:
    [result] = results(ranking(1, seed=seed), history({}), catalogue(), Selection(most_a_category=most))
    assert len(result.candidates) == TOP_K
    assert max(Counter(map(category, result.candidates[: most * len(KINDS_OF_ITEM)])).values()) <= most


def test_a_diverse_list_holds_texts_that_are_less_alike_and_begins_with_the_best() -> None:
    catalog, outputs, rows = catalogue(), ranking(50), history(*[{}] * 50)
    by_category = sorted(range(1, ITEMS + 1), key=lambda row: category(f"i{row - 1}"))
    outputs["rows"] = np.array(by_category)[None, :POOL].repeat(50, 0)
    plain, diverse = (results(outputs, rows, catalog, each) for each in (PLAIN, Selection(diversity=4.0)))
    assert alike(diverse, catalog) < 0.85 * alike(plain, catalog)
    assert [one.candidates[0] for one in diverse] == [one.candidates[0] for one in plain]


def alike(found: list[Result], catalog: Catalogue) -> float:
    texts = [catalog.text[[catalog.items[ident] for ident in one.candidates]] for one in found]
    return float(np.mean([(each @ each.T)[np.triu_indices(TOP_K, 1)].mean() for each in texts]))


def test_diversity_is_maximal_marginal_relevance_as_it_is_written_down() -> None:
    catalog, outputs = catalogue(), ranking(1, seed=3)
    [result] = results(outputs, history({}), catalog, Selection(diversity=2.0))
    rows, scores = outputs["rows"][0].tolist(), outputs["scores"][0].tolist()
    left, listed = dict(zip(rows, scores, strict=True)), list[int]()
    while len(listed) < TOP_K:
        worth = {
            row: score - 2.0 * max((0.0, *(float(catalog.text[row] @ catalog.text[other]) for other in listed)))
            for row, score in left.items()
        }
        listed.append(max(worth, key=worth.__getitem__))
        del left[listed[-1]]
    assert result.candidates == [catalog.ids[row] for row in listed]


@pytest.mark.parametrize("ranked", [TOP_K, POOL])
def test_without_a_choice_a_list_is_the_first_of_the_ranking_bit_by_bit(ranked: int) -> None:
    catalog, outputs = catalogue(), ranking(5, ranked)
    for selection in (PLAIN, Selection(repeatable=("cards",))):
        for number, result in enumerate(results(outputs, history(*[{}] * 5), catalog, selection)):
            assert result.candidates == [catalog.ids[row] for row in outputs["rows"][number][:TOP_K]]
            assert result.prediction == outputs["scores"][number][:TOP_K].tolist()


def test_rows_that_fill_up_a_small_catalogue_are_never_listed() -> None:
    """A graph is given at least as many rows as it ranks."""
    outputs = ranking(2, POOL, items=POOL + 12)
    outputs["scores"][:, 4:] = NOT_A_CANDIDATE
    outputs["rows"][:, :4] = [1, 2, 3, 4]
    for selection in (PLAIN, Selection(diversity=1.0, most_a_category=2, bought_days=9)):
        found = results(outputs, history({1: 2.0}, {}), catalogue(6), selection)
        gone = {"i0"} if selection.bought_days else set[str]()
        assert [sorted(each.candidates) for each in found] == [
            sorted({"i0", "i1", "i2", "i3"} - gone), ["i0", "i1", "i2", "i3"],
        ]  # fmt: skip


@unhurried
@given(selection=CHOICES, bought=st.sets(st.integers(1, 30), max_size=30), sold_out=st.sets(st.integers(0, 29)))
def test_the_fallback_lists_nothing_that_is_sold_out_blocked_or_bought(
    selection: Selection, bought: set[int], sold_out: set[int]
) -> None:
    catalog = catalogue(30)
    for number in sold_out:
        catalog.apply_item({"item_id": f"i{number}", "price": None, "available": False})
    catalog.block("i7", NOON_MS + 1)
    catalog.block("i8", NOON_MS)
    catalog.pass_time(NOON_MS)
    popular = ["i9", "i8", "i7", "gone", *(f"i{number}" for number in range(20, 24))]
    serving = Serving(catalog, {}, {"popular": popular}, selection=selection)
    [result] = TASK.fallback([click(event_time=NOON_MS)], history(dict.fromkeys(bought, 2.0)), serving)
    again = set(selection.repeatable)
    left_out = {f"i{row - 1}" for row in bought} if selection.bought_days > 2 else set[str]()
    left_out = {ident for ident in left_out if category(ident) not in again} | {f"i{number}" for number in sold_out}
    may = [f"i{number}" for number in range(30) if f"i{number}" not in left_out | {"i7"}]
    assert set(result.candidates) <= set(may)
    assert len(result.candidates) == min(TOP_K, len(may))
    wanted = [ident for ident in popular if ident in may]
    assert result.candidates[: len(wanted)] == wanted[:TOP_K]
    assert result.prediction == [0.0] * len(result.candidates)


@unhurried
@given(selection=CHOICES)
def test_what_was_chosen_by_can_be_read_again(selection: Selection) -> None:
    read = Selection.parse(selection.text)
    assert read == selection or not (read.chooses or selection.chooses)


@pytest.mark.parametrize("text", ["{", '{"of_tomorrow":1}', "[1]", '{"repeatable":3}'])
def test_a_choice_of_another_version_is_named(text: str) -> None:
    with pytest.raises(BadRecord, match=r"served\.selection"):
        Selection.parse(text)


def test_a_blocked_item_is_no_candidate_until_its_time_has_passed() -> None:
    catalog = catalogue(3)
    catalog.pass_time(NOON_MS - 5)
    catalog.block("i0", NOON_MS)
    catalog.block("later", ENDLESS)
    version = catalog.version
    assert catalog.candidate_bias().tolist()[1:] == [NOT_A_CANDIDATE, 0, 0]
    catalog.pass_time(NOON_MS - 1)
    assert catalog.version == version
    catalog.pass_time(NOON_MS)
    assert catalog.version > version
    assert catalog.candidate_bias().tolist()[1:] == [0, 0, 0]
    stock = {"price": None, "available": True}
    catalog.apply_item({"item_id": "later", **stock})
    catalog.apply_vector({"kind": "item", "id": "later", "row": 4, "vector": bytes(4 * 384)})
    assert catalog.candidate_bias()[4] == NOT_A_CANDIDATE
    catalog.block("later", None)
    assert catalog.candidate_bias()[4] == 0
