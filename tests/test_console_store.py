"""The console's store: alerts, labels and changes in any order and as often as they like give the same answer."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.console import grouping
from streams.console.answers import Label
from streams.console.grouping import MOST_USERS
from streams.console.rows import OPINION, Change
from streams.console.store import Batch, Store, labels_of
from tests.console_shop import DAY, NOW_MS, alert, alert_id, label


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def linked(order_id: str, *tokens: str, user: str = "", **fields: Any) -> dict[str, Any]:
    return alert(order_id, user_id=user or f"user of {order_id}", entities=list(tokens), **fields)


def groups(store: Store) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    with store.reading() as connection:
        for row in connection.execute("SELECT grp, order_id FROM alerts"):
            found.setdefault(row["grp"], set()).add(row["order_id"])
    return {frozenset(orders) for orders in found.values()}


def one(store: Store, order_id: str) -> dict[str, Any]:
    with store.reading() as connection:
        return dict(connection.execute("SELECT * FROM alerts WHERE order_id = ?", (order_id,)).fetchone())


def test_a_redelivered_alert_updates_and_never_doubles(store: Store) -> None:
    assert store.apply(Batch([alert("a", probability=0.6)])).new == [alert_id("a")]
    again = store.apply(Batch([alert("a", probability=0.8, rules=["new rule"], policy_version="2")]))
    assert again.new == []
    assert again.orders == {"a"}
    with store.reading() as connection:
        assert [row["probability"] for row in connection.execute("SELECT probability FROM alerts")] == [0.8]
        assert [tuple(row) for row in connection.execute("SELECT * FROM rules")] == [("new rule", alert_id("a"))]


def test_an_answer_outlives_a_redelivery_and_may_come_before_its_alert(store: Store) -> None:
    store.apply(Batch(labels=[label("a", 1.0)]))
    store.apply(Batch([alert("a")]))
    assert (one(store, "a")["answered"], one(store, "a")["answer"]) == (1, 1.0)
    store.apply(Batch([alert("a", decision="block")]))
    assert (one(store, "a")["answered"], one(store, "a")["decision"]) == (1, "block")


def test_what_an_older_record_does_not_say_is_not_made_up(store: Store) -> None:
    store.apply(Batch([alert("a")]))
    found = one(store, "a")
    assert (found["amount"], found["currency"], found["country"], found["sentence"]) == (None, "", None, "")


def test_offsets_are_kept_with_what_was_read_to_them(store: Store, tmp_path: Path) -> None:
    store.apply(Batch([alert("a")], offsets={("alerts", 0): ("topic id", 5)}))
    store.close()
    again = Store(tmp_path)
    assert again.offsets() == {("alerts", 0): ("topic id", 5)}
    assert one(again, "a")["order_id"] == "a"
    again.close()


def test_a_batch_that_fails_leaves_neither_rows_nor_offsets(store: Store) -> None:
    broken = alert("b")
    del broken["probability"]
    with pytest.raises(KeyError):
        store.apply(Batch([alert("a"), broken], offsets={("alerts", 0): ("topic id", 5)}))
    assert store.offsets() == {}
    with store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM alerts").fetchone()[0] == 0


@pytest.mark.parametrize("content", [b"this is no database, and never was one" * 100, b""])
def test_a_damaged_file_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "console.db").write_bytes(content)
    store = Store(tmp_path)
    store.apply(Batch([alert("a")]))
    assert one(store, "a")["order_id"] == "a"
    store.close()


def test_a_new_alert_makes_one_case_of_all_that_it_shares_a_card_device_address_or_email_with(store: Store) -> None:
    store.apply(Batch([linked("a", "card:1"), linked("b", "device:2"), linked("c", "ip:4"), linked("e", "email:3")]))
    assert len(groups(store)) == 4
    store.apply(Batch([linked("d", "card:1", "device:2", "email:3", "ip:4")]))
    assert groups(store) == {frozenset("abde"), frozenset("c")}


def test_cases_have_the_same_names_in_whatever_order_their_alerts_come(store: Store, tmp_path: Path) -> None:
    draw = random.Random(4)
    records = [linked(f"o{n}", *(f"card:{draw.randrange(30)}" for _ in range(2)), user=f"u{n}") for n in range(40)]
    store.apply(Batch(records))
    other = Store(tmp_path / "other")
    for record in draw.sample(records, len(records)):
        other.apply(Batch([record]))
    query = "SELECT alert_id, grp FROM alerts ORDER BY 1"
    with store.reading() as one, other.reading() as another:
        names = [tuple(row) for row in one.execute(query)]
        assert names == [tuple(row) for row in another.execute(query)]
    assert 1 < len({name for _, name in names}) < 40
    other.close()


def test_an_alert_more_on_a_token_that_thousands_have_costs_next_to_nothing(store: Store) -> None:
    """At most a look at each of its users up to MOST_USERS. By the steps of SQLite's machine, not by time."""
    steps = {"all": 0}

    def spent(name: str, *tokens: str, user: str = "") -> int:
        steps["all"] = 0
        with store.writing() as connection:
            connection.set_progress_handler(lambda: steps.update(all=steps["all"] + 1), 100)
        store.apply(Batch([linked(name, *tokens, user=user)]))
        with store.writing() as connection:
            connection.set_progress_handler(None, 100)
        return steps["all"]

    for start in range(0, 3_000, 500):
        names = range(start, start + 500)
        store.apply(Batch([linked(f"k{n}", "device:kiosk") for n in names]))
        store.apply(Batch([linked(f"s{n}", "card:same", user="same") for n in names]))
    many = spent("last", "device:kiosk"), spent("another", "card:same", user="same")
    assert max(many) < MOST_USERS, f"{many} hundreds of steps"


def test_a_token_of_too_many_users_links_nothing_from_then_on(store: Store) -> None:
    names = [f"o{n}" for n in range(MOST_USERS)]
    store.apply(Batch([linked(name, "address:hotel") for name in names]))
    assert groups(store) == {frozenset(names)}
    store.apply(Batch([linked("last", "address:hotel", "card:1"), linked("first", "card:1")]))
    assert groups(store) == {*(frozenset([name]) for name in names), frozenset(["first", "last"])}


def test_many_orders_of_one_user_are_one_user(store: Store) -> None:
    store.apply(Batch([linked(f"o{n}", "card:1", user="same") for n in range(3 * MOST_USERS)]))
    assert len(groups(store)) == 1


def test_an_old_alert_goes_with_all_that_hangs_on_it_and_its_group_parts(store: Store) -> None:
    old = linked("old", "card:1", "device:2", raised_at=NOW_MS - 100 * DAY)
    store.apply(Batch([old, linked("a", "card:1"), linked("b", "device:2")], [label("old", 1.0), label("a", 0.0)]))
    assert groups(store) == {frozenset({"old", "a", "b"})}
    assert store.prune(NOW_MS - 90 * DAY) == 1
    assert groups(store) == {frozenset("a"), frozenset("b")}
    with store.reading() as connection:
        assert labels_of(connection, "old") == []
        assert len(labels_of(connection, "a")) == 1
        assert connection.execute("SELECT count(*) FROM features").fetchone()[0] == 2


def test_a_label_without_an_alert_is_kept_as_long_as_alerts_are(store: Store) -> None:
    store.apply(Batch(labels=[label("x", 1.0, at=NOW_MS - 100 * DAY), label("y", 1.0, at=NOW_MS)]))
    store.prune(NOW_MS - 90 * DAY)
    with store.reading() as connection:
        assert labels_of(connection, "x") == []
        assert len(labels_of(connection, "y")) == 1


def test_an_opinion_waits_until_there_is_an_answer(store: Store) -> None:
    change = Change(1, "a", "someone", OPINION, NOW_MS, '{"value": 1.0}')
    store.apply(Batch([alert("a")], changes=[change]))
    assert (one(store, "a")["waiting"], one(store, "a")["answered"]) == (1, 0)
    store.apply(Batch(labels=[label("a", 1.0)], changes=[change]))
    assert (one(store, "a")["waiting"], one(store, "a")["answered"]) == (0, 1)


TOKENS = [f"{kind}:{name}" for kind in ("card", "device", "email", "ip") for name in "xy"]


class StoreMachine(RuleBasedStateMachine):
    """Against a model that has read everything at once: groups by search, answers by the labels in order."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name))
        self.alerts: dict[str, dict[str, Any]] = {}
        self.labels: dict[str, list[Label]] = {}
        self.most, grouping.MOST_USERS = grouping.MOST_USERS, 3

    @rule(
        order=st.integers(0, 9), user=st.integers(0, 5), tokens=st.sets(st.sampled_from(TOKENS)), day=st.integers(0, 3)
    )
    def an_alert(self, order: int, user: int, tokens: set[str], day: int) -> None:
        known = self.alerts.get(f"o{order}")
        user_id = known["user_id"] if known else f"u{user}"
        record = linked(f"o{order}", *sorted(tokens), user=user_id, raised_at=NOW_MS + day * DAY)
        self.alerts[f"o{order}"] = record
        self.store.apply(Batch([record]))

    @rule(order=st.integers(0, 9), value=st.sampled_from([0.0, 1.0]), revision=st.integers(0, 3), who=st.booleans())
    def a_label(self, order: int, value: float, revision: int, who: bool) -> None:
        order_id, made = label(f"o{order}", value, "analyst" if who else "chargeback", revision)
        known = self.labels.setdefault(order_id, [])
        if made.label_id not in {each.label_id for each in known}:
            known.append(made)
        self.store.apply(Batch(labels=[(order_id, made)]))

    @rule()
    def again_from_the_file(self) -> None:
        self.store.close()
        self.store = Store(Path(self.folder.name))

    @rule(day=st.integers(1, 3))
    def time_goes_on(self, day: int) -> None:
        before = NOW_MS + day * DAY
        self.store.prune(before)
        for name in [name for name, record in self.alerts.items() if record["raised_at"] < before]:
            del self.alerts[name]
            self.labels.pop(name, None)
        for name in [name for name in self.labels if name not in self.alerts]:
            self.labels[name] = [each for each in self.labels[name] if each.observed_at >= before]

    @invariant()
    def groups_are_what_a_search_finds(self) -> None:
        if hasattr(self, "store"):
            assert groups(self.store) == searched(self.alerts)

    @invariant()
    def answers_are_the_banks_or_else_those_of_the_highest_revision(self) -> None:
        for name in getattr(self, "alerts", {}):
            known = self.labels.get(name, [])
            best = max(known, key=lambda one: (one.source != "analyst", one.revision, -known.index(one)), default=None)
            found = one(self.store, name)
            assert (found["answered"], found["answer"]) == ((1, best.value) if best else (0, None))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()
            grouping.MOST_USERS = self.most


def searched(alerts: dict[str, dict[str, Any]]) -> set[frozenset[str]]:
    users: dict[str, set[str]] = {}
    for record in alerts.values():
        for token in grouping.linking(record["entities"]):
            users.setdefault(token, set()).add(record["user_id"])
    links = {
        name: {t for t in grouping.linking(record["entities"]) if len(users[t]) <= grouping.MOST_USERS}
        for name, record in alerts.items()
    }
    found = set()
    for name in alerts:
        group, todo = {name}, [name]
        while todo:
            now = todo.pop()
            near = {other for other in alerts if other not in group and links[other] & links[now]}
            group |= near
            todo += near
        found.add(frozenset(group))
    return found


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=25, deadline=None)
