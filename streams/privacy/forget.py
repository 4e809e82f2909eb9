"""Forgetting a person, step by step: asked for, the state gone, deletions written, read by all, and made to count.
Each step is written down, so that a run that ended half-way, or could not wait, is taken up where it was.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from engines.releases import ReleaseStore
from schemas.registry import Registry
from streams.audit.log import Audit
from streams.audit.pseudonyms import shell_user
from streams.config import Settings
from streams.offsets import Place, bounds, committed, places, read_range
from streams.partitioning import partition_for
from streams.privacy import receipt as receipts
from streams.privacy.compaction import compact
from streams.privacy.entries import LABELS, LEARNER, STATE, TOPICS, Cutoff, Entry
from streams.privacy.erasures import Erasures
from streams.privacy.ledger import LedgerWriter, read_ledger
from streams.privacy.letters import LETTERS, rewrite, theirs_on
from streams.privacy.persons import persons
from streams.privacy.places import Copies, Copy, deletions, find, of_the_shop, superseded
from streams.tracing.releases import learners
from streams.transactions import Sent, TransactionalProducer

LOOK_S = 0.5
WAIT_S = 300.0
TIMEOUT_S = 30.0
NOBODY = "nothing is known of them"

Say = Callable[[str], None]


class Forget:
    """One person's. All raise BrokerUnavailable, RegistryUnavailable, SettingsError; Fenced where another one runs."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: ReleaseStore,
        user_id: str,
        *,
        known_as: Sequence[str] = (),
        wait_s: float = WAIT_S,
        say: Say = lambda text: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """known_as: other names that letters have, as what came before it was pseudonymised. wait_s: for the others'
        answers, and for the compaction. say: hears of each step."""
        self._settings, self._registry, self._store, self._user = settings, registry, store, user_id
        self._names = (user_id, *known_as)
        self._wait_s, self._say, self._now = wait_s, say, now_ms
        self._person = persons(settings).of(user_id)
        self._partition = partition_for(user_id.encode(), settings.partitions)
        self._deleted = Counter[str]()
        self._counted = Counter[str]()  # by partition, the offset after the newest record that is in `_deleted`
        self._releases = set[str]()

    def dry_run(self) -> dict[str, Any]:
        """The receipt that there would be, of what there is now. Nothing is written."""
        found = self._find()
        self._count(found)
        request = self._new_request()
        return self._receipt(request, found, ["nothing was done: a dry run"])

    def run(self) -> dict[str, Any]:
        """The receipt. Where `open` is not empty, the same call goes on from there."""
        settings, registry = self._settings, self._registry
        found = self._find()
        request = read_ledger(settings, registry).entries.request(self._person)
        if request is not None and request.done:
            if not found.values:
                said: dict[str, Any] = json.loads(request.report)
                return said
            request = None  # they came back
        if request is None:
            request = self._ask(found)
        elif request.report:
            known = json.loads(request.report)
            self._deleted.update(known["deleted"])
            self._counted.update(known["counted"])
            self._releases.update(known["releases"])
        return self._go_on(request)

    # -- the steps

    def _ask(self, found: Copies) -> Entry:
        audit = Audit(self._settings, self._registry)
        request = self._new_request()
        audit.append(shell_user(), receipts.ASKED, f"person {self._person}", {"receipt": request.receipt}, request.at)
        self._put(request)
        return request

    def _new_request(self) -> Entry:
        known, receipt = persons(self._settings), uuid.uuid4().hex
        sealed = known.sealed(self._user, receipt)
        cutoff = self._input_ends()
        return Entry(self._person, known.key_id, "", receipt, self._partition, cutoff, self._now(), sealed=sealed)

    def _go_on(self, request: Entry) -> dict[str, Any]:
        if not self._answered(request, STATE, self._ran(self._settings.topics.state, self._partition)):
            return self._receipt(request, Copies(), ["no worker has answered: is one running, with the same key?"])
        found = self._find()
        self._count(found)
        self._delete(found)
        if not request.until:
            request = replace(request, until=self._now(), report=self._progress())
            self._put(request)
        missing = [
            f"{what} has not answered: it does when it runs, and is not at a fine-tune"
            for part, what, topic in (
                (LABELS, "the label join", self._settings.topics.label_state),
                (LEARNER, "the learner", self._settings.topics.learning),
            )
            if not self._answered(request, part, self._ran(topic))
        ]
        if missing:
            return self._receipt(request, found, missing)
        return self._finish(request)

    def _finish(self, request: Entry) -> dict[str, Any]:
        """What came while the others were at it, the letters, and that all of it takes effect."""
        settings, registry = self._settings, self._registry
        found = self._find()
        self._count(found)
        self._delete(found)
        self._rewrite(found.letters)
        request = replace(request, sealed=b"", report=self._progress())
        self._put(request)
        open_ = [] if self._owners_have_read() else ["who owns shared entities has not read the deletions yet"]
        left = self._take_effect(request, self._find())
        open_ += [f"{topic}: {count} records wait for the broker's cleaner" for topic, count in sorted(left.items())]
        found = self._find()
        if again := receipts.counted(found.values):
            open_ += [f"{topic}: {count} records have come since" for topic, count in sorted(again.items())]
        said = self._receipt(request, found, open_)
        if not open_:
            detail = {"receipt": request.receipt, "digest": said["digest"]}
            audit = Audit(settings, registry)
            audit.append(shell_user(), receipts.FORGOTTEN, f"person {self._person}", detail, self._now())
            self._put(replace(request, done=True, report=json.dumps(said)))
        return said

    def _delete(self, found: Copies) -> None:
        """A deletion of each key that is still there. In transactions of one writer: a second one is shut out."""
        wanted = {(copy.topic, copy.partition, copy.key): None for copy in found.keyed if not copy.deleted}
        if not wanted:
            return
        self._say(f"{len(wanted)} records are deleted")
        sent = [Sent(topic, partition, key, None) for topic, partition, key in wanted]
        self._producer().send(sent[:-1], sent[-1])

    def _rewrite(self, letters: Iterable[Copy]) -> None:
        names = {str(getattr(self._settings.topics, topic)): topic for topic in LETTERS}
        for name, partition in sorted({(copy.topic, copy.partition) for copy in letters}):
            self._say(f"{name}[{partition}] is written again")
            topic = names[name]
            theirs = theirs_on(self._settings, self._registry, topic, *self._names)
            rewrite(self._settings, topic, partition, theirs)

    def _take_effect(self, request: Entry, found: Copies) -> Counter[str]:
        """How many records the cleaner has not taken yet, by topic."""
        wanted: dict[Place, set[int]] = {}
        deleted = deletions(self._settings, request.at)
        for copy in (*found.keyed, *found.state, *superseded(self._settings, found), *deleted):
            wanted.setdefault((copy.topic, copy.partition), set()).add(copy.offset)
        topic = self._settings.topics.forgotten
        low, high = bounds(self._settings, [(topic, 0)])[topic, 0]
        ours = [
            message.offset()
            for messages in read_range(self._settings, topic, 0, low, high)
            for message in messages
            if (message.key() or b"") == f"{self._person}/".encode()
        ]
        if ours[:-1]:
            wanted[topic, 0] = set(ours[:-1])  # they have the user_id, sealed
        self._say(f"{len({name for name, _ in wanted})} topics are compacted")
        left = compact(
            self._settings, wanted, self._wait_s, lambda count: self._say(f"{count} records wait for the cleaner")
        )
        counts = Counter[str]()
        for (name, _), offsets in left.items():
            counts[name] += len(offsets)
        return counts

    def _find(self) -> Copies:
        return find(self._settings, self._registry, self._user, self._names)

    # -- waiting

    def _answered(self, request: Entry, part: str, ran: bool) -> bool:
        """Whether the part has; where it has never run, nothing is to be waited for."""
        if not ran:
            if part == STATE:
                self._put(request.answered(part, self._now()))
            return True
        deadline = time.monotonic() + self._wait_s
        self._say(f"waiting for {part}")
        while not read_ledger(self._settings, self._registry).entries.has_answered(request, part):
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def _owners_have_read(self) -> bool:
        """Owners of shared entities: the workers. Where none ever ran, there is nobody."""
        settings, deadline = self._settings, time.monotonic() + self._wait_s
        owned = places(settings, settings.topics.entity_events)
        last = {place: self._last_record(place) for place in owned}
        while True:
            read = committed(settings, settings.app_id, owned)
            if not self._ran(settings.topics.state) or all(read.get(place, 0) >= last[place] for place in owned):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)

    def _ran(self, topic: str, partition: int | None = None) -> bool:
        """Whether anything was ever written there."""
        wanted = places(self._settings, topic) if partition is None else [(topic, partition)]
        return any(high > 0 for _, high in bounds(self._settings, wanted).values())

    # -- what is said

    def _receipt(self, request: Entry, found: Copies, open_: list[str]) -> dict[str, Any]:
        known = read_ledger(self._settings, self._registry)
        answer = known.entries.answer(self._person, STATE)
        cutoff = answer.cutoff if answer is not None and answer.receipt == request.receipt else request.cutoff
        return receipts.receipt(
            request=request.receipt, person=self._person, asked_at=request.at, partition=self._partition,
            cutoff=dict(zip(TOPICS, cutoff, strict=True)), deleted=self._deleted, parts=_parts(known, request),
            staying=receipts.staying(self._settings, found),
            shop=of_the_shop(self._settings, self._registry, self._user, found),
            releases=sorted(self._releases), open_=open_,
        )  # fmt: skip

    def _count(self, found: Copies) -> None:
        new = [copy for copy in found.values if copy.offset >= self._counted[copy.place]]
        self._deleted.update(receipts.counted(new))
        for copy in new:
            self._counted[copy.place] = max(self._counted[copy.place], copy.offset + 1)
        for task in {example.record["task"] for example in found.examples}:
            examples = [example for example in found.examples if example.record["task"] == task]
            self._releases |= {name for row in learners(self._store, task, examples) for name in row["trained"]}

    def _progress(self) -> str:
        known = {"deleted": dict(self._deleted), "counted": dict(self._counted), "releases": sorted(self._releases)}
        return json.dumps(known)

    def _put(self, entry: Entry) -> None:
        LedgerWriter(self._settings, self._registry).put(entry)

    def _producer(self) -> TransactionalProducer:
        return TransactionalProducer(self._settings, f"{self._settings.app_id}-forget", "forgetting", TIMEOUT_S)

    def _input_ends(self) -> Cutoff:
        clicks, orders, impressions = (
            self._last_record((topic, self._partition)) for topic in self._settings.topics.inputs
        )
        return clicks, orders, impressions

    def _last_record(self, place: Place) -> int:
        """The offset after the last record: at the end of a log there may be marks of transactions."""
        low, high = bounds(self._settings, [place])[place]
        width = 64
        while True:
            start = max(low, high - width)
            last = [
                int(messages[-1].offset() or 0)
                for messages in read_range(self._settings, *place, start, high)
                if messages
            ]
            if last:
                return last[-1] + 1
            if start == low:
                return low
            width *= 8


def _parts(known: Erasures, request: Entry) -> dict[str, str]:
    return {
        part: "forgotten" if known.entries.has_answered(request, part) else "nothing to forget, or not answered"
        for part in (STATE, LABELS, LEARNER)
    }
