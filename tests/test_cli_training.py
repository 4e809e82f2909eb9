"""`headrace tune`, `headrace catalog tune` and `headrace shrink` over Kafka: the next command takes what they make."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from finetune.first import PLANS
from finetune.plans import read_plans
from streams.cli import app
from streams.config import Settings
from tests import shop
from tests.records import NOON_MS, click
from tests.small_encoder import small_encoder
from tests.small_shop import FEW

Headrace = Callable[..., Result]
MINUTE = 60_000


@pytest.fixture
def headrace(settings: Settings, tmp_path: Path, registry: Any, torch_as_it_was: None) -> Headrace:
    """Commands in a shop of three hundred clicks: each user looks at item-1 after item-0, item-3 after item-2."""
    shop.furnish_catalog(settings)
    clicks = [
        click(
            event_id=f"c{number}", user_id=f"user-{number // 2 % 20}",
            item_id=f"item-{2 * (number // 2 % 3) + number % 2}",
            event_time=NOON_MS + number // 2 * 90 * MINUTE + number % 2 * MINUTE, action="view",
        )
        for number in range(300)
    ]  # fmt: skip
    shop.publish(settings, [("clicks", each) for each in clicks])
    topics = "\n".join(f'{key} = "{name}"' for key, name in settings.topics.model_dump().items())
    path = tmp_path / "headrace.toml"
    path.write_text(
        f"app_id = '{settings.app_id}'\ndata_dir = '{tmp_path / 'data'}'\npartitions = 2\n[topics]\n{topics}\n"
    )
    env = {"HEADRACE_BROKERS": settings.brokers, "HEADRACE_REGISTRY_URL": settings.registry_url}

    def run(line: str) -> Result:
        result = CliRunner().invoke(app, ["--config", str(path), *line.split()], env=env, prog_name="headrace")
        assert result.exit_code == 0, result.output
        return result

    return run


def test_a_search_is_kept_goes_on_and_leaves_a_file_that_a_training_reads(headrace, tmp_path, monkeypatch):
    monkeypatch.setitem(PLANS, "recommendations", FEW["recommendations"])
    first = headrace("tune recommendations --trials 2 --folds 1 --json")
    said = json.loads(first.stdout)
    assert said["measure"] == "ndcg@10"
    assert said["trials"] == 2
    assert said["value"] >= said["usual"]
    assert Path(said["plans"]) == tmp_path / "data" / "tuning" / "plans.toml"
    assert read_plans(Path(said["plans"]))["recommendations"].steps == FEW["recommendations"].steps
    assert "trial 1: complete" in first.stderr
    again = headrace("tune recommendations --trials 2 --folds 1")
    assert "trial" not in again.stderr, "there are two already"
    assert "usual" in again.stdout


def test_an_encoder_of_the_shops_own_is_made_and_encodes_into_a_topic_of_its_own(headrace, tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    source = small_encoder(tmp_path / "source")
    monkeypatch.setattr("streams.sources.fetch.fetch", lambda name: source)
    made = headrace("catalog tune --steps 2")
    folder = Path(made.stdout.strip())
    assert folder.parent == tmp_path / "data" / "encoder" / "tuned"
    assert "150 groups of" in made.stderr
    old = (tmp_path / "headrace.toml").read_text()
    vectors = next(line for line in old.splitlines() if line.startswith("vectors ="))
    topic = vectors.split('"')[1]
    (tmp_path / "headrace.toml").write_text(old.replace(vectors, f'vectors = "{topic}.2"'))
    headrace("topics create")
    done = headrace(f"catalog encode --once --encoder {folder} --rows-from {topic}")
    assert f"{shop.ITEMS + shop.ADS} vectors published" in done.stdout


def test_a_smaller_release_is_made_of_the_newest_judged_and_promoted_by_hand(headrace, monkeypatch):
    tiny = replace(FEW["recommendations"], steps=4, sizes={"width": 16, "heads": 2, "hidden": 32})
    monkeypatch.setitem(PLANS, "recommendations", tiny)
    teacher = json.loads(headrace("train --tasks recommendations --json").stdout)["recommendations"]["version"]
    said = json.loads(headrace("shrink recommendations --hidden 8 --heads 1 --json").stdout)
    assert said["teacher"] == f"recommendations/{teacher}"
    assert said["parameters"] < said["teacher_parameters"]
    assert said["gate"] == "refuse"
    assert any("labels" in reason for reason in said["reasons"]), "three hundred clicks are too few for the gate"
    shown = headrace(f"releases show {said['release']} --json")
    assert json.loads(shown.stdout)["config"]["head_width"] == 8
    distilled = headrace("shrink recommendations --by distill --layers 1 --steps 2")
    assert "the gate refuses it:" in distilled.stdout
    assert "recommendations: step 2 of 2" in distilled.stderr
    live = json.loads(headrace("releases live --json").stdout)
    assert [each["version"] for each in live] == [teacher], "nothing is made live unasked"
    assert "is live (epoch 2)" in headrace(f"releases promote {said['release']}").stdout
