"""Several shops by one command: each is kept by itself, with a share, a port and a name of its own.
No process is in here, and no clock.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import SettingsError
from streams.config import Settings
from streams.config_sections import Web
from streams.shops.kept import FIRST_S, MOST_S, STEADY_S, Kept
from streams.shops.pages import ShopMetrics
from streams.shops.plan import Shop, apart, names_in, shop_of
from streams.shops.process import Shops, check
from tests.test_docs import table

NORTH = Shop("north", 1.0, "127.0.0.1", 7001, 25.0)


class Process:
    """A child that ends when the test says so."""

    def __init__(self, pid: int) -> None:
        self.pid, self.code = pid, None
        self.asked: list[str] = []

    code: int | None

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.asked.append("terminate")

    def kill(self) -> None:
        self.asked.append("kill")


class Starts:
    """Remembers what was started, and refuses while `fails`."""

    def __init__(self) -> None:
        self.made: list[Process] = []
        self.shops: list[Shop] = []
        self.fails: Exception | None = None

    def __call__(self, shop: Shop) -> Process:
        if self.fails is not None:
            raise self.fails
        self.shops.append(shop)
        self.made.append(Process(100 + len(self.made)))
        return self.made[-1]


def kept(starts: Starts, read: Callable[[str], Shop] = lambda name: NORTH) -> Kept:
    made = Kept("north", read, starts, 0.0)
    made.step(0.0)
    return made


# -- one shop --------------------------------------------------------------------------------------------------------


def test_a_shop_that_ends_is_started_again_after_a_pause_that_doubles_up_to_a_minute():
    starts, now, pauses = Starts(), 0.0, []
    shop = kept(starts)
    for _ in range(9):
        starts.made[-1].code, before = 1, len(starts.made)
        shop.step(now)
        ended = now
        while len(starts.made) == before:
            now += 0.5
            shop.step(now)
        pauses.append(now - ended)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert shop.restarts == 9


def test_a_shop_that_ran_for_long_is_started_again_at_once():
    starts = Starts()
    shop = kept(starts)
    for now in (1.0, 10.0):
        starts.made[-1].code = 1
        shop.step(now)
        shop.step(now + MOST_S)
    starts.made[-1].code = -9
    later = 10.0 + MOST_S + STEADY_S
    shop.step(later)
    assert "SIGKILL" in shop.why
    shop.step(later + FIRST_S)
    assert len(starts.made) == 4


def test_a_shop_whose_settings_cannot_be_used_is_refused_and_served_once_they_can(caplog):
    starts, wrong = Starts(), [SettingsError("partitions cannot be 'many'", where="tenants.north.partitions")]

    def read(name: str) -> Shop:
        if wrong:
            raise wrong[0]
        return NORTH

    shop = kept(starts, read)
    shop.step(MOST_S)
    assert (shop.state, shop.restarts, starts.made) == ("refused", 0, [])
    assert [record.message for record in caplog.records] == [
        "shop north: it is not served: partitions cannot be 'many'; at tenants.north.partitions; tried again in 60 s"
    ], "said once, not at each try"
    wrong.clear()
    shop.step(2 * MOST_S - 0.1)
    assert not starts.made
    shop.step(2 * MOST_S)
    assert (shop.state, shop.why) == ("runs", "")


def test_a_worker_that_refuses_its_settings_is_not_started_each_second():
    starts = Starts()
    shop = kept(starts)
    starts.made[-1].code = 2
    shop.step(1.0)
    assert shop.state == "refused"
    shop.step(1.0 + MOST_S - 0.1)
    assert len(starts.made) == 1
    shop.step(1.0 + MOST_S)
    assert len(starts.made) == 2


def test_a_machine_that_can_start_no_process_is_asked_again():
    starts = Starts()
    starts.fails = OSError("no more processes")
    shop = kept(starts)
    assert (shop.state, shop.why) == ("waits", "no more processes")
    starts.fails = None
    shop.step(FIRST_S)
    assert shop.state == "runs"


def test_a_shop_that_is_asked_to_end_is_asked_once_waited_for_and_killed_only_when_it_hangs():
    starts = Starts()
    shop = kept(starts)
    for now in (5.0, 6.0):
        shop.stop(now)
        shop.step(now)
    assert starts.made[0].asked == ["terminate"]
    shop.step(5.0 + NORTH.patience_s - 0.1)
    assert shop.state == "runs"
    shop.step(5.0 + NORTH.patience_s)
    shop.step(6.0 + NORTH.patience_s)
    assert starts.made[0].asked == ["terminate", "kill"]
    starts.made[0].code = -9
    shop.step(7.0 + NORTH.patience_s)
    assert (shop.state, len(starts.made)) == ("ended", 1)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["tick", "end", "refuse", "allow", "stop"]), st.floats(0.1, 90)), max_size=40
)


@given(EVENTS)
def test_whatever_happens_a_shop_has_one_process_at_most_and_none_is_begun_after_the_stop(events):
    starts, now, stopped_with = Starts(), 0.0, None
    refused: list[SettingsError] = []

    def read(name: str) -> Shop:
        if refused:
            raise refused[0]
        return NORTH

    shop = kept(starts, read)
    for what, after in events:
        now += after
        if what == "end" and starts.made:
            starts.made[-1].code = 1
        if what in ("refuse", "allow"):
            refused[:] = [SettingsError("no")] if what == "refuse" else []
        if what == "stop":
            shop.stop(now)
            stopped_with = len(starts.made) if stopped_with is None else stopped_with
        shop.step(now)
        alive = [each for each in starts.made if each.code is None]
        assert len(alive) <= 1
        assert (shop.state == "runs") == bool(alive)
        assert (shop.pid is None) == (not alive)
        assert shop.why or alive or shop.state == "ended"
        assert stopped_with is None or len(starts.made) == stopped_with
    if stopped_with is None and not refused:
        shop.step(now + MOST_S)
        assert shop.state == "runs", "nobody is given up"


# -- several ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", ",", "north,", "north,north", "north,south,north"])
def test_shops_are_named_each_once(text):
    with pytest.raises(SettingsError, match="--shops"):
        names_in(text)
    assert names_in("north, south") == ("north", "south")


def test_one_shop_and_several_are_not_asked_for_together():
    with pytest.raises(SettingsError, match="--tenant"):
        names_in("north,south", "north")


FILE = """
shops_web = { port = 7100 }
[tenants.north]
share = 2
web = { port = 7001 }
[tenants.south]
web = { port = 7002 }
"""


class Told:
    """Shares as they were told."""

    by_shop, words = True, "a notebook"

    def __init__(self) -> None:
        self.said: list[tuple[str, float, float]] = []
        self.fails = False

    def keep(self, name: str, pid: int, share: float, most: float) -> str:
        if self.fails:
            raise PermissionError("not yours")
        self.said.append((name, share, most))
        return "written down"


class Book:
    """A file of several shops, and what keeps them."""

    def __init__(self, folder: Path, text: str = FILE) -> None:
        self.file, self.starts, self.shares = folder / "headrace.toml", Starts(), Told()
        self.file.write_text(text)

    def read(self, name: str) -> Settings:
        return Settings(self.file, tenant=name)

    def shops(self, *names: str) -> Shops:
        check(names, self.read, Web(port=7100))
        made = Shops(names, self.read, self.starts, self.shares, Web(port=7100), 0.0)
        made.step(0.0)
        return made

    @property
    def started(self) -> list[str]:
        return [shop.name for shop in self.starts.shops]


def test_each_shop_is_started_with_its_own_settings(tmp_path):
    book = Book(tmp_path)
    shops = book.shops("north", "south")
    assert [(shop.name, shop.port, shop.share) for shop in book.starts.shops] == [
        ("north", 7001, 2.0), ("south", 7002, 1.0),
    ]  # fmt: skip
    assert [each.state for each in shops.kept] == ["runs", "runs"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FILE.replace("7002", "7001"), "north and south would both listen on port 7001"),
        (FILE.replace("port = 7002", 'host = "0.0.0.0", port = 7001'), "north and south"),
        (FILE.replace("7002", "7100"), "the page of all shops, shops_web and south"),
    ],
)
def test_shops_that_want_the_same_port_are_named_before_anything_is_started(tmp_path, text, words):
    book = Book(tmp_path, text)
    with pytest.raises(SettingsError, match=words):
        book.shops("north", "south")
    assert book.started == []


def test_the_same_port_of_two_addresses_is_two_ports_and_any_free_one_never_clashes(tmp_path):
    text = FILE.replace("port = 7002", 'host = "127.0.0.2", port = 7001')
    assert Book(tmp_path, text).shops("north", "south").kept[1].state == "runs"
    text = FILE.replace("7002", "0").replace("7001", "0")
    ports = {shop.port for shop in map(shop_of, map(Book(tmp_path, text).read, ("north", "south")))}
    assert 0 not in ports
    apart([], Web(port=0))


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        (FILE, ("north", "nroth"), "north, south"),
        (FILE.replace("share = 2", "share = 0"), ("south", "north"), "tenants.north.share"),
        (FILE.replace("share = 2", "shares = 2"), ("south", "north"), "tenants.north.shares"),
    ],
)
def test_a_shop_that_cannot_be_served_is_said_and_the_others_go_on(tmp_path, caplog, text, names, words):
    book = Book(tmp_path, text)
    shops = book.shops(*names)
    assert [each.state for each in shops.kept] == ["runs", "refused"]
    assert words in shops.kept[1].why
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert vars(said)["shop"] == names[1]


def test_where_no_shop_can_be_served_the_first_reason_is_the_commands(tmp_path):
    with pytest.raises(SettingsError, match="'nroth' are not in the file"):
        Book(tmp_path).shops("nroth", "suoth")


def test_a_shop_that_is_moved_to_anothers_port_while_it_is_away_stays_away(tmp_path):
    book = Book(tmp_path)
    shops = book.shops("north", "south")
    book.file.write_text(FILE.replace("7002", "7001"))
    book.starts.made[1].code = 1
    shops.step(1.0)
    shops.step(3.0)
    assert [each.state for each in shops.kept] == ["runs", "refused"]
    assert "north and south" in shops.kept[1].why
    book.file.write_text(FILE)
    shops.step(3.0 + MOST_S)
    assert [each.state for each in shops.kept] == ["runs", "runs"]


def test_all_are_asked_to_end_together_and_it_is_over_when_the_last_has_ended(tmp_path):
    book = Book(tmp_path)
    shops = book.shops("north", "south")
    shops.stop(5.0)
    assert [process.asked for process in book.starts.made] == [["terminate"], ["terminate"]]
    book.starts.made[0].code = 0
    shops.step(6.0)
    assert not shops.over
    book.starts.made[1].code = 0
    shops.step(7.0)
    assert shops.over
    assert len(book.starts.made) == 2


def test_shares_are_told_again_when_a_greater_one_comes(tmp_path):
    book = Book(tmp_path)
    book.shops("south", "north")
    assert book.shares.said == [("south", 1.0, 1.0), ("south", 1.0, 2.0), ("north", 2.0, 2.0)]


def test_a_share_that_the_kernel_refuses_is_said_and_its_shop_is_served(tmp_path, caplog):
    book = Book(tmp_path)
    book.shares.fails = True
    shops = book.shops("north", "south")
    assert [each.state for each in shops.kept] == ["runs", "runs"]
    assert "shop north: its share of 2 is not kept: not yours" in caplog.messages


# -- what is said of them --------------------------------------------------------------------------------------------


def test_the_metrics_say_who_runs_how_often_who_ended_and_with_which_share(tmp_path):
    book = Book(tmp_path)
    shops = book.shops("north", "south", "nroth")
    book.starts.made[1].code = 1
    shops.step(1.0)
    found = {
        (sample.name, sample.labels["shop"]): sample.value
        for family in text_string_to_metric_families(ShopMetrics(shops.kept).page().decode())
        for sample in family.samples
        if "shop" in sample.labels
    }
    assert {shop: found["headrace_shop_up", shop] for shop in ("north", "south", "nroth")} == {
        "north": 1, "south": 0, "nroth": 0,
    }  # fmt: skip
    assert (found["headrace_shop_restarts_total", "south"], found["headrace_shop_restarts_total", "north"]) == (1, 0)
    assert found["headrace_shop_share", "north"] == 2
    assert ("headrace_shop_share", "nroth") not in found


def test_the_table_of_the_shops_metrics_is_whole_and_right(tmp_path):
    found = {family.name for family in ShopMetrics(Book(tmp_path).shops("north").kept).collect()}
    shown = {row[0].strip("`"): row[1] for row in table("docs/operate.md", "table: shop metrics")}
    assert shown == dict.fromkeys(found, "shop")
