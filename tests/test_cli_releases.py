"""`headrace releases`: what is live is chosen by commands that say what they did, and refuse what cannot be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.config import Settings
from streams.demo.stage import environment
from streams.local import LocalRegistry
from streams.pointers import live_pointers
from tests import shop
from tests.conftest import FreshSettings

Headrace = Callable[..., Result]


@pytest.fixture
def settings(registry: LocalRegistry, fresh_settings: FreshSettings) -> Settings:
    store, _ = shop.releases()
    made: Settings = fresh_settings(release_store=store)
    return made


@pytest.fixture
def headrace(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_as_it_was: None) -> Headrace:
    monkeypatch.chdir(tmp_path)
    env = environment(settings)

    def run(line: str) -> Result:
        return CliRunner().invoke(app, line.split(), env=env, prog_name="headrace")

    return run


def test_a_release_is_promoted_pinned_and_rolled_back(settings: Settings, headrace: Headrace) -> None:
    store, versions = shop.releases()
    first = versions["fraud"]
    second = shop.copy_release(store, "fraud", first, "second")

    said = headrace(f"releases promote fraud/{first}")
    assert (said.exit_code, said.stdout) == (0, f"fraud/{first} is live (epoch 1)\n")
    said = headrace(f"releases promote fraud/{second} --pin")
    assert said.stdout == f"fraud/{second} is live, pinned (epoch 2); before it: {first}\n"
    rows = json.loads(headrace("releases live --json").stdout)
    assert [(row["task"], row["version"], row["pinned"]) for row in rows] == [("fraud", second, True)]
    assert first in headrace("releases live").stdout

    assert headrace("releases pin fraud --off").stdout.startswith(f"fraud/{second} is live (epoch 3)")
    said = headrace("releases rollback fraud")
    assert said.stdout == f"fraud/{first} is live (epoch 4); before it: {second}\n"
    (row,) = json.loads(headrace("releases history fraud --json").stdout)
    assert (row["release"], row["state"], row["why"]) == (f"fraud/{second}", "rolled back", ["By hand."])
    assert "By hand." in headrace("releases history").stdout
    assert "announced no release" in headrace("releases history ctr").stdout
    assert live_pointers(settings)["fraud"].version == first


def test_what_differs_between_two_releases_is_shown(headrace: Headrace) -> None:
    store, versions = shop.releases()
    shop.copy_release(store, "fraud", versions["fraud"], "twin")
    rows = json.loads(headrace(f"releases diff fraud/{versions['fraud']} fraud/twin --json").stdout)
    found = {row["what"]: (row["old"], row["new"]) for row in rows}
    assert found.pop("version") == (versions["fraud"], "twin")
    assert set(found) <= {"created_at"}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("releases promote fraud/none", 1, ["no release fraud/none"]),
        ("releases promote fruad/1", 2, ["'fruad'", "fraud, recommendations, ctr"]),
        ("releases rollback ctr", 1, ["nothing is live of ctr", "releases promote"]),
        ("releases pin ctr", 1, ["nothing is live of ctr", "releases promote"]),
        ("releases diff fraud/none fraud", 1, ["no release fraud/none"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_moves_nothing(
    settings: Settings, headrace: Headrace, line: str, code: int, words: list[str]
) -> None:
    said = headrace(line)
    assert said.exit_code == code
    assert said.stdout == ""
    assert len(said.stderr.splitlines()) == 1
    for word in words:
        assert word in said.stderr
    assert live_pointers(settings) == {}


def test_a_release_is_shown_with_its_gate_and_what_that_could_not_look_at(
    settings: Settings, headrace: Headrace
) -> None:
    store, versions = shop.releases()
    check = {"name": "pr_auc", "value": -0.2, "bound": -0.025, "passed": False, "said": "It ranks worse."}
    report = {"verdict": "refuse", "checks": [check], "not_judged": {"old pr_auc": "no old event has a label"}}
    judged = shop.copy_release(store, "fraud", versions["fraud"], "judged", metrics={"gate": report})
    said = headrace(f"releases show fraud/{judged}")
    assert said.exit_code == 0
    rows = [" ".join(line.split()) for line in said.stdout.splitlines()]
    assert "gate refuse value bound in words" in rows
    assert "pr_auc refused -0.2 -0.025 It ranks worse." in rows
    assert "old pr_auc not judged no old event has a label" in rows
    assert json.loads(headrace(f"releases show fraud/{judged} --json").stdout)["metrics"]["gate"] == report
