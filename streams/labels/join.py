"""The event-time join of one task's labels to what was served, over one partition: exact, and bounded in memory.
It reads no clock and no topic; who feeds it also commits what it changed, see the package's docstring.

Whatever the order in which served records and labels come, and however often they repeat, the newest example of
each candidate says what the newest label says, as long as the watermark is honest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import xxhash

from schemas.errors import BadRecord
from streams.events import Record
from streams.labels import rows
from streams.labels.joined import Counts, Joined, example_id, signed
from streams.labels.rows import DEAD, EARLY, FORGET, MATURE, MATURED, WAITING, Entry, Outcome, Slot
from streams.labels.rules import HEARTBEAT, Rule, shown
from streams.labels.state import State
from streams.labels.watermark import AHEAD_MS

MAX_EARLY = 64  # labels without a served record that are kept of one target


class Join:
    """Used from one thread. All that it changes is in `state`, and counts only once that is stored.

    After `state.discard()` nothing has happened but to `counts`.
    """

    def __init__(self, rule: Rule, state: State, *, step: int = 1_000) -> None:
        """`step` bounds the entries that one `advance` goes through, of each kind."""
        self.rule, self.counts = rule, Counts()
        self._state, self._step = state, step
        self.maturing = self.behind = False

    def take_counts(self) -> Counts:
        """The counts since the last call."""
        taken, self.counts = self.counts, Counts()
        return taken

    def fetch(self, targets: Sequence[str]) -> None:
        """Reads at once what `served` and `label` of these targets would read one by one."""
        self._state.fetch([rows.row_key(self.rule.task, target) for target in targets])

    def served(self, record: Record, partition: int, offset: int) -> list[Joined]:
        """A served record, which lies at `offset` of `partition`. Returns the examples that it completes.

        Raises BadRecord for one of another task.
        """
        if record["task"] != self.rule.task:
            raise BadRecord("out_of_range", f"task {record['task']!r}", expected=f"{self.rule.task!r}")
        target = record["target_id"]
        before = self._load(target)
        if before is not None and before.served:
            self.counts.repeated += 1
            return []
        self.counts.served += 1
        entry = self._entry(record, partition, offset)
        if before is not None:
            self._adopt(entry, before)
        out = self._said(target, entry, entry.outcomes) if self.rule.at_once else []
        self._save(target, entry)
        return out

    def label(self, label: Record, now: int) -> list[Joined]:
        """A label of this task, at the broker's time `now`. Returns the examples that it makes or revises.

        Raises BadRecord for what is no label of anything that this task serves; nothing has changed then.
        """
        if label["name"] == HEARTBEAT:
            return []
        self.rule.check(label, now)
        target, key = label["target_id"], (label["candidate_id"] or "", label["name"])
        ident = xxhash.xxh3_64_intdigest(label["label_id"].encode())
        slot = Slot(
            label["revision"], label["value"], label["observed_at"], ident, label["source"], label["withdrawn"]
        )  # fmt: skip
        entry = self._load(target)
        if entry is None or not entry.served:
            self._wait(target, entry or Entry(EARLY, 0), key, slot)
            return []
        self.rule.check_candidate(label, entry.candidates)
        late, before = entry.state == MATURED, self._answer(entry, key)
        if not self._accept(entry, key, slot):
            return []
        self.counts.late += late
        after = self._answer(entry, key)
        self.counts.outranked += after is before and not slot.withdrawn
        out = self._said(target, entry, [key]) if (self.rule.at_once or late) and after is not before else []
        self._save(target, entry)
        return out

    def forget(self, target: str) -> None:
        """What was served is deleted, as its person is to be forgotten: nothing comes of it any more."""
        self._state.erase(rows.row_key(self.rule.task, target))

    def advance(self, watermark: int, alive_until: int, now: int, *, forgetting: bool = True) -> list[Joined]:
        """Event time has come to `watermark`, and the sources of labels were alive until `alive_until`.

        Returns the examples whose window has closed while the sources lived on, in order of that time and of
        offset. After at most `step` entries it stops; `behind` says that it is to be called again, `maturing` that
        there may be more examples. forgetting: whether entries that are over go, too; they may wait, for what counts
        goes by a label's own time.
        """
        bound = min(watermark, now + AHEAD_MS)
        out: list[Joined] = []
        closed, more = self._due(MATURE, min(bound, alive_until - 1))
        for target, entry in closed:
            out += self._mature(target, entry)
        over, even_more = self._due(FORGET, bound) if forgetting else ([], True)
        for target, entry in over:
            self._forget(target, entry)
        self.maturing, self.behind = more, more or even_more
        return out

    # -- what becomes of an entry ----------------------------------------------------------------------------

    def _entry(self, record: Record, partition: int, offset: int) -> Entry:
        seen: dict[str, bool] = {}  # a slate may have an ad twice: it is one candidate
        for candidate, one in zip(record["candidates"] or [""], shown(record), strict=True):
            seen[candidate] = seen.get(candidate, False) or one
        time = record["event_time"]
        return Entry(
            WAITING,
            time + self.rule.window_ms,
            time,
            partition,
            offset,
            self._stands_for(record),
            record["decision"] not in self.rule.unanswered,
            list(seen),
            sum(1 << place for place, one in enumerate(seen.values()) if one),
        )

    def _stands_for(self, record: Record) -> float:
        """How many it counts for: where what it was drawn against would have been answered too, for itself alone."""
        propensity, otherwise = record["propensity"], record.get("otherwise")
        answered = otherwise is not None and not {otherwise, record["decision"]} & set(self.rule.unanswered)
        return 1.0 if answered or propensity <= 0 else 1 / propensity

    def _adopt(self, entry: Entry, before: Entry) -> None:
        """Early labels, in the order in which they came, as if they came now."""
        self.counts.revived += before.state == DEAD
        for key, slot in before.early:
            if key[0] in entry.candidates:
                self._accept(entry, key, slot)
            else:
                self.counts.unknown += 1

    def _accept(self, entry: Entry, key: tuple[str, str], slot: Slot) -> bool:
        """Takes a label of a served candidate; False, and why is counted, if it changes nothing."""
        outcome, rank = entry.outcomes.get(key, Outcome()), self.rule.rank(slot.source)
        known = next((one for one in outcome.slots if self.rule.rank(one.source) == rank), None)
        if slot.observed_at > entry.event_time + self.rule.limit_ms(key[1]):
            self.counts.too_late += 1
        elif known and known.label == slot.label:
            self.counts.duplicates += 1
        elif known and slot.revision <= known.revision:
            self.counts.stale += 1
        else:
            self.counts.matched += 1
            self.counts.withdrawn += slot.withdrawn
            outcome.slots = [one for one in outcome.slots if one is not known] + [slot]
            entry.outcomes[key] = outcome
            return True
        return False

    def _answer(self, entry: Entry, key: tuple[str, str]) -> Slot | None:
        """The label that counts: of the first source that says something."""
        speaking = [one for one in entry.outcomes.get(key, Outcome()).slots if not one.withdrawn]
        return min(speaking, key=lambda one: self.rule.rank(one.source), default=None)

    def _wait(self, target: str, entry: Entry, key: tuple[str, str], slot: Slot) -> None:
        """An early label is kept for as long as its served record could have been before it."""
        if any(known.label == slot.label and other == key for other, known in entry.early):
            self.counts.duplicates += 1
            return
        if len(entry.early) >= MAX_EARLY:
            raise BadRecord("out_of_range", f"target_id {target!r}", expected=f"{MAX_EARLY} labels before it is served")
        self.counts.early += 1
        entry.state, entry.due = EARLY, max(entry.due, slot.observed_at + self.rule.limit_ms(key[1]))
        entry.early.append((key, slot))
        if key[0] not in entry.candidates:
            entry.candidates.append(key[0])
        self._save(target, entry)

    def _mature(self, target: str, entry: Entry) -> list[Joined]:
        """The window has closed: what no label has named becomes a negative."""
        entry.state = MATURED
        said = [key for key, known in entry.outcomes.items() if known.said < 0 and self._answer(entry, key)]
        out = self._said(target, entry, said)
        for place, candidate in enumerate(entry.candidates):
            key = candidate, self.rule.name
            if self._answer(entry, key) is None and self._silence_counts(target, entry, place):
                out.append(self._silence(target, entry, key))
        self._save(target, entry)
        return out

    def _silence_counts(self, target: str, entry: Entry, place: int) -> bool:
        shown = entry.negative and self.rule.negatives > 0 and entry.shown >> place & 1
        return bool(shown) and self.rule.samples(target, entry.candidates[place])

    def _silence(self, target: str, entry: Entry, key: tuple[str, str]) -> Joined:
        """The negative of a closed window; it revises what a label had said that was withdrawn."""
        revision = 0
        if (known := entry.outcomes.get(key)) is not None:
            revision = known.said = known.said + 1
            self.counts.revisions += revision > 0
        else:
            entry.said |= 1 << entry.candidates.index(key[0])
        self.counts.negatives += 1
        weight, closed = entry.weight / self.rule.negatives, entry.event_time + self.rule.window_ms
        return self._joined(target, entry, key, Slot(0, 0.0, closed, 0), revision, weight, closed)

    def _forget(self, target: str, entry: Entry) -> None:
        """No label can count any more. Early labels are given up first, and kept as long again."""
        if entry.state == EARLY:
            self.counts.orphans += 1
            entry.state, entry.due = DEAD, entry.due + self.rule.longest_ms(True)
            self._save(target, entry)
        else:
            self._state.put(rows.row_key(self.rule.task, target), None)

    def _said(self, target: str, entry: Entry, keys: Iterable[tuple[str, str]]) -> list[Joined]:
        """Examples of what labels say; one that was out before is revised, or taken back where nothing is said."""
        out = []
        for key in keys:
            known, slot, weight = entry.outcomes[key], self._answer(entry, key), entry.weight
            place = entry.candidates.index(key[0])
            own = key[1] == self.rule.name
            if known.said < 0 and own and entry.said >> place & 1:
                known.said = 0
            if slot is None and known.said < 0:
                continue  # nothing was said, and nothing is
            if slot is None and own and entry.state == MATURED and self._silence_counts(target, entry, place):
                out.append(self._silence(target, entry, key))
                continue
            if slot is None:
                slot, weight = replace(max(known.slots, key=lambda one: one.observed_at), value=0.0), 0.0
            known.said += 1
            self.counts.positives += slot.value > 0
            self.counts.revisions += known.said > 0
            closed = 0 if self.rule.at_once else entry.event_time + self.rule.window_ms
            time = max(slot.observed_at, closed)
            out.append(self._joined(target, entry, key, slot, known.said, weight, time))
        return out

    def _joined(
        self, target: str, entry: Entry, key: tuple[str, str], slot: Slot, revision: int, weight: float, time: int
    ) -> Joined:
        task, (candidate, name) = self.rule.task, key
        return Joined(
            example_id(task, target, candidate, name, revision), task, target, candidate or None, name, slot.value,
            weight, time, revision, entry.event_time, slot.source, signed(slot.label), slot.observed_at,
            entry.partition, entry.offset,
        )  # fmt: skip

    # -- rows ------------------------------------------------------------------------------------------------

    def _load(self, target: str) -> Entry | None:
        row = self._state.get(rows.row_key(self.rule.task, target))
        return None if row is None else rows.unpack(row)

    def _save(self, target: str, entry: Entry) -> None:
        if entry.state == MATURED:
            answered = any(slot.value > 0 for known in entry.outcomes.values() for slot in known.slots)
            entry.due = entry.event_time + self.rule.longest_ms(answered)
        self._state.put(rows.row_key(self.rule.task, target), entry.pack())

    def _due(self, kind: bytes, until: int) -> tuple[list[tuple[str, Entry]], bool]:
        found, more = self._state.due(rows.timeline(kind, self.rule.task), until, self._step)
        return [(rows.target_of(key), rows.unpack(row)) for key, row in found], more
