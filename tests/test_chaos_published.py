"""What a night writes down of its load: the checker expects the same of it afterwards."""

import random
from pathlib import Path

from tests.chaos.night.customers import Customers
from tests.chaos.night.published import Published
from tests.checker import events_by_task
from tests.checker_join import expected_examples


def test_a_night_that_was_written_down_is_judged_as_the_one_that_was_lived(tmp_path: Path) -> None:
    customers = Customers(random.Random(5))
    sent = [pair for turn in range(300) for pair in customers.act(1_795_861_000_000 + 100 * turn)]
    sent += customers.verdicts(2**62)
    lived = Published(sent, [b"\x00\xff", b"no event"])
    lived.write(tmp_path)
    read = Published.read(tmp_path)
    assert expected_examples(read.sent, "closing-") == expected_examples(sent, "closing-") != {}
    events = [[pair for pair in each if pair[0] != "labels"] for each in (read.sent, sent)]
    assert events_by_task(events[0]) == events_by_task(events[1])
    assert read.poison == lived.poison
