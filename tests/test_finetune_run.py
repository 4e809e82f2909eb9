"""The process of a fine-tune: a candidate that nothing points to, or a reason; the same one after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.model import load_model
from engines.releases import Release, ReleaseStore
from finetune import checkpoints, run
from finetune import release as releasing
from finetune.example_files import write_catalog, write_examples
from finetune.examples import is_positive
from finetune.mixing import Mix, mixed
from finetune.plan import read_plan
from finetune.reservoir import Reservoir
from streams.tasks import make_task
from tests.finetune_examples import (
    MINUTE,
    START,
    arrays,
    frauds,
    record,
    slates,
    small_catalog,
    small_model,
    small_release,
    wishes,
)

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("torch_as_it_was")

CATALOG = small_catalog()
FRAUD = make_task("fraud")
RECIPE = {"mode": "full", "batch": 16, "rate": 5e-3, "evaluate_every": 5, "checkpoint_every": 2}
RECORDS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "fraud": lambda: frauds(400, way=1),
    "ctr": lambda: list(slates(300)),
    "recommendations": lambda: wishes(400),
}


@pytest.fixture(scope="module")
def champions(tmp_path_factory) -> Callable[[str], tuple[ReleaseStore, Release]]:
    made: dict[str, tuple[ReleaseStore, Release]] = {}

    def champion(task: str) -> tuple[ReleaseStore, Release]:
        if task not in made:
            store = ReleaseStore(str(tmp_path_factory.mktemp("store")))
            made[task] = store, small_release(small_model(task), store)
        return made[task]

    return champion


@pytest.fixture
def planned(tmp_path: Path, champions) -> Callable[..., Path]:
    """A plan's file; `records` are its examples, `over` replaces its fields."""

    def plan(of: str = "fraud", records: list[dict[str, Any]] | None = None, **over: Any) -> Path:
        store, champion = champions(of)
        name = f"plan{len(list(tmp_path.glob('*.json')))}"
        examples, catalog = tmp_path / f"{name}.avro", tmp_path / "catalog.npz"
        digest = write_examples(examples, RECORDS[of]() if records is None else records)
        said: dict[str, Any] = {
            "task": of, "champion": champion.version, "store": store.url,
            "examples": [{"path": str(examples), "sha256": digest}],
            "catalog": {"path": str(catalog), "sha256": write_catalog(catalog, CATALOG)},
            "out": str(tmp_path / name), "recipe": RECIPE, "trained": {"offsets": {"0": 17}},
        } | over  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(said))
        return path

    return plan


def ran(path: Path, capsys) -> tuple[int, dict[str, Any]]:
    code = run.main([str(path)])
    (line,) = capsys.readouterr().out.splitlines()
    return code, json.loads(line)


def mix_of(path: Path, records: list[dict[str, Any]], holding: list[dict[str, Any]] | None = None) -> Mix:
    plan = read_plan(path)
    plan.out.mkdir(exist_ok=True)
    apart = None if holding is None else arrays("fraud", holding, CATALOG)
    return mixed(plan, FRAUD, arrays("fraud", records, CATALOG), run._reservoir(plan, FRAUD), holding=apart)


@pytest.mark.parametrize("task", list(RECORDS))
def test_a_champion_and_examples_make_a_better_candidate_that_nothing_points_to(task, planned, champions, capsys):
    store, champion = champions(task)
    code, said = ran(planned(task), capsys)
    assert code == 0
    metric, better = {"ctr": ("log_loss", -1), "fraud": ("pr_auc", 1), "recommendations": ("ndcg@10", 1)}[task]
    figures = [said[which]["metrics"][metric] for which in ("champion", "candidate")]
    assert (figures[1] - figures[0]) * better > 0.02
    release = store.open(task, said["made"])
    assert release.manifest.trained["champion"] == champion.version
    assert release.manifest.trained["offsets"] == {"0": 17}
    assert release.manifest.metrics["parity"]["rows"] > 0
    assert ("prior.json" in release.manifest.files) == (task == "recommendations")
    assert release.manifest.settings.keys() >= champion.manifest.settings.keys()
    parts = {"read", "train", "export", "compile", "parity", "calibrate", "publish", "champion", "keep"}
    assert said["seconds"].keys() == said["peak_mb"].keys() == parts
    assert all(10 < each < 10_000 for each in said["peak_mb"].values())
    assert not list(Path(store.url).rglob("*pointer*"))
    assert load_model(release.folder).config.width == 16


def test_a_second_run_of_the_plan_says_the_same_and_makes_nothing(planned, champions, capsys, tmp_path):
    store, _ = champions("fraud")
    path = planned(recipe=RECIPE | {"mode": "head"})
    first = ran(path, capsys)
    versions = store.list("fraud")
    assert ran(path, capsys) == first
    (read_plan(path).out / "result.json").unlink()  # killed after the release, before the result
    code, again = ran(path, capsys)
    assert (code, again["made"]) == (0, first[1]["made"])
    assert again["candidate"] == first[1]["candidate"]
    assert store.list("fraud") == versions


def test_a_process_that_is_killed_while_it_trains_goes_on_to_the_same_weights(planned, champions, capsys):
    """The candidate of a run that was killed has the bytes of that of one that was not."""
    store, _ = champions("fraud")
    slow = RECIPE | {"mode": "lora", "batch": 4, "evaluate_every": 1}
    paths = [planned(recipe=slow, trained={"run": number}) for number in range(2)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "finetune.run", str(paths[0])]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    checkpoint, deadline = read_plan(paths[0]).out / "checkpoint.json", time.monotonic() + 60
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0] == ""
    assert process.returncode == -signal.SIGKILL
    said = [ran(path, capsys)[1] for path in paths]
    assert said[0]["fit"]["resumed_from"] > 0 == said[1]["fit"]["resumed_from"]
    killed, whole = (store.open("fraud", each["made"]).manifest for each in said)
    assert killed.files["model.safetensors"] == whole.files["model.safetensors"]
    assert said[0]["candidate"]["metrics"] == said[1]["candidate"]["metrics"]


# -- what is trained on, and what waits


def test_new_examples_are_mixed_with_replay_that_is_older_than_all_held_out(planned, tmp_path):
    kept = {"folder": str(tmp_path / "kept"), "rows": 300, "bytes": 1 << 20}
    reservoir = Reservoir(tmp_path / "kept", FRAUD, rows=300, bytes_=1 << 20)
    reservoir.add(arrays("fraud", frauds(300, way=-1, start=START - 300 * MINUTE, seed=1), CATALOG))
    reservoir.add(arrays("fraud", frauds(100, way=1, start=START + 390 * MINUTE, seed=2), CATALOG))
    records = frauds(400, way=1)
    mix = mix_of(planned(reservoir=kept, replay=0.25, holdout=0.2), records)
    assert (mix.new, mix.replayed, mix.learning) == (400, round(320 / 3), 320 + round(320 / 3))
    time_ = mix.examples["time"]
    assert time_[: mix.learning].max() < time_[mix.learning : mix.judging].min()
    assert time_[mix.learning : mix.judging].max() < time_[mix.judging :].min()
    assert len(np.unique(mix.examples["key"])) == len(mix.examples)
    assert (len(mix.examples) - mix.judging, mix.judging - mix.learning) == (40, 40)


def test_of_what_is_handed_over_to_train_all_does_where_what_to_stop_by_comes_beside_it(planned, tmp_path):
    kept = {"folder": str(tmp_path / "kept"), "rows": 300, "bytes": 1 << 20}
    records, holding = frauds(200, way=1), frauds(60, way=1, start=START + 200 * MINUTE, seed=1)
    Reservoir(tmp_path / "kept", FRAUD, rows=300, bytes_=1 << 20).add(arrays("fraud", holding[:30], CATALOG))
    mix = mix_of(planned(reservoir=kept, period="any"), records, holding)
    keys = [arrays("fraud", each, CATALOG)["key"] for each in (records, holding)]
    assert mix.examples["key"][: mix.learning].tolist() == keys[0].tolist(), "and no replay of what is to stop by"
    assert mix.examples["key"][mix.learning :].tolist() == keys[1].tolist()
    assert (mix.held_back, mix.judging - mix.learning) == (0, 30)


def test_what_a_fine_tune_was_stopped_by_is_not_kept_for_replay_and_the_manifest_says_how_many_trained(
    planned, champions, capsys, tmp_path
):
    kept = {"folder": str(tmp_path / "kept"), "rows": 500, "bytes": 1 << 20}
    held = tmp_path / "held.avro"
    digest = write_examples(held, frauds(100, way=1, start=START + 300 * MINUTE, seed=1))
    path = planned(
        records=frauds(300, way=1), holding=[{"path": str(held), "sha256": digest}], reservoir=kept, period="any",
        recipe=RECIPE | {"mode": "head"},
    )  # fmt: skip
    code, said = ran(path, capsys)
    assert code == 0
    trained = champions("fraud")[0].open("fraud", said["made"]).manifest.trained
    assert (trained["examples"], trained["held_out"], trained["held_back"]) == (300, 100, 0)
    assert len(Reservoir(tmp_path / "kept", FRAUD, rows=500, bytes_=1 << 20)) == 300


def test_what_is_handed_over_is_new_and_never_replayed_whatever_the_reservoir_has(planned, tmp_path):
    kept = {"folder": str(tmp_path / "kept"), "rows": 300, "bytes": 1 << 20}
    records = frauds(200, way=1)
    Reservoir(tmp_path / "kept", FRAUD, rows=300, bytes_=1 << 20).add(arrays("fraud", records[:50], CATALOG))
    mix = mix_of(planned(reservoir=kept), records)
    assert (mix.new, mix.replayed) == (200, 0)


def test_what_was_drawn_before_a_kill_is_drawn_again_whatever_was_kept_since(planned, tmp_path):
    path = planned(reservoir={"folder": str(tmp_path / "kept"), "rows": 500, "bytes": 1 << 20})
    reservoir = Reservoir(tmp_path / "kept", FRAUD, rows=500, bytes_=1 << 20)
    reservoir.add(arrays("fraud", frauds(200, way=-1, start=START - 300 * MINUTE), CATALOG))
    records = frauds(200, way=1)
    first = mix_of(path, records)
    reservoir.add(arrays("fraud", records, CATALOG))
    assert mix_of(path, records).examples.tobytes() == first.examples.tobytes()


def test_frauds_that_are_newer_than_all_innocents_wait_and_are_kept(planned, tmp_path, capsys):
    records = frauds(300, way=1)
    hasty = [
        record("fraud", f"new{number}", 1.0, START + (400 + number) * MINUTE, records[number]["features"])
        for number in range(30)
    ]
    kept = {"folder": str(tmp_path / "kept"), "rows": 500, "bytes": 1 << 20}
    code, said = ran(planned(records=[*records, *hasty], reservoir=kept, recipe=RECIPE | {"mode": "head"}), capsys)
    assert code == 0
    assert said["examples"]["held_back"] >= 30
    assert said["examples"]["new"] <= 300
    reservoir = Reservoir(tmp_path / "kept", FRAUD, rows=500, bytes_=1 << 20)
    assert len(reservoir) == 330
    assert is_positive(FRAUD, reservoir.examples[-30:]).all()


# -- what is refused


def refused(path: Path, capsys) -> str:
    code, said = ran(path, capsys)
    assert code == 3
    assert said["task"] == "fraud"
    return f"{said['kind']}: {said['refused']}"


def test_examples_other_than_the_plan_names_are_refused(planned, capsys, tmp_path):
    path = planned()
    plan = read_plan(path)
    plan.examples[0].path.write_bytes(b"other")
    assert "TrainingError: sha256" in refused(path, capsys)


def test_a_champion_that_is_not_there_is_refused(planned, capsys):
    assert "ReleaseError: no release fraud/none" in refused(planned(champion="none"), capsys)


def test_orders_of_one_kind_are_refused(planned, capsys):
    records = [{**each, "label": 0.0} for each in frauds(100, way=1)]
    assert "0 positives among the 80 examples" in refused(planned(records=records), capsys)


def test_a_bad_example_refuses_the_run_and_names_it(planned, capsys):
    records = frauds(100, way=1)
    records[70]["label"] = float("nan")
    assert f"label nan; at example {records[70]['example_id']}" in refused(planned(records=records), capsys)


def test_more_memory_than_allowed_is_refused_and_says_where(planned, champions, capsys):
    before = champions("fraud")[0].list("fraud")
    assert "MB of memory; at read; expected at most 5 MB" in refused(planned(memory_mb=5), capsys)
    assert champions("fraud")[0].list("fraud") == before


def test_a_process_that_holds_too_much_ends_at_once_and_says_so(tmp_path):
    """Within what it can touch between two looks, and not at the end of the part."""
    code = """
import json, os
import numpy as np
from finetune.parts import Parts, resident_mb

def end(error):
    print(json.dumps([str(error), resident_mb() - begun]), flush=True)
    os._exit(3)

begun = resident_mb()
parts = Parts(begun + 200)
parts.watch(end)
with parts.timed("read"):
    held = [np.ones(250_000) for _ in range(2_000)]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    said, held = json.loads(done.stdout)
    assert "MB of memory; at read; expected at most" in said
    assert 200 < held < 1_000, "of the 4,000 that it would have taken"


def test_a_fine_tune_in_a_process_of_its_own_is_ended_while_it_runs(planned):
    path = planned(memory_mb=150)  # its libraries alone are more
    done = subprocess.run(
        [sys.executable, "-m", "finetune.run", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    (line,) = done.stdout.splitlines()
    assert "MB of memory; at " in json.loads(line)["refused"]
    assert not (read_plan(path).out / "result.json").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [(checkpoints, "write"), (releasing, "export"), (ReleaseStore, "publish"), (Reservoir, "_write")],
)
def test_a_disk_that_is_full_refuses_the_run_which_then_goes_on_when_there_is_room(
    planned, champions, capsys, tmp_path, monkeypatch, module, name
):
    """At a checkpoint, at the export, at the release, and when it has been made and is to be replayed later."""
    store, _ = champions("fraud")
    before = store.list("fraud")
    path = planned(
        recipe=RECIPE | {"mode": "head"}, trained={"full at": name},
        reservoir={"folder": str(tmp_path / "kept"), "rows": 500, "bytes": 1 << 20},
    )  # fmt: skip

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        assert "OSError: [Errno 28] No space left on device" in refused(path, capsys)
    made = store.list("fraud")[len(before) :]
    assert len(made) == (module is Reservoir), "what is there is whole"
    code, said = ran(path, capsys)
    assert code == 0
    assert store.list("fraud") == [*before, said["made"]]
    assert store.open("fraud", said["made"]).manifest.trained["full at"] == name


def test_a_candidate_that_is_no_better_is_not_made(planned, champions, capsys):
    """The labels are drawn by lot, and the rate is far too high."""
    rng = np.random.default_rng(0)
    records = [{**each, "label": float(rng.random() < 0.5)} for each in frauds(200, way=1)]
    before = champions("fraud")[0].list("fraud")
    path = planned(records=records, recipe=RECIPE | {"rate": 0.9, "patience": 2})
    assert "better than the champion" in refused(path, capsys)
    assert champions("fraud")[0].list("fraud") == before


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"task": "weather"}, "no task named 'weather'"),
        ({"replay": 1.0}, "replay: "),
        ({"surprise": 1}, "surprise: "),
        ({"examples": []}, "examples: "),
        ({"recipe": {"mode": "some"}}, "mode = 'some'"),
        ({"recipe": {"speed": 1}}, "speed"),
    ],
)
def test_a_plan_that_cannot_be_used_is_one_clear_line(planned, capsys, over, said):
    assert run.main([str(planned(**over))]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_plan_that_is_not_there_is_one_clear_line(capsys, tmp_path):
    assert run.main([str(tmp_path / "none.json")]) == 2
    assert "the plan cannot be read" in capsys.readouterr().err
    assert run.main([]) == 2
    assert "expected PLAN.json" in capsys.readouterr().err


def test_the_cost_of_a_part_is_its_own():
    """In a process of its own: this one may have freed memory that it keeps."""
    code = """
import json
import numpy as np
from finetune.parts import Parts

clock = iter([0.0, 1.5, 2.0, 2.25, 3.0, 4.0])
parts = Parts(now=lambda: next(clock))
with parts.timed("large"):
    held = np.ones(25_000_000)
    del held
for _ in range(2):
    with parts.timed("small"):
        pass
print(json.dumps([parts.seconds, parts.peak_mb]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, peak_mb = json.loads(done.stdout)
    assert seconds == {"large": 1.5, "small": 1.25}
    assert peak_mb["large"] > peak_mb["small"] + 100
