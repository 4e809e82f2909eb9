"""Fuzzing: a few seconds of each target, what it found before, and that it finds what it is there to find.
The hours are `make fuzz`.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from schemas import catalog
from schemas.errors import BadRecord, PolicyError, SchemaError, SettingsError
from schemas.reading import compile_reader
from schemas.varint import long_bytes
from schemas.wire import WritersDecoder
from streams.asking.answers import Answers, Given, Key
from streams.asking.header import _HEAD as ANSWER_HEAD
from streams.asking.header import ASKED, Answer, Seal
from streams.mapping.expressions import expression
from streams.policy.decide import Policy
from streams.policy.document import parse
from streams.policy.lists import Lists
from streams.tasks.selection import Selection
from tests.fuzz import TARGETS, child, drawing, http, watch
from tests.fuzz.decoder import FOREIGN_ID, Shelf
from tests.fuzz.target import Wrong, make, random_of

SEED = 20_261_128
SHORT = {"decoder": 400, "worker": 60, "mapping": 400, "rules": 150, "http": 60}
EXPECTED = {
    "decoder": {"read", "undecodable", "truncated", "wrong_type", "unknown_schema"},
    "worker": {"scored", "partly", "refused"},
    "mapping": {"mapped", "left out", "wrong_type", "undecodable"},
    "rules": {"decided", "failed", "refused"},
    "http": {"200", "400", "422"},
}
"""What a short run must have met: a fuzzer whose inputs all end at the first check looks at nothing."""


@pytest.mark.parametrize("name", TARGETS)
def test_only_stated_answers_come_of_what_is_drawn(name: str, tmp_path: Path) -> None:
    target, met = make(name), set()
    try:
        for number in range(SHORT[name]):
            word, took = child.one(target, SEED, number, tmp_path)
            assert took < watch.LIMIT_S, number
            met.add(word)
    finally:
        target.close()
    found = tmp_path / child.FINDINGS
    assert not found.exists(), found.read_text()[:5_000]
    assert met >= EXPECTED[name]


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_a_function_of_its_seed_and_number(name: str) -> None:
    one, other = make(name), make(name)
    try:
        assert repr(one.draw(random_of(SEED, 7))) == repr(other.draw(random_of(SEED, 7)))
        assert repr(one.draw(random_of(SEED, 8))) != repr(other.draw(random_of(SEED, 9)))
    finally:
        one.close()
        other.close()


# -- what was found ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "fixed", "name": "Nothing", "size": 0},
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "record", "name": "Around", "fields": [{"name": "n", "type": "null"}]},
    ],
    ids=["null", "fixed", "empty", "around"],
)
def test_a_list_of_what_takes_no_bytes_is_refused_and_not_counted_out(items: Any) -> None:
    """6 KB of such blocks were 9 million items, a megabyte would have been hours: the worker stood still."""
    writer = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": items}}]}
    with pytest.raises(SchemaError, match="takes no bytes; at a"):
        compile_reader(writer, writer)
    shelf = Shelf()
    shelf.schemas[FOREIGN_ID] = writer
    body = b"".join(long_bytes(2 * 2_000) for _ in range(2_000)) + b"\0"
    [found] = WritersDecoder(shelf).decode_many([b"\0" + FOREIGN_ID.to_bytes(4, "big") + body])
    assert isinstance(found, BadRecord)


def test_a_list_of_lists_and_of_unions_is_read_as_before() -> None:
    items = {"type": "array", "items": ["null", "int"]}
    writer = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": items}}]}
    assert compile_reader(writer, writer)(bytes([2, 4, 0, 2, 6, 0, 0])) == {"a": [[None, 3]]}


def test_a_strangers_broken_schema_is_told_in_few_words() -> None:
    deep: Any = {"type": "x" * 50_000}
    with pytest.raises(SchemaError) as refused:
        catalog.parsed({"type": "record", "name": "R", "fields": [{"name": "a", "type": deep}]})
    assert len(str(refused.value)) < 500


def test_a_strangers_schema_without_end_is_a_dead_letter() -> None:
    deep: Any = "int"
    for _ in range(400):
        deep = {"type": "array", "items": deep}
    shelf = Shelf()
    shelf.schemas[FOREIGN_ID] = {"type": "record", "name": "R", "fields": [{"name": "a", "type": deep}]}
    [found] = WritersDecoder(shelf).decode_many([b"\0" + FOREIGN_ID.to_bytes(4, "big") + b"\0"])
    assert isinstance(found, BadRecord)


def test_a_policy_nested_without_end_is_refused() -> None:
    """From the topic it raises in whoever reads it; from the console it is a page that fails."""
    with pytest.raises(PolicyError, match="nested too deep"):
        parse(f'name = "a"\nx = {"[" * 5_000}', "here")


def test_settings_of_a_selection_nested_without_end_are_refused() -> None:
    with pytest.raises(BadRecord):
        Selection.parse("[" * 100_000)


def test_a_rule_that_doubles_a_text_thirty_times_is_refused_and_two_maps_are_not() -> None:
    """It has few steps and gigabytes: the worker was killed for its memory."""
    doubling = "size(['ab']" + ".map(x, x + x)" * 30 + ") > 0"
    with pytest.raises(PolicyError, match="`map` 30 times"):
        _policy(doubling)
    with pytest.raises(SettingsError, match="`map` 30 times"):
        expression(doubling, "here")
    fields = np.zeros(64, np.float32)
    _policy("size(['ab'].map(x, x + x).map(x, x + x)) > 0").decide({}, 0.5, fields)


def test_what_two_maps_can_make_at_most_is_bounded() -> None:
    """As many copies as the compiler's depth lets pass, of as long a text as there is room for."""
    copies = "+".join([f"({'+'.join(['x'] * 12)})"] * 12)
    text = f"size(['{'y' * 2_500}'].map(x, {copies}).map(x, {copies})[0]) > 0"
    begun = time.process_time()
    assert 3_000 < len(text) <= 4_000
    policy = _policy(text)
    policy.decide({}, 0.5, np.zeros(64, np.float32))
    assert not policy.take_failures()
    assert time.process_time() - begun < watch.LIMIT_S


def _policy(when: str) -> Policy:
    return Policy.parse(f"name = 'a'\n[[rules]]\nid = 'r'\nwhen = {json.dumps(when)}\nthen = 'note'\n", Lists(), "here")


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"{}", "400"),
        ("gzip", gzip.compress(b"[]"), "400"),
        ("gzip", gzip.compress(b" " * (8 * http.LARGEST)), "413"),
    ],
    ids=["none", "some", "bomb"],
)
def test_a_body_that_is_not_packed_as_it_says_is_the_clients_mistake(encoding: str, body: bytes, status: str) -> None:
    """It was a 500, and a page of the worker's log."""
    head = (
        "POST /v1/score/fraud HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Authorization: Bearer headrace_narrow\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    target = http.Requests()
    try:
        assert target.look(http.Request(head.encode() + body, whole=True)) == status
    finally:
        target.close()


@pytest.mark.parametrize(
    ("name", "bucket"), [(b"\xff", 8), (b"fraud", 2**31), (b"fraud", 2**32 - 1)], ids=["name", "bucket", "largest"]
)
def test_an_answer_that_no_worker_gave_is_none_and_does_not_end_the_worker(name: bytes, bucket: int) -> None:
    """Without `ask.key` whoever may write events can seal one: the worker ended at it, and again after each start."""
    body = ANSWER_HEAD.pack(1, len(name), 3, bucket, 0, 2) + name + b"abc" + b"de"
    header = ASKED, Seal()._sealed(body, b"event") + body
    assert Seal().read([header], b"event") is None


def test_an_answer_of_a_worker_is_read_as_it_was() -> None:
    answer = Answer("fraud", b"abc", b"de", 2**31 - 1, 7)
    assert Seal().read([Seal().header(answer, b"event")], b"event") == answer


def test_answers_are_remembered_up_to_so_many_bytes_and_the_newest_always() -> None:
    """An order of a megabyte has a score of a megabyte: twenty thousand of them were to be kept."""
    answers = Answers(remembered=10, remembered_bytes=1_000)

    def give(number: int, size: int = 300) -> Key:
        key = Key(0, "u", f"e{number}")
        answers.give(key, Given(0, b"", Answer("fraud", b"x" * size, b"features", 0, 0)))
        return key

    keys = [give(number) for number in range(5)]
    assert [answers.known(key) is not None for key in keys] == [False, False, True, True, True]
    answers.forget(keys[3])
    answers.forget(keys[3])
    assert [answers.known(give(number)) is not None for number in (4, 4, 5)] == [True] * 3
    assert answers.known(keys[2]) is not None  # neither what was forgotten nor what came twice counts
    answers.forget_user("u")
    assert answers.known(give(6, size=5_000)) is not None
    give(7)
    assert answers.known(Key(0, "u", "e6")) is None


# -- that it finds ---------------------------------------------------------------------------------------------------


BROKEN = """
import os, sys, time
from tests.fuzz import TARGETS, child
TARGETS["broken"] = "__main__:Broken"
class Broken:
    def draw(self, random):
        return random.random()
    def look(self, given):
        number = child_progress.read().number
        if number in (5, 6):
            raise KeyError(given)
        if number == 8:
            os._exit(3)
        if number == 12:
            while True:
                pass
        kept.append(b"x" * (2_000 if number > 20 else 0))
        time.sleep(0.002)
        return "fine"
    def close(self): ...
kept = []
name, seed, first, folder, seconds = sys.argv[1:]
from pathlib import Path
child_progress = child.Progress(Path(folder))
child.main(name, int(seed), int(first), Path(folder), float(seconds))
"""


def test_what_raises_ends_or_hangs_is_found_with_its_number_and_the_next_ones_are_looked_at(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)
    env_path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    try:
        seen = watch.watch("broken", 1, tmp_path, 120.0, limit_s=0.5, most=3, command=[sys.executable, str(script)])
    finally:
        if env_path is None:
            del os.environ["PYTHONPATH"]
    raised = [finding for what, finding in seen.findings.items() if what.startswith("KeyError")]
    assert [(finding.number, finding.count) for finding in raised] == [(5, 2)]
    assert {what: finding.number for what, finding in seen.findings.items() if not what.startswith("KeyError")} == {
        "the process ended with 3": 8,
        "an input took more than 0.5 s of CPU": 12,
    }
    assert seen.inputs == 11  # up to 8, and from 9 up to 12
    assert seen.figures()["findings"] == 4


def test_growth_is_seen_and_what_a_start_takes_is_not() -> None:
    grows = [(float(s), 100.0 + 0.5 * s) for s in range(120)]
    settles = [(float(s), 100.0 + min(s, 30)) for s in range(120)]
    assert watch.grown(grows) == pytest.approx(29.5)
    assert watch.grown(settles) == pytest.approx(0)
    assert watch.grown([(0.0, 1.0)]) == 0


def test_an_error_of_the_judging_is_a_finding_like_any_other(tmp_path: Path) -> None:
    class Liar:
        def draw(self, random: Random) -> int:
            return 7

        def look(self, given: int) -> str:
            raise Wrong("another record")

        def close(self) -> None: ...

    word, _ = child.one(Liar(), 1, 42, tmp_path)
    said = json.loads((tmp_path / child.FINDINGS).read_text())
    assert (word, said["number"]) == ("found", 42)
    assert "another record" in said["text"]
    assert "of 7" in said["text"]


def test_spoilt_bytes_and_bent_values_are_mostly_others_and_leave_what_was_given() -> None:
    data, row = bytes(range(100)), {"a": [1, {"b": 2}], "c": "d"}
    spoilt = {drawing.spoilt(random_of(1, n), data, b"other") for n in range(200)}
    bent = {repr(drawing.bent(random_of(1, n), row)) for n in range(200)}
    assert len(spoilt) > 100
    assert len(bent) > 80
    assert row == {"a": [1, {"b": 2}], "c": "d"}
