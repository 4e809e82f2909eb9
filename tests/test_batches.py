"""How far a partition is done."""

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from streams.batches import Ledger, RecordBatch
from tests.test_intake import batch


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), max_size=5), st.lists(st.integers(0, 30)))
def test_the_position_follows_the_finished_records_that_have_no_gap_before_them(
    sizes: list[list[int]], steps: list[int]
) -> None:
    ledger, tp, offset = Ledger(), TP("clicks", 0), 0
    batches: list[RecordBatch] = []
    for gaps in sizes:
        offsets = []
        for gap in gaps:
            offset += gap
            offsets.append(offset)
        batches.append(batch(tp, offsets))
        ledger.opened(batches[-1])
    for step in steps:
        if batches:
            grown = batches[step % len(batches)]
            grown.done = min(grown.done + 1, len(grown))
        expected = None
        for each in batches:
            if each.done:
                expected = each.records[each.done - 1].offset + 1
            if not each.complete:
                break
        assert ledger.position(tp) == expected


def test_what_is_finished_after_a_partition_is_gone_does_not_count() -> None:
    ledger, tp = Ledger(), TP("clicks", 0)
    old = batch(tp, range(5))
    ledger.opened(old)
    ledger.forget([tp])
    old.done = 5
    assert (ledger.position(tp), list(ledger.partitions())) == (None, [])
