"""A fine-tune from its files to its result: nothing half written begins; whatever the process says is understood."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from finetune.example_files import read_catalog, read_examples
from finetune.plan import read_plan
from schemas.errors import StateError
from streams.config import Settings
from streams.learner import child
from streams.learner import cycle as cycles
from streams.learner.child import Standby
from streams.learner.cycle import NOTE, Bench, Cycle, Outcome
from streams.learner.split import Split
from streams.learner.standing import Standing
from tests.finetune_examples import MINUTE, START, frauds, small_catalog
from tests.school import SILENT

CYCLE = Cycle("fraud", 7, "It was asked for.", "v1", 1_000, 900, 60)
SPLIT = Split(
    Standing({0: 3}, {0: 100}, START + 60 * MINUTE), START + 65 * MINUTE, START + 70 * MINUTE, START + 90 * MINUTE,
    100, 30, 60, 20, 6, 9, {0: (0, 100)}, 900,
)  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return made(tmp_path)


def made(folder: Path) -> Bench:
    return Bench(Settings(data_dir=folder), "fraud", folder / "fraud", Standby(0, folder / "standby.txt"))


def begin(bench: Bench, **how: Any) -> None:
    records = [SILENT | record for record in frauds(100, way=1)]
    bench.begin(CYCLE, SPLIT, small_catalog(), records, seed=5, **how)


def runs(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """What the process does instead of a fine-tune."""
    told = f"from streams.learner.child import taken\ntaken()\n{code}"
    monkeypatch.setattr(child, "command", lambda niceness: [sys.executable, "-c", told])


def ended(bench: Bench) -> Outcome:
    deadline = time.monotonic() + 30
    while (outcome := bench.outcome()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return outcome


def test_the_plan_names_what_trains_what_stops_it_and_what_is_for_the_gate_alone(bench: Bench, tmp_path: Path) -> None:
    begin(bench, delays={"ms": [1], "cdf": [1.0]})
    plan = read_plan(tmp_path / "fraud" / "7" / "plan.json")
    files = (*plan.examples, *plan.holding, *plan.window)
    training, holding, window = (list(read_examples(file.path, file.sha256)) for file in files)
    assert [record["event_time"] for record in training] == [START + number * MINUTE for number in range(61)]
    assert [record["event_time"] for record in holding] == [START + number * MINUTE for number in range(61, 66)]
    assert [record["event_time"] for record in window] == [START + number * MINUTE for number in range(71, 91)]
    assert len(read_catalog(plan.catalog.path, plan.catalog.sha256)) == len(small_catalog())
    assert Standing.of(plan.trained) == SPLIT.standing
    assert plan.made_recipe().seed == 5
    assert bench.cycle == CYCLE


def test_what_was_made_and_passed_is_told_so_with_all_that_was_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(bench)
    runs(monkeypatch, """print('{"made": "v2", "verdict": "pass", "seconds": {"train": 3}}')""")
    bench.start()
    outcome = ended(bench)
    assert (outcome.made, outcome.passed, outcome.reason) == ("v2", True, "")
    assert outcome.said["seconds"] == {"train": 3}
    assert bench.cycle == CYCLE, "it is not settled yet"
    bench.settle()
    assert bench.cycle is None
    assert bench.outcome() is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("""print('{"made": "v2", "verdict": "refuse", "gate": {"checks": [{"passed": false, "said": "Worse."}]}}')""",
         Outcome("v2", False, "Worse.")),
        ("""print('{"made": "v2", "verdict": null}')""", Outcome("v2", False, "the gate gave no verdict")),
        ("""print('{"refused": "no memory"}'); raise SystemExit(3)""", Outcome(None, False, "no memory")),
        ("import sys; sys.exit('a bug')", Outcome(None, False, "the fine-tune ended with code 1: a bug")),
        ("print('not json')", Outcome(None, False, "the fine-tune ended with code 0: ")),
    ],
)  # fmt: skip
def test_what_was_not_made_or_did_not_pass_has_a_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: str, expected: Outcome
) -> None:
    begin(bench)
    runs(monkeypatch, code)
    bench.start()
    outcome = ended(bench)
    assert (outcome.made, outcome.passed, outcome.reason) == (expected.made, expected.passed, expected.reason)


def test_a_learner_that_ends_leaves_the_fine_tune_to_the_next_one(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(bench)
    runs(monkeypatch, "import time; time.sleep(60)")
    bench.start()
    assert bench.running
    bench.stop()
    assert not bench.running
    runs(monkeypatch, """print('{"made": "v2", "verdict": "pass"}')""")
    again = made(tmp_path)
    assert again.cycle == CYCLE
    again.start()
    assert ended(again).made == "v2"


def test_a_process_that_stands_by_is_given_the_plan_and_the_next_one_is_another(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(monkeypatch, """import os; print('{"made": "v%d", "verdict": "pass"}' % os.getpid())""")
    standby = bench._standby
    standby.prepare()
    first = standby._process
    standby.prepare()
    assert standby._process is first
    begin(bench)
    bench.start()
    assert first is not None
    assert ended(bench).made == f"v{first.pid}"
    assert standby._process is None
    standby.prepare()
    waits = standby._process
    assert waits is not None
    assert waits.pid != first.pid
    standby.stop()
    assert waits.poll() is not None


def test_one_that_died_while_it_stood_by_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, """print('{"made": "v2", "verdict": "pass"}')""")
    bench._standby.prepare()
    died = bench._standby._process
    assert died is not None
    died.kill()
    died.wait()
    begin(bench)
    bench.start()
    assert ended(bench).made == "v2"


def test_one_that_cannot_load_its_libraries_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "command", lambda niceness: [sys.executable, "-c", "import no_such_library"])
    begin(bench)
    bench.start()
    assert "no_such_library" in ended(bench).reason


def test_a_full_disk_leaves_nothing_behind_and_nothing_begun(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cycles, "write_catalog", full)
    with pytest.raises(OSError, match="No space left"):
        begin(bench)
    assert bench.cycle is None
    assert list((tmp_path / "fraud").iterdir()) == []


def test_a_note_that_cannot_be_read_is_named_with_what_to_do(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "fraud" / NOTE).write_text(json.dumps({"task": "fraud"}))
    with pytest.raises(StateError, match=r"note of a fine-tune.*cycle\.json.*delete it"):
        _ = bench.cycle
