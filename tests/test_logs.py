"""Logs: JSON lines or readable ones, with the same fields, and never a secret."""

import io
import json
import logging
import warnings
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.config import Settings
from streams.logs import MASK, REMEMBERED, REPEAT_S, Repeats, setup

SECRET = 'open "sesame"'


pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def logged(style: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    security = {"protocol": "SASL_PLAINTEXT", "username": "shop", "password": SECRET}
    setup(Settings(log={"format": style, "level": level}, security=security), stream)
    return stream


def test_a_json_line_holds_message_and_fields() -> None:
    stream = logged("json")
    logging.getLogger("streams.scoring").warning("flushed %d", 3, extra={"rows": 3, "partition": 1})
    entry = json.loads(stream.getvalue())
    assert entry["message"] == "flushed 3"
    assert (entry["level"], entry["logger"], entry["rows"], entry["partition"]) == (
        "warning",
        "streams.scoring",
        3,
        1,
    )
    assert entry["time"].endswith("+00:00")


def test_a_human_line_holds_message_and_fields() -> None:
    stream = logged("human")
    logging.getLogger("streams.scoring").warning("flushed", extra={"rows": 3})
    assert stream.getvalue().rstrip().endswith("warning streams.scoring: flushed  rows=3")


@pytest.mark.parametrize(("style", "said"), [("json", '"shop": "north"'), ("human", "started  shop=north")])
def test_each_line_of_a_shops_process_says_whose_it_is(style: str, said: str) -> None:
    stream = io.StringIO()
    setup(Settings(tenant="north", log={"format": style}), stream)
    logging.getLogger("some.library").warning("started")
    assert said in stream.getvalue()
    setup(Settings(log={"format": style}), stream := io.StringIO())
    logging.getLogger("some.library").warning("started")
    assert "shop" not in stream.getvalue()


def test_where_no_terminal_is_the_lines_are_json() -> None:
    stream = logged("auto")
    logging.getLogger("a").info("x")
    assert json.loads(stream.getvalue())["message"] == "x"


@pytest.mark.parametrize("style", ["json", "human"])
def test_a_secret_is_masked_wherever_it_comes_from(style: str) -> None:
    stream = logged(style)
    logging.getLogger("some.library").error("login with %s", SECRET, extra={"conf": {"password": SECRET}})
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("some.library").exception("failed")
    assert "sesame" not in stream.getvalue()
    assert stream.getvalue().count(MASK) == 3


def test_a_traceback_stays_within_its_json_line() -> None:
    stream = logged("json")
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("a").exception("failed")
    [line] = stream.getvalue().splitlines()
    assert "ValueError: bad" in json.loads(line)["error"]


def test_the_libraries_chatter_only_on_debug() -> None:
    stream = logged("json")
    logging.getLogger("aiokafka.consumer").info("joined")
    assert stream.getvalue() == ""
    stream = logged("json", "debug")
    logging.getLogger("aiokafka.consumer").info("joined")
    assert "joined" in stream.getvalue()


def test_deprecations_of_libraries_are_shown_only_on_debug() -> None:
    stream = logged("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert stream.getvalue() == ""


def test_a_library_is_never_louder_than_the_level_that_was_asked_for() -> None:
    stream = logged("json", "error")
    logging.getLogger("kafka.net").warning("slow")
    assert stream.getvalue() == ""


class Outage:
    """A library's logger that says what it says, on a clock that is moved by hand; `lines` are what came through."""

    def __init__(self, name: str = "aiokafka.conn") -> None:
        self.now, self.lines = 1000.0, io.StringIO()
        handler = logging.StreamHandler(self.lines)
        handler.addFilter(Repeats(("aiokafka", "kafka"), lambda: self.now))
        self.log = logging.Logger(name)
        self.log.addHandler(handler)

    def said(self) -> list[str]:
        return self.lines.getvalue().splitlines()


@given(st.lists(st.tuples(st.sampled_from(["a:1", "b:2", "c:3"]), st.floats(0, 40)), max_size=200))
def test_each_message_is_said_once_then_counted_and_none_is_lost(steps: list[tuple[str, float]]) -> None:
    outage = Outage()
    last: dict[str, float] = {}
    left_out: Counter[str] = Counter()
    for address, passed in steps:
        outage.now += passed
        before = len(outage.said())
        outage.log.error("Unable connect to %s", address)
        due = outage.now - last.get(address, float("-inf")) >= REPEAT_S
        assert len(outage.said()) == before + due
        if due:
            line = outage.said()[-1]
            assert line.startswith(f"Unable connect to {address}")
            assert (f"; and {left_out[address]} more in" in line) == (left_out[address] > 0)
            last[address], left_out[address] = outage.now, 0
        else:
            left_out[address] += 1


def test_an_outage_of_minutes_is_a_line_each_half_minute() -> None:
    outage = Outage()
    for _ in range(5 * 60):
        for node in (1, 2):
            outage.log.error("Unable connect to node with id %s", node)
        outage.now += 1.0
    assert len(outage.said()) == 2 * 10
    assert outage.said()[2] == "Unable connect to node with id 1; and 29 more in 30 s"


def test_what_is_not_of_those_libraries_is_never_held_back() -> None:
    outage = Outage("streams.scoring")
    for _ in range(3):
        outage.log.warning("the same")
    assert outage.said() == ["the same"] * 3


def test_messages_that_all_differ_take_no_more_memory_than_so_many() -> None:
    repeats = Repeats(("kafka",), lambda: 0.0)
    for number in range(2 * REMEMBERED):
        assert repeats.filter(logging.LogRecord("kafka.client", logging.ERROR, "", 0, f"offset {number}", (), None))
    assert len(repeats._said) == REMEMBERED


def test_the_libraries_repeat_themselves_only_on_debug() -> None:
    for level, times in (("info", 1), ("debug", 3)):
        stream = logged("human", level)
        for _ in range(3):
            logging.getLogger("aiokafka").error("Unable connect")
        assert stream.getvalue().count("Unable connect") == times
