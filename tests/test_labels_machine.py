"""The label join against its oracle: any interleaving of served records, labels and time, with a crash between any
two steps. What is committed is the changelog, the examples and the offsets, together, as in a Kafka transaction.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.errors import BadRecord
from streams.labels.join import Join
from streams.labels.joined import Joined
from streams.labels.rules import Rule
from streams.labels.state import State
from streams.labels.store import LabelStore, MemoryLabelStore
from tests.labels_oracle import last_word
from tests.labels_shop import label, served
from tests.records import NOON_MS

LATENESS = 8  # ms that a record may lie behind the newest one
CTR = Rule("ctr", "click", 20, 60, negatives=0.6, also=(("conversion", 70),))
FRAUD = Rule("ctr", "click", 20, 60, at_once=True, unanswered=("block",))
SCORED = Rule("ctr", "click", 20, 60, negatives=0.0)


class Served(NamedTuple):
    ident: int
    back: int
    fields: dict[str, Any]
    labels: list[tuple[str | None, int, int, int, float, str, bool]]
    """candidate, delay, name, revision, value, source, withdrawn"""


CANDIDATES = st.sampled_from(["a", "b", "b", None, "not served"])
SOURCES = st.sampled_from(["analyst", "analyst", "chargeback", "derived", "a partner", "another partner"])
LABEL = st.tuples(
    CANDIDATES, st.integers(-3, 85), st.sampled_from([0, 0, 0, -1]), st.integers(0, 2), st.floats(0, 1), SOURCES,
    st.sampled_from([False, False, True]),
)  # fmt: skip
FIELDS = st.fixed_dictionaries(
    {"propensity": st.sampled_from([1.0, 0.3]), "decision": st.sampled_from([None, "review", "block"])},
    optional={
        "shown": st.sampled_from([(), (True, False, True)]),
        "candidates": st.just([]),
        "otherwise": st.sampled_from([None, "approve", "review", "block"]),
    },
)
SERVED = st.builds(Served, st.integers(0, 5), st.integers(0, 5), FIELDS, st.lists(LABEL, max_size=4))


def hash_of(record: dict[str, Any]) -> int:
    return sum(repr(sorted(record.items())).encode())


class Machine(RuleBasedStateMachine):
    """Two logs that only grow, a join that reads them, and what it has committed."""

    def __init__(self) -> None:
        super().__init__()
        self.served_log: list[dict[str, Any]] = []
        self.labels: list[dict[str, Any]] = []
        self.coming: list[dict[str, Any]] = []
        self.clock = 0  # the newest time of the shop, ms after noon
        self.alive = 0
        # Committed, all at once:
        self.changelog: list[tuple[bytes, bytes | None]] = []
        self.examples: list[Joined] = []
        self.read = (0, 0)  # of served and labels
        # Since then:
        self.new: list[Joined] = []
        self.at = [0, 0]

    @initialize(go_by=st.sampled_from([CTR, FRAUD, SCORED]), step=st.sampled_from([1, 2, 100]))
    def begin(self, go_by: Rule, step: int) -> None:
        self.go_by, self.step = go_by, step
        self.store = self.make_store()
        self.start()

    def make_store(self) -> Any:
        return MemoryLabelStore()

    def start(self) -> None:
        self.state = State(self.store, 0)
        self.join = Join(self.go_by, self.state, step=self.step)

    # -- the world -------------------------------------------------------------------------------------------

    @rule(lot=st.lists(SERVED, min_size=1, max_size=4), by=st.integers(0, 15))
    def the_shop_serves(self, lot: list[Served], by: int) -> None:
        """Records of the near past, each with the labels that it will get: in time, late, too late, on anything."""
        for one in lot:
            ident = f"t{one.ident}"
            before = [each["event_time"] for each in self.served_log if each["target_id"] == ident]
            # Served twice, as after a worker's crash: but not when the first one is forgotten already.
            if before and min(before) + self.go_by.longest_ms(True) <= NOON_MS + self.clock:
                ident = f"t{one.ident}.{len(self.served_log)}"
            self.served_log.append(served(ident, self.clock - one.back, **one.fields))
            for candidate, delay, name, revision, value, source, withdrawn in one.labels:
                fields = {"name": self.go_by.names[name], "value": value, "revision": revision}
                fields |= {"source": source, "withdrawn": withdrawn}
                self.coming.append(label(ident, candidate, self.clock - one.back + delay, **fields))
        self.time_passes(by)

    @rule(by=st.integers(1, 80))
    def time_passes(self, by: int) -> None:
        """Labels come when they are observed, or up to LATENESS later."""
        self.clock += by
        there = [one for one in self.coming if one["observed_at"] <= NOON_MS + self.clock]
        self.coming = [one for one in self.coming if one["observed_at"] > NOON_MS + self.clock]
        for one in sorted(there, key=lambda one: (one["observed_at"] + hash_of(one) % LATENESS, one["revision"])):
            self.labels.append(one | {"label_id": f"label {len(self.labels)}"})

    @rule(number=st.integers(0, 9), back=st.integers(0, LATENESS))
    def a_label_of_nothing_comes(self, number: int, back: int) -> None:
        self.labels.append(label(f"nothing {number}", "a", self.clock - back))

    @precondition(lambda self: self.labels)
    @rule(among=st.integers(0, 1 << 16))
    def a_label_comes_again(self, among: int) -> None:
        self.labels.append(self.labels[among % len(self.labels)])

    @rule(by=st.integers(0, 60))
    def the_source_lives(self, by: int) -> None:
        self.alive = max(self.alive, self.clock - by)

    # -- the join --------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 8))
    def served_records_are_read(self, count: int) -> None:
        for offset in range(self.at[0], min(self.at[0] + count, len(self.served_log))):
            self.say(self.join.served(self.served_log[offset], 0, offset))
            self.at[0] = offset + 1

    @rule(count=st.integers(1, 8))
    def labels_are_read(self, count: int) -> None:
        for one in self.labels[self.at[1] : self.at[1] + count]:
            self.at[1] += 1
            try:
                self.say(self.join.label(one, NOON_MS + self.clock))
            except BadRecord as error:  # of what was not served
                if "candidate_id" not in error.what:
                    raise

    @rule(back=st.sampled_from([0, 0, 3, 40]), forgetting=st.booleans())
    def windows_close(self, back: int, forgetting: bool = True) -> None:
        self.advance(self.honest_watermark() - back, forgetting=forgetting)

    def honest_watermark(self) -> int:
        """Nothing that comes from now on lies before it."""
        unread = [one["event_time"] for one in self.served_log[self.at[0] :]]
        unread += [one["observed_at"] for one in self.labels[self.at[1] :]]
        return int(min([NOON_MS + self.clock - LATENESS, *unread]) - 1)

    def advance(self, watermark: int, *, forgetting: bool = True) -> None:
        closed = self.join.advance(watermark, NOON_MS + self.alive, NOON_MS + self.clock, forgetting=forgetting)
        for one in closed:
            assert one.revision == 0 or one.source == ""  # silence, after a label that was withdrawn
            assert one.event_time + self.go_by.window_ms <= watermark
            assert one.event_time + self.go_by.window_ms < NOON_MS + self.alive
        order = dict.fromkeys((one.event_time, one.offset) for one in closed)
        assert list(order) == sorted(order)
        self.say(closed)

    def say(self, joined: list[Joined]) -> None:
        self.new += joined

    @rule(steps=st.lists(st.sampled_from("slavsltavtkc"), min_size=6, max_size=16))
    def it_runs(self, steps: list[str]) -> None:
        """Many of the small steps at once, or few runs come to where revisions are."""
        for step in steps:
            {
                "s": lambda: self.served_records_are_read(8),
                "l": lambda: self.labels_are_read(8),
                "a": lambda: self.the_source_lives(0),
                "v": lambda: self.windows_close(0),
                "t": lambda: self.time_passes(15),
                "k": self.a_transaction_commits,
                "c": lambda: self.it_crashes(len(self.changelog) % 2 == 0, len(self.changelog) % 3 == 0),
            }[step]()

    # -- transactions and crashes ----------------------------------------------------------------------------

    def commit(self) -> int:
        """The Kafka transaction; the store does not know yet."""
        self.changelog += self.state.changes
        self.examples += self.new
        self.read, self.new = (self.at[0], self.at[1]), []
        return len(self.changelog) - 1

    @rule()
    def a_transaction_commits(self) -> None:
        self.state.stored(self.commit())

    @rule()
    def a_transaction_is_refused(self) -> None:
        self.state.discard()
        self.new, self.at = [], list(self.read)

    @rule(committed=st.booleans(), disk_lost=st.booleans())
    def it_crashes(self, committed: bool, disk_lost: bool) -> None:
        """Before the transaction, or between it and the store; the store's folder may be gone, too."""
        if committed:
            self.commit()
        if disk_lost:
            self.store.drop(0)
        self.new, self.at = [], list(self.read)
        self.start()
        position = self.state.position
        self.state.restore(self.changelog[position + 1 :], len(self.changelog) - 1)

    # -- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def each_example_is_said_once_and_revisions_have_no_gap(self) -> None:
        said = Counter((one.target_id, one.candidate_id, one.name, one.revision) for one in self.examples)
        assert not [key for key, times in said.items() if times > 1]
        assert not [key for key in said if key[-1] > 0 and (*key[:-1], key[-1] - 1) not in said]
        assert len({one.example_id for one in self.examples}) == len(self.examples)

    def teardown(self) -> None:
        """All is read and every window closes: now the newest examples say what the oracle says."""
        if not hasattr(self, "store"):
            return
        self.time_passes(100)
        self.served_records_are_read(len(self.served_log))
        self.labels_are_read(len(self.labels))
        self.clock = self.alive = self.clock + 1_000
        self.advance(NOON_MS + self.clock - LATENESS)
        while self.join.behind:
            self.advance(NOON_MS + self.clock - LATENESS)
        self.state.stored(self.commit())
        newest = {}
        for one in sorted(self.examples, key=lambda one: one.revision):
            newest[one.target_id, one.candidate_id or "", one.name] = (one.label, one.weight)
            assert one.weight > 0 or (one.label, one.revision > 0) == (0.0, True)
            assert self.served_log[one.offset]["target_id"] == one.target_id
        assert {key: said for key, said in newest.items() if said[1] > 0} == last_word(
            self.go_by, self.served_log, self.labels
        )
        self.advance(NOON_MS + self.clock - LATENESS)
        self.each_example_is_said_once_and_revisions_have_no_gap()
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        """What no label can reach any more leaves the store and the changelog."""
        while self.join.behind:
            self.advance(NOON_MS + self.clock - LATENESS)
        self.state.stored(self.commit())
        assert self.store.scan(0, b"", b"\xff", 1) == []
        assert not [key for key, row in dict(self.changelog).items() if row is not None]


class RocksMachine(Machine):
    """The same over RocksDB."""

    def make_store(self) -> Any:
        self.folder = tempfile.TemporaryDirectory()
        return LabelStore(Path(self.folder.name))

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.store.close()
            self.folder.cleanup()


Machine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
RocksMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=50, deadline=None)
TestAnyInterleavingEndsAsTheOracleSays = Machine.TestCase
TestAnyInterleavingOverRocksDBEndsAsTheOracleSays = RocksMachine.TestCase
