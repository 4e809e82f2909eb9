"""A machine that is full, of files or of processes, ends no learner: a fine-tune is given up, said, and tried again."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from streams.config import Settings
from streams.learner import starting
from streams.learner.child import Standby
from streams.learner.cycle import Bench
from streams.learner.first_score import Awaited
from streams.learner.metrics import LearnerMetrics
from streams.learner.starting import Starting, start
from streams.learner.task import TaskLearning
from streams.tasks import make_task
from tests.finetune_examples import frauds, small_catalog
from tests.school import SILENT


class Nobody:
    """Has forgotten nobody."""

    def deleted(self, user_id: str, stamped: int) -> bool:
        return False


class Desk:
    """One task with examples, and its bench."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(data_dir=folder)
        records = [SILENT | record for record in frauds(400, way=1)]
        monkeypatch.setattr(
            starting, "read_examples", lambda *_: ((0, offset, record) for offset, record in enumerate(records))
        )
        self.task = TaskLearning(settings, make_task("fraud"))
        self.task.champion = "v1"
        for offset, record in enumerate(records):
            self.task.reread(0, offset, record)
        self.task.arrivals.read_to(0, len(records))
        self.standby = Standby(0, folder / "standby.txt")
        self.bench = Bench(settings, "fraud", folder / "fraud", self.standby)
        self.metrics = LearnerMetrics()
        how: Any = settings, None, self.metrics, self.standby, Nobody(), small_catalog
        self.starting = Starting(*how)

    def begun(self) -> float:
        value = self.metrics.registry.get_sample_value("headrace_finetunes_total", {"task": "fraud", "reason": "asked"})
        return value or 0.0


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def no_process(*_: object, **__: object) -> None:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_where_no_process_can_be_started_the_fine_tune_is_given_up_and_the_next_may_begin(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_process)
    desk.starting.stand_by()
    assert "none can be started for the next fine-tune" in caplog.text
    desk.starting.begin(desk.task, desk.bench, "It was asked for.", "asked", 1_000)
    assert desk.bench.cycle is None
    assert desk.task.attempts == 1
    assert "no process can be started" in desk.task.last["why"]
    assert desk.begun() == 0
    assert desk.task.reason(desk.task.seen(asked=False, paused=False), 2_000) is None


def test_a_fine_tune_that_was_under_way_and_cannot_go_on_is_given_up_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(desk.bench, "start", lambda: None)  # killed before it could
        desk.starting.begin(desk.task, desk.bench, "It was asked for.", "asked", 1_000)
    assert desk.bench.cycle is not None
    assert desk.bench.cycle.kind == "asked"
    assert desk.begun() == 1
    monkeypatch.setattr(subprocess, "Popen", no_process)
    desk.standby.stop()
    assert not start(desk.task, desk.bench)
    assert desk.bench.cycle is None


def test_a_full_disk_gives_the_fine_tune_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(desk.bench, "begin", full)
    monkeypatch.setattr(desk.standby, "prepare", lambda: None)
    desk.starting.begin(desk.task, desk.bench, "It was asked for.", "asked", 1_000)
    assert "No space left on device" in desk.task.last["why"]
    assert desk.bench.cycle is None


def test_what_is_to_be_heard_of_outlasts_the_learner_until_it_was_heard(tmp_path: Path) -> None:
    assert Awaited(tmp_path).release is None
    Awaited(tmp_path).wait_for("v2", 1_700)
    again = Awaited(tmp_path)
    assert again.release == ("v2", 1_700)
    again.heard()
    assert not again.release
    assert Awaited(tmp_path).release is None
    (tmp_path / "awaited.json").write_text("{")
    assert Awaited(tmp_path).release is None
