"""Floods in the log: a line a second for each subject, and nothing uncounted."""

import logging

import pytest

from streams.notices import Notices

log = logging.getLogger("test.notices")


def test_a_flood_is_a_line_a_second_and_every_one_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    notices = Notices(log, lambda: now[0])
    for _ in range(10_000):
        notices.say("wrong_type", "no order")
        now[0] += 0.001
    notices.flush()
    assert len(caplog.messages) == 11
    assert caplog.messages[0] == "wrong_type: no order"
    left_out = [
        int("".join(filter(str.isdigit, message.partition("no order")[2] or message)))
        for message in caplog.messages[1:]
    ]
    assert sum(left_out) + len(caplog.messages) - 1 == 10_000


def test_subjects_do_not_hide_each_other(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(log, lambda: 0.0)
    notices.say("truncated", "a")
    notices.say("oversized", "b")
    notices.say("oversized", "c")
    assert caplog.messages == ["truncated: a", "oversized: b"]


def test_nothing_is_said_twice(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(log, lambda: 0.0)
    notices.say("truncated", "a")
    notices.say("truncated", "b")
    notices.flush()
    notices.flush()
    assert caplog.messages == ["truncated: a", "truncated: 1 more"]
