"""The gate inside the fine-tune: its report is part of the release, whatever it says, and its window teaches nobody."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.openvino import OpenVinoEngine
from engines.parity import Report
from engines.probe import PROBE, certify
from engines.releases import ReleaseStore
from finetune import run
from finetune.evidence import GateReport
from finetune.example_files import write_catalog, write_examples
from finetune.examples import Examples, examples_of, source_key
from finetune.judging import Material, judged, taught_of
from finetune.plan import Gate, read_plan
from finetune.problems import Finish
from finetune.release import BUCKET, Compiled, vector_table
from finetune.reservoir import Reservoir
from finetune.traits import bands, columns, history, slices
from streams.tasks import make_task
from tests.finetune_examples import (
    MINUTE,
    START,
    arrays,
    frauds,
    problem_of,
    rare,
    record,
    slates,
    small_catalog,
    small_model,
    small_release,
    wishes,
)

pytestmark = pytest.mark.usefixtures("torch_as_it_was")

CATALOG = small_catalog()
FRAUD = make_task("fraud")
RECIPE = {"mode": "full", "batch": 64, "rate": 5e-3, "evaluate_every": 5}
GATE = {"labels": 200, "positives": 50, "budget_ms": 60_000.0, "seed": 1}
CERTIFICATE = Report(512, "f32", "openvino", 1.0, 0.0, 0.0, 1.0, 0.0, 1.0)
LATER = START + 6_000 * MINUTE
Planned = Callable[..., Path]
Records = list[dict[str, Any]]


def ran(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code = run.main([str(path)])
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == 0, said
    return said


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseStore, Planned]:
    """A store with a champion that has learned what fraud looks like, and a maker of plans that go on from it."""
    folder = tmp_path_factory.mktemp("shop")
    store = ReleaseStore(str(folder / "store"))
    champion = small_release(small_model("fraud"), store).version
    catalog = write_catalog(folder / "catalog.npz", CATALOG)

    def planned(records: Records, window: Sequence[dict[str, Any]] = (), **over: Any) -> Path:
        name = f"plan{len(list(folder.glob('*.json')))}"
        files = {}
        for kind, held in (("examples", records), ("window", window)):
            path = folder / f"{name}-{kind}.avro"
            files[kind] = [{"path": str(path), "sha256": write_examples(path, held)}] if held else []
        said = {
            "task": "fraud", "champion": champion, "store": store.url, "out": str(folder / name), "recipe": RECIPE,
            "catalog": {"path": str(folder / "catalog.npz"), "sha256": catalog}, **files,
        } | over  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(said))
        return folder / f"{name}.json"

    assert run.main([str(planned(rare(4000, seed=9, start=START - 9_000 * MINUTE)))]) == 0
    champion = store.list("fraud")[-1]
    return store, planned


@pytest.fixture(scope="module")
def honest(shop: tuple[ReleaseStore, Planned]) -> Path:
    """A plan with a gate, whose window has one event that is handed over for training, too."""
    window = rare(4000, seed=2, start=LATER)
    return shop[1](
        [*rare(5000, seed=1), window[0]], window, gate=GATE, holdout=0.5,
        reservoir={"folder": str(Path(shop[0].url) / "kept"), "rows": 9000},
    )  # fmt: skip


def test_an_honest_candidate_passes_and_its_manifest_holds_the_report(
    shop: tuple[ReleaseStore, Planned], honest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also: run again after a kill that came after the release was there, it says the same of the same release."""
    said = ran(honest, capsys)
    assert said["verdict"] == "pass", [each for each in said["gate"]["checks"] if not each["passed"]]
    release = shop[0].open("fraud", said["made"])
    report = GateReport.from_dict(release.manifest.metrics["gate"])
    assert report.as_dict() == said["gate"]
    assert {"never trained", "p99", "certificate", "pr_auc", "alerts", "slices"} <= {one.name for one in report.checks}
    assert {name.partition("=")[0] for name in report.slices} <= {"history", "price", "hour", "card"}
    assert said["window"]["candidate"]["pr_auc"] > 0.5
    assert said["candidate"]["metrics"].keys().isdisjoint({"gate", "window"})
    assert sum(said["examples"]["sources"].values()) == said["examples"]["read"]
    assert said["examples"]["sources"].keys() == {"", "chargeback"}
    versions = shop[0].list("fraud")
    (read_plan(honest).out / run.RESULT).unlink()
    again = ran(honest, capsys)
    assert [again[key] for key in ("made", "verdict", "gate", "window")] == [
        said[key] for key in ("made", "verdict", "gate", "window")
    ]
    assert shop[0].list("fraud") == versions


def test_what_was_released_carries_a_probe_that_small_buckets_can_answer(
    shop: tuple[ReleaseStore, Planned], honest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = shop[0].open("fraud", ran(honest, capsys)["made"])
    assert release.manifest.files[PROBE].size < 2 << 20
    for precision in ("f32", "bf16"):
        engine = OpenVinoEngine(release, precision=precision, buckets=(1, 8), threads=1)
        assert certify(engine, release).rows == 64
        engine.close()


def test_the_window_never_trains(
    shop: tuple[ReleaseStore, Planned], honest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even an event that was handed over for both, now or by way of the reservoir."""
    said = ran(honest, capsys)
    assert said["examples"]["new"] + said["examples"]["held_back"] == len(rare(5000, seed=1))
    kept = Reservoir(Path(shop[0].url) / "kept", FRAUD, rows=9000, bytes_=64 << 20)
    window = arrays("fraud", rare(4000, seed=2, start=LATER), CATALOG)
    assert len(kept) == len(rare(5000, seed=1))
    assert not np.isin(kept.examples["key"], window["key"]).any()


def test_a_candidate_of_shuffled_labels_is_refused_with_reasons_and_is_kept(
    shop: tuple[ReleaseStore, Planned], capsys: pytest.CaptureFixture[str]
) -> None:
    records = rare(4000, seed=4)
    labels = np.random.default_rng(0).permutation([each["label"] for each in records]).tolist()
    shuffled = [{**each, "label": label} for each, label in zip(records, labels, strict=True)]
    said = ran(shop[1](shuffled, rare(4000, seed=5, start=LATER), gate=GATE), capsys)
    assert said["verdict"] == "refuse"
    report = GateReport.from_dict(shop[0].open("fraud", said["made"]).manifest.metrics["gate"])
    assert "pr_auc" in report.reasons
    assert report.as_dict() == said["gate"]


def test_a_gate_without_a_window_refuses(
    shop: tuple[ReleaseStore, Planned], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = shop[1](frauds(1800, way=1, seed=6), gate=GATE, recipe=RECIPE | {"mode": "head"})
    said = ran(plan, capsys)
    assert said["verdict"] == "refuse"
    assert {"enough labels", "enough positives"} <= set(GateReport.from_dict(said["gate"]).reasons)
    assert said["window"] == {"champion": {}, "candidate": {}}


def test_window_and_gate_are_part_of_what_a_plan_is(shop: tuple[ReleaseStore, Planned], tmp_path: Path) -> None:
    records, window = frauds(10, way=1), frauds(10, way=1, seed=3)
    plans = [
        shop[1](records), shop[1](records, window), shop[1](records, window[:9]), shop[1](records, window, gate=GATE),
        shop[1](records, window, gate=GATE | {"seed": 2}), shop[1]([*records, *window]),
    ]  # fmt: skip
    assert len({read_plan(path).identity for path in plans}) == len(plans)
    moved = json.loads(plans[1].read_text())
    moved["window"][0]["path"] = "elsewhere.avro"
    (tmp_path / "moved.json").write_text(json.dumps(moved))
    assert read_plan(tmp_path / "moved.json").identity == read_plan(plans[1]).identity


# -- the evidence, of every task


def material(window: Examples, taught: Examples, kept: Examples, share: float = 0.5, **over: Any) -> Material:
    said: dict[str, Any] = {"replayed": kept["key"][:0], "sources": {source_key("chargeback"): "chargeback"}} | over
    return Material(window, taught, kept, np.full(len(kept), share), **said)


@pytest.mark.parametrize("task", ["fraud", "ctr", "recommendations"])
def test_a_release_beside_itself_passes_in_every_task(task: str, tmp_path: Path) -> None:
    """The same release as champion and candidate: no figure differs, on new and on old events."""
    records: dict[str, Callable[[int, int], Any]] = {
        "fraud": lambda seed, start: frauds(300, way=1, seed=seed, start=start),
        "ctr": lambda seed, start: slates(300, seed=seed, start=start),
        "recommendations": lambda seed, start: wishes(300, seed=seed, start=start),
    }
    taught, kept, window = (
        arrays(task, records[task](seed, start), CATALOG)
        for seed, start in ((1, START), (2, START - 10_000 * MINUTE), (3, LATER))
    )
    store = ReleaseStore(str(tmp_path))
    release = small_release(small_model(task), store)
    problem = problem_of(task, taught, CATALOG, release.manifest)
    engine = OpenVinoEngine(release, precision="f32", buckets=(BUCKET,), threads=1)
    finish = Finish(dict(release.manifest.calibration), dict(release.manifest.settings), {})
    candidate = Compiled(release, engine, vector_table(problem, release), CERTIFICATE, finish)
    rule = Gate(labels=100, positives=20, budget_ms=60_000, seed=0)
    said = judged(problem, release, candidate, material(window, taught, kept), rule, 1)
    report = GateReport.from_dict(said["gate"])
    # Random weights are no probabilities, and bf16 differs from f32 by a little.
    assert not set(report.reasons) - {"calibration", "calibration by decile", "alerts"}, report.checks
    old = {"fraud": "old pr_auc", "ctr": "old normalised_entropy", "recommendations": "old ndcg"}[task]
    assert old in {each.name for each in report.checks}
    assert said["window"]["champion"].keys() == said["window"]["candidate"].keys() != set()
    engine.close()


def test_silence_and_old_records_are_no_repeats_and_no_one_user() -> None:
    told = frauds(50, way=1)
    bare = [
        {key: each[key] for key in each if key not in {"user_id", "source", "label_hash", "observed_at"}}
        for each in told
    ]
    problem = problem_of("fraud", arrays("fraud", told, CATALOG), CATALOG)
    for records in (told, bare):
        examples = arrays("fraud", records, CATALOG)
        features = np.zeros((len(examples), 1))
        taught = taught_of(problem, examples, features, material(examples, examples, examples))
        assert len(np.unique(taught.label_id)) == len(np.unique(taught.claim)) == len(np.unique(taught.user)) == 50
        assert (taught.observed_at > taught.event_time).all()
        assert set(taught.source.tolist()) == ({"", "chargeback"} if records is told else {""})


def test_the_reservoir_speaks_for_all_that_it_was_drawn_from() -> None:
    examples = arrays("fraud", frauds(50, way=1), CATALOG)
    problem = problem_of("fraud", examples, CATALOG)
    held = material(examples, examples, examples, contradictions=3)
    known = taught_of(problem, examples, np.zeros((50, 1)), held, np.full(50, 0.25))
    assert known.stands_for is not None
    assert known.stands_for.tolist() == known.weight.tolist() == [4.0] * 50
    assert known.contradictions == 0


def test_two_labels_of_one_revision_that_differ_are_counted() -> None:
    first = frauds(1, way=1)[0]
    other = {**first, "label": 1 - first["label"]}
    _, counts = examples_of(FRAUD, CATALOG, [first, other, first, {**other, "revision": 1}])
    assert (counts.contradicted, counts.repeated, counts.superseded) == (1, 2, 1)


# -- what a row says of its event


def test_traits_come_from_the_row_or_the_catalogue() -> None:
    examples = arrays("ctr", list(slates(40)), CATALOG)
    example, place = np.nonzero(examples["weight"] > 0)
    task = make_task("ctr")
    found = slices(task, CATALOG, examples, example, place)
    assert set(found["position"].tolist()) <= {"1", "2", "4"}
    assert set(found["history"].tolist()) == {"1-7"}
    assert set(found["price"].tolist()) == {"unknown"}  # no page item in these
    names, values = columns(task, CATALOG, examples["features"])
    assert (names, values.shape) == (("price", "ads", "mean bid"), (len(examples), 3))
    wished = arrays("recommendations", wishes(30), CATALOG)
    _, prices = columns(make_task("recommendations"), CATALOG, wished["features"])
    assert prices[:, 0].tolist() == [CATALOG.price(int(row)) for row in wished["features"]["now_item"]]
    assert history(np.zeros(2, task.features)).tolist() == ["none", "none"]
    assert bands(np.array([1.0, 2, 3, 4, 5, 6, np.nan])).tolist() == ["low"] * 2 + ["middle"] * 2 + ["high"] * 2 + [
        "unknown"
    ]


def test_an_example_says_who_said_so_and_when() -> None:
    row = frauds(1, way=1)[0]["features"]
    records = [
        record("fraud", "o1", 1.0, START, row, user_id="u", source="verdict", label_hash=-7, observed_at=START + 5),
        record("fraud", "o1", 0.0, START, row, user_id="u", source="chargeback", label_hash=9, revision=1),
    ]
    early, late = (arrays("fraud", records[:count], CATALOG)[0] for count in (1, 2))
    assert (early["source"].tolist(), early["label_id"].tolist()) == ([source_key("verdict")], [-7])
    assert (early["observed"].tolist(), late["label_id"].tolist()) == ([START + 5], [9])
    assert late["source"].tolist() == [source_key("chargeback")]
    assert early["user"] == late["user"] > 0
