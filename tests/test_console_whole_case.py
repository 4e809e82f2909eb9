"""Linked alerts as one case: its row in the queue against a plain union-find, a verdict on all of it and its undo."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.errors import BrokerUnavailable
from streams.console import desk, grouping, listing, words
from streams.console.cases import case
from streams.console.figures import figures
from streams.console.history import history
from streams.console.listing import Filter
from streams.console.rows import OPINION, VERDICT, WITHDRAWAL, Change
from streams.console.store import Batch, Store
from tests.console_app import Shown, shown
from tests.console_shop import NOW_MS, Shop, alert, alert_id, label, shop
from tests.records import money
from tests.test_console_pages import SCRIPT, Client, csrf, open_client, text

A = alert_id("a")
RING = [
    alert(name, user_id=f"u{name}", entities=[f"card:{name}", "device:ring"], amount=money(number + 1), currency="GBP",
          expected_loss=number + 0.5, raised_at=NOW_MS + number)
    for number, name in enumerate("abcd")
]  # fmt: skip
ALONE = alert("z", user_id="uz", entities=["card:z", "ip:9"], amount=money(70), currency="GBP", expected_loss=2.0)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path, Shop([*RING, ALONE])) as made:
        yield made


@pytest.fixture
def careful(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path, Shop([*RING, ALONE]), four_eyes=True) as made:
        yield made


def answers(store: Store) -> dict[str, float | None]:
    with store.reading() as connection:
        return {row[0]: row[1] for row in connection.execute("SELECT order_id, answer FROM alerts ORDER BY 1")}


def seen(store: Store, order_id: str = "a") -> str:
    with store.reading() as connection:
        group = connection.execute("SELECT grp FROM alerts WHERE order_id = ?", (order_id,)).fetchone()[0]
        return figures(connection, [group])[group].seen


def details(console: Shown) -> list[dict[str, Any]]:
    return [json.loads(entry.detail) for entry in console.audit.entries]


# -- the queue --------------------------------------------------------------------------------------------------------


def cases_of(records: list[dict[str, Any]], most_users: int) -> list[list[dict[str, Any]]]:
    """By a union-find over all of them at once, which knows nothing of how they came."""
    above = {record["order_id"]: record["order_id"] for record in records}

    def root(name: str) -> str:
        return name if above[name] == name else root(above[name])

    holders: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for token in record["entities"]:
            if token.split(":")[0] in ("card", "device", "address", "email"):
                holders.setdefault(token, []).append(record)
    for held in holders.values():
        if len({record["user_id"] for record in held}) <= most_users:
            for record in held[1:]:
                above[root(record["order_id"])] = root(held[0]["order_id"])
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(root(record["order_id"]), []).append(record)
    return list(found.values())


ORDERS = st.lists(
    st.tuples(
        st.integers(0, 4), st.sets(st.sampled_from(["card:1", "card:2", "device:1", "email:1", "ip:1"]), max_size=2),
        st.integers(1, 9), st.integers(0, 5), st.sampled_from([None, 0.0, 1.0]), st.sampled_from(["GBP", "EUR"]),
    ),
    min_size=1, max_size=14,
)  # fmt: skip


@hypothesis_settings(max_examples=60, deadline=None)
@given(orders=ORDERS, state=st.sampled_from(["open", "answered", "all"]), cuts=st.integers(1, 5))
def test_the_queue_shows_each_case_once_with_what_a_union_find_says_of_it(
    tmp_path_factory: pytest.TempPathFactory, orders: list[Any], state: str, cuts: int
) -> None:
    records, labels = [], []
    for number, (user, tokens, amount, loss, answer, currency) in enumerate(orders):
        name = f"o{number}"
        records.append(
            alert(name, user_id=f"u{user}", entities=sorted(tokens), amount=money(amount), currency=currency,
                  expected_loss=float(loss), raised_at=NOW_MS + number % 3)
        )  # fmt: skip
        labels += [] if answer is None else [label(name, answer)]
    answered = {order_id: said.value for order_id, said in labels}
    store, most = Store(tmp_path_factory.mktemp("store")), grouping.MOST_USERS
    grouping.MOST_USERS = 2
    try:
        for start in range(0, len(records), cuts):
            store.apply(Batch(records[start : start + cuts], labels if not start else ()))
        with store.reading() as connection:
            listed = listing.queue(connection, Filter(state=state), size=99)
    finally:
        grouping.MOST_USERS = most
        store.close()
    wanted = []
    for orders_of_case in cases_of(records, 2):
        of_state = [
            one for one in orders_of_case if state == "all" or (one["order_id"] in answered) == (state == "answered")
        ]
        if of_state:
            sums = {
                currency: sum(int.from_bytes(one["amount"], "big") for one in of_state if one["currency"] == currency)
                for currency in {one["currency"] for one in of_state}
            }
            said = [answered[one["order_id"]] for one in orders_of_case if one["order_id"] in answered]
            wanted.append(
                (
                    len(orders_of_case), len({one["user_id"] for one in orders_of_case}), len(of_state), sums,
                    max(one["expected_loss"] for one in of_state), max(one["raised_at"] for one in of_state),
                    sum(value > 0 for value in said), sum(value <= 0 for value in said),
                )
            )  # fmt: skip
    shown_rows = [
        (it.orders, it.users, it.shown, dict(it.amounts), it.loss, it.newest, it.fraud, it.genuine)
        for it in (listed.cases[row["grp"]] for row in listed.alerts)
    ]
    assert sorted(map(repr, shown_rows)) == sorted(map(repr, _in_order(wanted)))
    assert [row[4] for row in shown_rows] == sorted((row[4] for row in shown_rows), reverse=True)


def _in_order(wanted: list[Any]) -> list[Any]:
    """Sums by currency as the queue has them: the largest first."""
    return [(*row[:3], dict(sorted(row[3].items(), key=lambda item: (-item[1], item[0]))), *row[4:]) for row in wanted]


# -- a verdict on all of it -------------------------------------------------------------------------------------------


def test_one_verdict_gives_each_open_order_of_the_case_a_label_and_an_entry_of_its_own(console: Shown) -> None:
    console.desk.verdict(alert_id("b"), 0.0, "bert", NOW_MS)
    done = console.desk.verdict_on_case(A, 1.0, "anna", NOW_MS + 1, seen(console.store))
    assert (done.kind, sorted(done.orders), done.wait, done.left) == (desk.PUBLISHED, ["a", "c", "d"], 0, 0)
    assert answers(console.store) == {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0, "z": None}
    said = [(order, one.value) for order, one in console.labels.said]
    assert sorted(said[1:]) == [("a", 1.0), ("c", 1.0), ("d", 1.0)]
    told = details(console)[1:]
    assert [entry.action for entry in console.audit.entries] == [VERDICT] * 4
    assert len({(one["case"], one["orders"], one["together"]) for one in told}) == 1
    assert (told[0]["orders"], told[0]["case"]) == (3, min(alert_id(name) for name in "abcd"))


def test_it_is_taken_back_in_one_go_and_only_where_it_still_stands(console: Shown) -> None:
    console.desk.verdict(alert_id("b"), 0.0, "bert", NOW_MS)
    console.desk.verdict_on_case(A, 1.0, "anna", NOW_MS + 1)
    console.desk.verdict(alert_id("c"), 0.0, "bert", NOW_MS + 2)
    done = console.desk.undo_on_case(alert_id("d"), "carl", NOW_MS + 3)
    assert (done.kind, sorted(done.orders)) == (desk.WITHDRAWN, ["a", "d"])
    assert answers(console.store) == {"a": None, "b": 0.0, "c": 0.0, "d": None, "z": None}
    assert console.desk.undo_on_case(A, "anna", NOW_MS + 4).kind == desk.NOTHING


def test_another_console_that_has_read_the_topics_takes_it_back_as_well(console: Shown, tmp_path: Path) -> None:
    console.desk.verdict_on_case(A, 1.0, "anna", NOW_MS)
    changes = [Change.of(entry) for entry in console.audit.entries]
    with shown(tmp_path / "other", Shop([*reversed(RING)], list(console.labels.said))) as other:
        other.store.apply(Batch(changes=changes))
        assert sorted(other.desk.undo_on_case(alert_id("c"), "bert", NOW_MS + 1).orders) == list("abcd")
        assert answers(other.store) == dict.fromkeys("abcd")
        assert {entry.action for entry in other.audit.entries} == {WITHDRAWAL}


@pytest.mark.parametrize("news", ["an order", "a verdict", "a merge"])
def test_who_judges_a_case_that_has_changed_since_it_was_shown_is_told_so(console: Shown, news: str) -> None:
    before = seen(console.store)
    if news == "an order":
        console.store.apply(Batch([alert("e", user_id="ue", entities=["device:ring"])]))
    elif news == "a verdict":
        console.desk.verdict(alert_id("d"), 0.0, "bert", NOW_MS)
    else:
        console.store.apply(Batch([alert("z", user_id="uz", entities=["card:z", "card:a"])]))
    said = len(console.labels.said)
    assert console.desk.verdict_on_case(A, 1.0, "anna", NOW_MS, before).kind == desk.STALE
    assert len(console.labels.said) == said


def test_with_four_eyes_the_second_analyst_who_says_the_same_publishes_all_of_it(careful: Shown) -> None:
    done = careful.desk.verdict_on_case(A, 1.0, "anna", NOW_MS)
    assert (done.kind, done.wait) == (desk.WAITING, 4)
    assert careful.desk.verdict_on_case(A, 1.0, "anna", NOW_MS + 1).kind == desk.WAITING
    careful.desk.verdict(alert_id("b"), 0.0, "bert", NOW_MS + 2)
    assert careful.labels.said == []
    done = careful.desk.verdict_on_case(A, 1.0, "carl", NOW_MS + 3)
    assert (done.kind, len(done.orders), done.wait) == (desk.PUBLISHED, 4, 0)
    assert answers(careful.store) == {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "z": None}
    assert {one.get("together", "") for one in details(careful) if one["value"] == 0.0} == {""}


def test_with_four_eyes_ones_own_opinions_on_a_case_are_taken_back_and_nobody_elses(careful: Shown) -> None:
    careful.desk.verdict_on_case(A, 1.0, "anna", NOW_MS)
    assert careful.desk.undo_on_case(A, "bert", NOW_MS).kind == desk.NOTHING
    assert len(careful.desk.undo_on_case(A, "anna", NOW_MS).orders) == 4
    assert careful.desk.verdict_on_case(A, 1.0, "bert", NOW_MS + 1).kind == desk.WAITING
    assert [entry.action for entry in careful.audit.entries].count(OPINION) == 8


def test_what_kafka_takes_of_a_case_stands_and_the_rest_is_as_it_was(
    console: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    say, tried = console.labels.say, list[str]()

    def breaks(order_id: str, said: Any) -> None:
        tried.append(order_id)
        if len(tried) > 2:
            raise BrokerUnavailable("no broker listens")
        say(order_id, said)

    monkeypatch.setattr(console.labels, "say", breaks)
    done = console.desk.verdict_on_case(A, 1.0, "anna", NOW_MS)
    assert (done.orders, done.left) == (("d", "c"), 2)
    assert "no broker listens" in done.problem
    assert answers(console.store) == {"a": None, "b": None, "c": 1.0, "d": 1.0, "z": None}
    monkeypatch.setattr(console.labels, "say", say)
    assert sorted(console.desk.verdict_on_case(A, 1.0, "anna", NOW_MS + 1).orders) == ["a", "b"]


def test_of_a_case_that_is_too_large_the_newest_are_judged_and_the_rest_is_named(
    console: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MOST_AT_ONCE", 3)
    done = console.desk.verdict_on_case(A, 0.0, "anna", NOW_MS)
    assert (done.orders, done.left) == (("d", "c", "b"), 1)
    assert console.desk.verdict_on_case(A, 0.0, "anna", NOW_MS).orders == ("a",)
    assert console.desk.verdict_on_case(A, 0.0, "anna", NOW_MS).kind == desk.ANSWERED


def test_the_history_of_each_order_says_that_it_was_judged_with_its_case(console: Shown) -> None:
    console.desk.verdict_on_case(A, 1.0, "anna", NOW_MS + 50)
    console.desk.undo_on_case(A, "anna", NOW_MS + 60)
    with console.store.reading() as connection:
        found = case(connection, alert_id("c"))
    assert found is not None
    events = history(found)
    for lang in words.LANGUAGES:
        t = words.translator(lang)
        said = [t(event.words, **event.values(t)) for event in events]
        assert len(said) == 3
        if lang == "en":
            assert said[:2] == ["Verdict taken back, for the whole case", "Verdict: fraud, for the whole case"]
        else:
            assert not any(re.search("[a-z]{4}", one) for one in said)


# -- the pages --------------------------------------------------------------------------------------------------------


def test_the_queue_and_the_case_page_judge_all_of_a_case_and_say_what_came_of_it(console: Shown) -> None:
    async def story() -> None:
        async with open_client(console, "analyst") as client:
            await _judged(client, console)

    asyncio.run(story())


async def _judged(client: Client, console: Shown) -> None:
    rows = await text(client, "/queue")
    assert rows.count("<tr ") == 2
    assert "Case of 4 orders" in rows
    assert "10.00\N{NO-BREAK SPACE}GBP" in rows  # of all four
    page = await text(client, f"/cases/{A}")
    assert all(f">{name}</a>" in page for name in "bcd")
    data = {"csrf": await csrf(client), "verdict": "fraud", "whole": "1", "seen": seen(console.store)}
    answer = await client.post(f"/cases/{A}/verdict", data=data, headers=SCRIPT)
    assert (await answer.json())["words"] == "4 orders of the case: fraud. The labels are published."
    answer = await client.post(f"/cases/{A}/verdict", data=data, headers=SCRIPT)
    assert answer.status == 409
    row = await text(client, f"/rows/{alert_id('d')}")
    assert "4 fraud" in row
    assert "4 fraud" in await text(client, "/queue?state=answered")
    answer = await client.post(f"/cases/{A}/undo", data=data, headers=SCRIPT)
    assert (await answer.json())["words"] == "Taken back on 4 orders of the case."
    assert answers(console.store) == {"a": None, "b": None, "c": None, "d": None, "z": None}
    assert "One of" not in await text(client, f"/cases/{alert_id('z')}")


def test_open_pages_are_told_which_cases_have_changed(console: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[tuple[str, Any]]()
    monkeypatch.setattr(type(console.hub), "__len__", lambda hub: 1)
    monkeypatch.setattr(console.hub, "say", lambda event, data: told.append((event, data)))
    console.office.announce(["b", "z"])
    assert told[0] == ("orders", {"orders": ["b", "z"], "cases": sorted([min(map(alert_id, "abcd")), alert_id("z")])})


def test_a_case_of_more_orders_than_its_page_lists_leads_to_the_others(tmp_path: Path) -> None:
    many = [alert(f"n{n}", user_id="one", entities=["card:1"]) for n in range(105)]

    async def story(console: Shown) -> None:
        async with open_client(console, "viewer") as client:
            page = await text(client, f"/cases/{alert_id('n7')}")
            assert "All 105 orders of the case" in page
            assert len(page.encode()) < 300_000
            link = f"/queue?case={alert_id('n7')}&amp;each=1&amp;state=all"
            assert link in page
            assert "105 orders match" in await text(client, link.replace("&amp;", "&"))

    with shown(tmp_path, Shop(many)) as console:
        asyncio.run(story(console))


def test_what_the_worker_knew_of_what_is_shared_is_on_the_case_page(tmp_path: Path) -> None:
    known = [{"entity": "card:1", "users": 7, "frauds": 2}]

    async def story(console: Shown) -> None:
        async with open_client(console, "analyst") as client:
            page = await text(client, f"/cases/{A}")
            assert "2 of its users had a fraud" in page
            assert "7 users in all orders" in page

    with shown(tmp_path, Shop([alert("a", entities=["card:1"], links=["card:1"], linked=known)])) as console:
        asyncio.run(story(console))


def test_the_sample_shops_ring_is_one_case(tmp_path: Path) -> None:
    made = shop(quiet=0)
    with shown(tmp_path, made) as console, console.store.reading() as connection:
        listed = listing.queue(connection, Filter(state="all"), size=99)
        assert sorted(it.orders for it in listed.cases.values()) == [1, 1, 1, 4, 6]
