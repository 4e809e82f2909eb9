"""What the operations pages show, from records to rows: releases, learning, quality, letters, policies, lists."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadRecord
from schemas.registry import MemoryRegistry
from schemas.wire import Encoder
from streams.audit.chain import Entry, Unreadable, following
from streams.config import Settings
from streams.console.ops import audit, learning_view, policy_view, quality_view, release_view
from streams.console.ops.letter_book import NEWEST, brief_of
from streams.console.ops.letter_view import PAGE, Filter, dump, framing, listed, opened, plain
from streams.console.ops.lists import PAGE as LIST_PAGE
from streams.console.ops.lists import checked, moment, rows
from streams.console.ops.rates import Answer, History
from streams.deadletters import Letter, dead_letter
from streams.learner.control import Command, Status
from streams.learner.quality import roc_auc
from streams.pointers import Announcement, Pointer
from streams.raw import RawRecord
from tests.console_ops import StillShelf, check, report
from tests.records import click

NOW_MS = 1_764_000_000_000
MINUTE = 60_000


def plainly(english: str, **values: object) -> str:
    return english.format(**values) if values else english


# -- releases ----------------------------------------------------------------------------------------------------


def pointer(version: str, previous: str | None, epoch: int, minute: int, *, pinned: bool = False) -> Pointer:
    return Pointer("fraud", version, previous, epoch, pinned, NOW_MS + minute * MINUTE)


def releases(shelf: StillShelf, stored: tuple[str, ...] = (), minute: int = 100) -> release_view.TaskReleases:
    return release_view.of_task("fraud", shelf.releases.releases(), stored, NOW_MS + minute * MINUTE)


@pytest.fixture
def shelf() -> StillShelf:
    return StillShelf()


def test_the_live_release_comes_first_then_the_newest(shelf: StillShelf) -> None:
    shelf.move(pointer("a", None, 1, 0), pointer("b", "a", 2, 10), pointer("a", "b", 3, 20))
    shelf.announce(Announcement("fraud", "c", "refused", "", "", NOW_MS + 30 * MINUTE))
    found = releases(shelf, ("z", "a", "b", "c"))
    assert [(row.version, row.state) for row in found.rows] == [
        ("a", "live"), ("c", "refused"), ("b", "was live"), ("z", "in the store"),
    ]  # fmt: skip
    assert found.live is not None
    assert found.live.version == "a"


def test_spans_say_when_a_release_was_live_and_pinning_does_not_end_one() -> None:
    moves = [
        pointer("a", None, 1, 0), pointer("b", "a", 2, 10), pointer("b", "a", 3, 15, pinned=True),
        pointer("a", "b", 4, 20), pointer("b", "a", 5, 30),
    ]  # fmt: skip
    spans = release_view.live_spans(moves, NOW_MS + 40 * MINUTE)
    minutes = {
        version: [((begin - NOW_MS) // MINUTE, (end - NOW_MS) // MINUTE) for begin, end in each]
        for version, each in spans.items()
    }
    assert minutes == {"a": [(0, 10), (20, 30)], "b": [(10, 20), (30, 40)]}


def test_each_move_is_told_in_words() -> None:
    moves = [
        pointer("a", None, 1, 0), pointer("b", "a", 2, 10), pointer("b", "a", 3, 15, pinned=True),
        pointer("b", "a", 4, 16), pointer("a", "b", 5, 20), pointer("c", "a", 6, 30, pinned=True),
    ]  # fmt: skip
    words = [move.words for move in release_view.told(moves)]
    assert words == ["made live as the first", "moved", "pinned", "unpinned", "went back", "moved, pinned"]


def test_a_refused_release_says_what_it_was_refused_for(shelf: StillShelf) -> None:
    gate = report(check("pr_auc", passed=True), check("calibration", passed=False, said="It predicts too much."))
    shelf.announce(Announcement("fraud", "c", "refused", "", gate, NOW_MS))
    (row,) = releases(shelf).rows
    assert (row.verdict, row.why) == ("refused", ("It predicts too much.",))
    assert [one.name for one in row.failed] == ["calibration"]


def test_a_roll_back_by_hand_does_not_take_the_gates_report_away(shelf: StillShelf) -> None:
    """The command announces it anew, without the report: the earlier record may still be known."""
    shelf.move(pointer("a", None, 1, 0), pointer("b", "a", 2, 10))
    passed = report(check("pr_auc", passed=True))
    shelf.announce(Announcement("fraud", "b", "live", '{"config": {"width": 8}}', passed, NOW_MS))
    shelf.announce(Announcement("fraud", "b", "rolled back", "", '{"reasons": ["By hand."]}', NOW_MS + MINUTE))
    row = next(row for row in releases(shelf).rows if row.version == "b")
    assert row.why == ()  # it is live again by the pointer, whatever was said of it before
    assert row.verdict == "passed"
    assert row.manifest == {"config": {"width": 8}}
    shelf.move(pointer("a", "b", 3, 20))
    row = next(row for row in releases(shelf).rows if row.version == "b")
    assert (row.state, row.why, row.verdict) == ("rolled back", ("By hand.",), "passed")


def test_a_watch_that_took_a_release_back_leaves_its_evidence(shelf: StillShelf) -> None:
    verdict = {"action": "rollback", "labels": 9, "reasons": ["Worse."], "evidence": {"drift": 0.7, "agreement": 0.9}}
    shelf.announce(Announcement("fraud", "b", "rolled back", "", json.dumps(verdict), NOW_MS))
    (row,) = releases(shelf).rows
    assert row.evidence == {"drift": 0.7, "agreement": 0.9}
    drifts = learning_view.drifts("fraud", History(), (), row.evidence)
    assert [(drift.value, drift.past) for drift in drifts] == [(0.7, True), (0.9, False)]


@pytest.mark.parametrize(
    "gate",
    [
        "",
        "{",
        "[]",
        "null",
        '{"checks": 7}',
        '{"checks": [3, {}]}',
        '{"figures": [1]}',
        '{"not_judged": [1]}',
        '{"reasons": 4}',
    ],
)
def test_a_report_that_is_none_breaks_no_page(shelf: StillShelf, gate: str) -> None:
    shelf.announce(Announcement("fraud", "b", "refused", gate, gate, NOW_MS))
    found = releases(shelf)
    assert found.rows[0].state == "refused"
    assert release_view.timeline(found)
    assert release_view.metrics_of(found) == []


def test_the_gain_of_each_release_has_its_bounds(shelf: StillShelf) -> None:
    figures = {"pr_auc_difference": 0.04, "pr_auc_low": -0.01, "pr_auc_high": 0.09, "recall_difference": 0.1}
    shelf.announce(Announcement("fraud", "b", "live", "", report(check("x", passed=True), **figures), NOW_MS))
    found = releases(shelf)
    assert release_view.metrics_of(found) == ["pr_auc", "recall"]
    (gain,) = release_view.gains(found, "pr_auc")
    assert (gain.value, gain.low, gain.high, gain.tone) == (0.04, -0.01, 0.09, "good")
    (recall,) = release_view.gains(found, "recall")
    assert (recall.value, recall.low) == (0.1, None)


def test_two_manifests_differ_in_what_is_not_the_same() -> None:
    old = {"config": {"width": 64, "heads": 2}, "version": "a"}
    new = {"config": {"width": 32, "heads": 2}, "version": "a", "settings": {"mean": 0.1}}
    assert release_view.differences(old, new) == [("config.width", "64", "32"), ("settings.mean", "", "0.1")]


def test_records_that_come_again_count_once(shelf: StillShelf) -> None:
    """A follower reads a topic from its beginning when it was made anew."""
    for _ in range(2):
        shelf.move(pointer("a", None, 1, 0), pointer("b", "a", 2, 10))
        shelf.announce(Announcement("fraud", "b", "live", "", "", NOW_MS))
    found = releases(shelf)
    assert len(found.moves) == 2
    assert len(found.rows) == 2


# -- learning ----------------------------------------------------------------------------------------------------


def test_a_task_that_no_learner_has_spoken_of_is_said_to_be_so() -> None:
    found = learning_view.of_task("fraud", None, Command("fraud", paused=True))
    assert not found.known
    assert found.words == "No learner has run yet"
    assert found.paused


def test_what_the_learner_says_is_shown_whatever_it_leaves_out() -> None:
    detail = {"champion": "v1", "new": 7, "granted": 5, "last": {"result": "refused", "seconds": {"train": 9.0}}}
    found = learning_view.of_task("fraud", Status("fraud", "training", detail, NOW_MS), Command("fraud", asked_at=6))
    assert (found.champion, found.new, found.positives, found.asked) == ("v1", 7, 0, True)
    assert found.last is not None
    assert (found.last.result, found.last.tone) == ("refused", "bad")
    granted = learning_view.of_task("fraud", Status("fraud", "training", detail, NOW_MS), Command("fraud", asked_at=5))
    assert not granted.asked


@pytest.mark.parametrize("last", [None, 3, [], {}, {"result": ""}, {"result": "live", "seconds": 3}])
def test_a_strange_last_result_breaks_nothing(last: object) -> None:
    status = Status("fraud", "strange", {"last": last, "new": "many", "granted": None}, NOW_MS)
    found = learning_view.of_task("fraud", status, Command("fraud"))
    assert found.new == 0
    assert found.words == "strange"


def test_parts_are_told_the_longest_first_and_what_lies_between_them_last() -> None:
    found = learning_view.parts({"read": 2.0, "train": 40.0, "odd": None}, 50.0)
    assert [(row.name, row.value) for row in found] == [
        ("train", 40.0), ("read", 2.0), ("waiting, announcing, swapping", 8.0),
    ]  # fmt: skip


# -- quality -----------------------------------------------------------------------------------------------------


def test_the_bounds_of_an_area_hold_it_in_about_95_of_100_samples() -> None:
    """Of scores whose true area is known: Phi(d / sqrt 2) for two normal distributions that are d apart."""
    draw, apart, held = np.random.default_rng(3), 1.0, 0
    true = 0.5 * math.erfc(-apart / 2)
    for _ in range(300):
        positives, negatives = draw.normal(apart, 1, 60), draw.normal(0, 1, 300)
        scores = np.concatenate([positives, negatives])
        label = np.concatenate([np.ones(60), np.zeros(300)])
        bounds = quality_view.auc_bounds(roc_auc(scores, label, 1 - label), 60, 300)
        assert bounds is not None
        held += bounds[0] <= true <= bounds[1]
    assert 0.9 <= held / 300 <= 0.99


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e6))
def test_bounds_lie_within_what_can_be_and_hold_the_value(auc: float, positives: float, negatives: float) -> None:
    bounds = quality_view.auc_bounds(auc, positives, negatives)
    if bounds is not None:
        assert 0 <= bounds[0] <= auc <= bounds[1] <= 1
    ratio = quality_view.calibration_bounds(auc, positives)
    if ratio is not None:
        assert ratio[0] <= auc <= ratio[1]


def test_few_positives_have_wide_bounds_and_none_have_no_bounds() -> None:
    few, many = quality_view.auc_bounds(0.9, 5, 1_000), quality_view.auc_bounds(0.9, 500, 1_000)
    assert few is not None
    assert many is not None
    assert few[1] - few[0] > 2 * (many[1] - many[0])
    assert quality_view.auc_bounds(0.9, 0, 1_000) is None
    assert quality_view.calibration_bounds(1.0, 0) is None


def learners(**counted: float) -> History:
    values: dict[str, dict[tuple[str, ...], float]] = {
        "headrace_live_roc_auc": {("fraud", "fraud/v1"): 0.8, ("fraud", "fraud/v2"): 0.9, ("ctr", "ctr/v9"): 0.6},
        "headrace_live_estimated_roc_auc": {("fraud", "fraud/v2"): 0.88},
        "headrace_live_calibration": {("fraud", "fraud/v2"): 1.1},
    }
    for name, value in counted.items():
        values[f"headrace_live_{name}"] = {("fraud", "fraud/v2"): value}
    made = History()
    for number in range(3):
        made.add(NOW_MS + number * 2_000, {"a": Answer(NOW_MS + number * 2_000, values)})
    return made


def test_the_live_release_is_judged_first_and_other_tasks_are_not_there() -> None:
    found = quality_view.releases(learners(), "fraud", "v1")
    assert [(one.release, one.live) for one in found] == [("v1", True), ("v2", False)]
    assert [one.auc for one in found] == pytest.approx([0.8, 0.9])
    assert found[0].auc_bounds is None


def test_where_labels_are_counted_there_is_a_band_and_else_none() -> None:
    (first, *_) = quality_view.releases(learners(labels=400, positives=40), "fraud", "v2")
    assert first.auc_bounds == pytest.approx(quality_view.auc_bounds(0.9, 40, 360))
    chart = quality_view.auc_chart(learners(labels=400, positives=40), "fraud", NOW_MS + 5_000, plainly)
    banded = [each.name for each in chart.series if each.low is not None]
    assert banded == ["v2, measured"]
    bare = quality_view.auc_chart(learners(), "fraud", NOW_MS + 5_000, plainly)
    assert not [each for each in bare.series if each.low is not None]
    assert [each.name for each in bare.series] == ["v1, measured", "v2, measured", "v2, estimated"]


# -- letters -----------------------------------------------------------------------------------------------------


def letter(
    offset: int = 1, value: bytes | None = b"\x00\x01", topic: str = "events.orders", code: str = "truncated"
) -> Letter:
    raw = RawRecord(topic, 1, offset, NOW_MS, b"user-17", value, [("trace", b"secret-header")])
    return Letter(0, offset, dead_letter(raw, BadRecord(code, "it says user-17"), NOW_MS + offset))


def test_letters_are_filtered_counted_and_paged() -> None:
    briefs = [brief_of(letter(n, code="truncated" if n % 3 else "unknown_schema")) for n in range(120, 0, -1)]
    found = listed(briefs, Filter(code="truncated", page=2))
    assert (found.total, found.pages, found.page) == (80, 2, 2)
    assert len(found.rows) == 80 - PAGE
    assert dict(found.codes) == {"truncated": 80, "unknown_schema": 40}
    assert listed(briefs, Filter(page=99)).page == 3
    assert listed(briefs, Filter(topic="nowhere")).rows == []
    assert Filter.of({"page": "x", "home": "1", "code": "a"}) == Filter("a", "", True, 1)


def test_what_was_brought_home_is_told_apart_and_left_out_unless_asked_for(shelf: StillShelf) -> None:
    for offset in (1, 2):
        shelf.letter(offset, BadRecord("truncated", "x"), NOW_MS)
    shelf.mark(1)
    found = listed(shelf.letters.briefs(), Filter())
    assert [brief.id for brief in found.rows] == ["0:2"]
    assert (found.waiting, found.home) == (1, 1)
    assert len(listed(shelf.letters.briefs(), Filter(home=True)).rows) == 2


def test_a_mark_that_is_garbage_marks_nothing(shelf: StillShelf) -> None:
    shelf.letter(1, BadRecord("truncated", "x"), NOW_MS)
    shelf.letters.apply(0, 5, None, [("headrace-brought-home", b"\xff,x,,99"), ("other", None)])
    assert [brief.home for brief in shelf.letters.briefs()] == [False]


def test_the_book_holds_the_newest_and_no_more(shelf: StillShelf) -> None:
    for offset in range(NEWEST + 5):
        shelf.letter(offset, BadRecord("truncated", "x"), NOW_MS)
    briefs = shelf.letters.briefs()
    assert len(briefs) == NEWEST
    assert shelf.letters.get("0:4") is None
    assert shelf.letters.get("0:5") is not None
    for strange in ("", ":", "0:", "x:1", "0:-1", "0:1:2", "9" * 50):
        assert shelf.letters.get(strange) is None


def test_a_reader_without_the_right_sees_no_byte_of_a_letter() -> None:
    registry, settings = MemoryRegistry(), Settings()
    value = Encoder(registry, "events.clicks", "click")(click(user_id="user-17"))
    found = opened(letter(value=value, topic="events.clicks"), settings, registry, reveal=False)
    assert found.masked
    shown = repr(found)
    for secret in ("user-17", "secret-header", value.hex(" ")[:20]):
        assert secret not in shown
    assert found.more == len(value)
    assert "schema id 1" in found.frame
    assert found.decodes == "yes"


def test_a_reader_with_the_right_sees_bytes_text_and_what_the_schema_makes_of_them() -> None:
    registry, settings = MemoryRegistry(), Settings()
    value = Encoder(registry, "events.clicks", "click")(click(user_id="user-17"))
    found = opened(letter(value=value, topic="events.clicks"), settings, registry, reveal=True)
    assert json.loads(found.decodes)["user_id"] == "user-17"
    assert found.key == "user-17"
    assert found.lines[0].hex.startswith("00 00 00 00 01")
    assert ("trace", "secret-header") in found.headers
    wrong = opened(letter(value=value[:20], topic="events.clicks"), settings, registry, reveal=True)
    said = dict(wrong.says)
    assert said["reason"] == "truncated"
    assert said["expected"] == "a click"
    other = opened(letter(value=value, topic="events.orders"), settings, registry, reveal=True)
    assert not other.decodes
    assert json.loads(other.written)["user_id"] == "user-17"


@pytest.mark.parametrize("value", [None, b"", b"\x01", b"\x00\x00\x00\x00\x09abc", b"\xff" * 3_000])
def test_any_bytes_can_be_looked_at(value: bytes | None) -> None:
    for topic in ("events.orders", "elsewhere"):
        for reveal in (False, True):
            found = opened(letter(value=value, topic=topic), Settings(), MemoryRegistry(), reveal=reveal)
            assert found.frame
            assert not found.decodes


def test_a_registry_that_is_silent_is_said_and_breaks_nothing() -> None:
    registry = MemoryRegistry()
    value = Encoder(registry, "events.clicks", "click")(click())
    registry.available = False
    found = opened(letter(value=value, topic="events.clicks"), Settings(), registry, reveal=True)
    assert not found.decodes
    assert "does not answer" in dict(found.says)["what"]


@given(st.binary(max_size=300))
def test_a_dump_holds_every_byte_and_text_no_control_character(value: bytes) -> None:
    assert bytes.fromhex("".join(line.hex for line in dump(value))) == value
    assert all(letter.isprintable() or letter in "\n\t" for letter in plain(value))
    assert framing(value)


# -- policies ----------------------------------------------------------------------------------------------------


def test_policies_are_told_by_standing_and_age(shelf: StillShelf) -> None:
    def record(standing: str, version: str, at: int, document: str = "x") -> dict[str, object]:
        return {"task": "fraud", "standing": standing, "version": version, "digest": "", "document": document,
                "applied_at": at, "by": "", "note": ""}  # fmt: skip

    shelf.policies.know("fraud/live", record("live", "b@2", 2))
    shelf.policies.know("fraud/shadow", record("shadow", "", 3, document=""))
    shelf.policies.know("fraud/a@1", record("kept", "a@1", 1))
    shelf.policies.know("fraud/b@2", record("kept", "b@2", 2))
    shelf.policies.know("other/live", record("live", "z@9", 2))
    found = policy_view.policies(shelf.policies.records())
    assert found.live is not None
    assert found.live.version == "b@2"
    assert found.shadow is None
    assert [one.version for one in found.kept] == ["b@2", "a@1"]
    assert [found.standing(name) for name in ("b@2", "a@1")] == ["live", ""]
    assert found.get("a@1") is not None
    assert found.get("nothing") is None


def test_a_difference_shows_what_comes_and_what_goes() -> None:
    lines = policy_view.diff("a\nb\nc\n", "a\nB\nc\n")
    assert [(line.kind, line.text) for line in lines if line.kind in ("add", "del")] == [("del", "-b"), ("add", "+B")]
    assert policy_view.counted(lines) == (1, 1)
    assert policy_view.diff("a\n", "a\n") == []
    dashes = policy_view.diff("", "--- x\n+++ y\n")
    assert policy_view.counted(dashes) == (2, 0)


# -- lists -------------------------------------------------------------------------------------------------------


def test_an_entry_that_is_typed_right_is_taken() -> None:
    fields = {"list": "block", "type": "card", "token": " 4f1c ", "reason": "chargeback", "until": "2030-01-01T00:00"}
    typed = checked(fields, NOW_MS)
    assert not typed.errors
    assert typed.fields["token"] == "4f1c"
    assert typed.until == 1_893_456_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("list", "grey"), ("list", ""), ("type", "planet"), ("token", ""), ("token", "two words"), ("token", "x" * 257),
        ("token", "a\x00b"), ("reason", ""), ("reason", "x" * 301), ("until", "tomorrow"), ("until", "2020-01-01"),
        ("until", "9999-99-99"),
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_said_beside_its_field_and_kept(name: str, value: str) -> None:
    good = {"list": "block", "type": "card", "token": "4f1c", "reason": "chargeback", "until": ""}
    typed = checked({**good, name: value}, NOW_MS)
    assert list(typed.errors) == [name]
    assert {key: text for key, text in typed.fields.items() if key != name} == {
        key: text for key, text in good.items() if key != name
    }


@given(st.text(max_size=60))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    found = moment(text)
    assert found is None or abs(found) < 2.6e14


def test_entries_that_are_over_are_told_apart(shelf: StillShelf) -> None:
    for name, until in (("a", None), ("b", NOW_MS), ("c", NOW_MS + 1)):
        entry = {"list": "block", "type": "card", "token": name, "reason": "", "until": until, "by": "", "at": NOW_MS}
        shelf.lists.know(f"block/card:{name}", entry)
    found, count = rows(shelf.lists.records(), "block", NOW_MS)
    assert count == 3
    assert [(row.token, row.ended) for row in found] == [("a", False), ("b", True), ("c", False)]
    assert rows(shelf.lists.records(), "allow", NOW_MS) == ([], 0)


def test_of_many_entries_the_newest_are_shown_and_any_is_found_by_its_token(shelf: StillShelf) -> None:
    for number in range(LIST_PAGE + 20):
        entry = {"list": "watch", "type": "user", "token": f"u{number}", "reason": "", "until": None, "by": "",
                 "at": NOW_MS + number}  # fmt: skip
        shelf.lists.know(f"watch/user:u{number}", entry)
    found, count = rows(shelf.lists.records(), "", NOW_MS)
    assert (len(found), count) == (LIST_PAGE, LIST_PAGE + 20)
    assert found[0].token == f"u{LIST_PAGE + 19}"
    assert [row.token for row in rows(shelf.lists.records(), "", NOW_MS, "u7")[0]][-1] == "u7"


def test_a_tombstone_takes_an_entry_off(shelf: StillShelf) -> None:
    encode = Encoder(shelf.registry, "policies.lists", "list_entry")
    entry = {"list": "block", "type": "card", "token": "1", "reason": "", "until": None, "by": "", "at": NOW_MS}
    shelf.lists.apply(b"block/card:1", encode(entry))
    assert shelf.lists.get("block/card:1") == entry
    shelf.lists.apply(b"block/card:1", None)
    assert shelf.lists.records() == {}


# -- audit -------------------------------------------------------------------------------------------------------


def test_the_audit_page_names_people_and_tells_details_apart() -> None:
    entry: Entry = following(None, NOW_MS, "0" * 16, "users.role", f"user {'1' * 16}", '{"role": "admin", "n": 3}')
    shown = audit.row(entry, {"0" * 16: "root", "1" * 16: "ann"})
    assert (shown.who, shown.subject) == ("root", "user ann")
    assert shown.detail == (("role", "admin"), ("n", "3"))
    assert audit.row(Unreadable(7, "no entry"), {}).trouble == "no entry"
    assert audit.details("{") == (("detail", "{"),)
    assert audit.details("[1]") == (("detail", "[1]"),)


def test_the_audit_filter_takes_names_and_beginnings_of_actions() -> None:
    entry = following(None, NOW_MS, "0" * 16, "release.promote", "x", "{}")
    names = {"0" * 16: "root"}
    assert audit.Filter(action="release.").takes(entry, names)
    assert audit.Filter(who="root").takes(entry, names)
    assert audit.Filter(who="0" * 16).takes(entry, names)
    assert not audit.Filter(who="ann").takes(entry, names)
    assert not audit.Filter(action="policy").takes(entry, names)
    assert audit.Filter.of({"before": "-1", "action": " a "}) == audit.Filter("a", "", 0)
