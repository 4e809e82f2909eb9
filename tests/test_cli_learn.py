"""`headrace learn`: what is asked of the learner is on the topic, whole, and what it said is shown."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from schemas.confluent import ConfluentRegistry
from streams.cli import app
from streams.config import Settings
from streams.demo.stage import environment
from streams.learner.control import Command, Speaker, Status, statuses
from streams.local import LocalRegistry
from tests.conftest import FreshSettings

Headrace = Callable[..., Result]


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    return fresh_settings()


@pytest.fixture
def headrace(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_as_it_was: None) -> Headrace:
    monkeypatch.chdir(tmp_path)
    env = environment(settings)
    return lambda line: CliRunner().invoke(app, line.split(), env=env, prog_name="headrace")


def test_before_a_learner_has_run_the_status_says_how_to_start_one(headrace: Headrace) -> None:
    said = headrace("learn status")
    assert (said.exit_code, said.stdout) == (0, "no learner has run yet: `headrace learner` starts one\n")


def test_a_pause_and_a_wish_change_only_what_they_are_about(settings: Settings, headrace: Headrace) -> None:
    assert headrace("learn pause").exit_code == 0
    assert headrace("learn now fraud").stdout.startswith("fraud: asked for")
    assert headrace("learn resume ctr").stdout == "ctr: goes on\n"
    asked = statuses(settings)[1]
    assert asked["fraud"].paused
    assert asked["fraud"].asked_at > 0
    assert asked["recommendations"] == Command("recommendations", True, 0, asked["fraud"].by)
    assert not asked["ctr"].paused


def test_the_status_shows_what_the_learner_said_last(settings: Settings, headrace: Headrace) -> None:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        speaker = Speaker(settings, registry)
        detail = {
            "champion": "v1", "new": 12_345, "positives": 67, "why_not": "12,345 of 20,000 examples",
            "last": {"result": "refused", "made": "v2", "why": "pr_auc is 0.2", "trigger": "drift"},
        }  # fmt: skip
        speaker.say(Status("fraud", "waiting", detail, 1_700_000_000_000))
    said = headrace("learn status").stdout
    for part in (
        "fraud",
        "waiting",
        "v1",
        "12,345 (67 positive)",
        "refused, begun for drift: pr_auc",
        "2023-11-14 22:13:20 UTC",
    ):
        assert part in said
    (row,) = json.loads(headrace("learn status --json").stdout)
    assert row["detail"] == detail
    assert row["paused"] is False


def test_a_task_that_is_none_is_named(headrace: Headrace) -> None:
    said = headrace("learn now weather")
    assert said.exit_code == 2
    assert "weather" in said.stderr
