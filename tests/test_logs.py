"""Logs: JSON lines or readable ones, with the same fields, and never a secret."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from streams.config import Settings
from streams.logs import MASK, setup

SECRET = 'open "sesame"'


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


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
