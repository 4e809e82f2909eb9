"""The probe: whoever serves asks its own engine what torch said, and serves nothing else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.eager import EagerEngine
from engines.export import export
from engines.null import NullEngine
from engines.openvino import OpenVinoEngine
from engines.parity import outputs
from engines.probe import PROBE, certify, write_probe
from engines.releases import Release, ReleaseStore
from engines.samples import sample
from schemas.errors import EngineError, ReleaseError
from tests.finetune_examples import small_model

TASKS = ("fraud", "ctr", "recommendations")
ROWS = 40
Made = Callable[[str], Release]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A release with its probe, by task."""
    releases: dict[str, Release] = {}

    def make(task: str) -> Release:
        if task not in releases:
            folder, store = tmp_path_factory.mktemp("made"), ReleaseStore(str(tmp_path_factory.mktemp("store")))
            description = export(small_model(task), folder)
            draft = ReleaseStore(str(tmp_path_factory.mktemp("drafts"))).publish(task, folder, description)
            inputs = sample(description.signature, ROWS, catalog=50)
            oracle = EagerEngine(draft, precision="f32", buckets=(64,), threads=1)
            write_probe(folder, inputs, outputs(oracle, inputs))
            releases[task] = store.publish(task, folder, description)
        return releases[task]

    return make


def compiled(release: Release, precision: str = "f32", buckets: tuple[int, ...] = (1, 8)) -> OpenVinoEngine:
    return OpenVinoEngine(release, precision=precision, buckets=buckets, threads=1)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_an_engine_of_small_buckets_is_certified_in_chunks(task: str, precision: str, made: Made) -> None:
    report = certify(compiled(made(task), precision), made(task))
    assert report.rows == ROWS


def test_an_engine_of_other_weights_is_refused(made: Made, tmp_path: Path) -> None:
    other = ReleaseStore(str(tmp_path / "store"))
    folder = tmp_path / "other"
    folder.mkdir()
    release = other.publish("fraud", folder, export(small_model("fraud", seed=1), folder))
    with pytest.raises(EngineError, match=r"differs from the oracle: .*max_difference"):
        certify(compiled(release), made("fraud"))


def changed(release: Release, folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> Release:
    """The release with another probe, in a folder that nobody verifies."""
    with np.load(release.folder / PROBE) as held:
        arrays = {name: held[name] for name in held.files}
    change(arrays)
    np.savez(folder / PROBE, **arrays)
    return dataclasses.replace(release, folder=folder)


def test_a_probe_that_was_changed_fails(made: Made, tmp_path: Path) -> None:
    def shifted(arrays: dict[str, np.ndarray]) -> None:
        arrays["output.logit"] = arrays["output.logit"] + 1

    engine = compiled(made("fraud"))
    with pytest.raises(EngineError, match="differs from the oracle"):
        certify(engine, changed(made("fraud"), tmp_path, shifted))


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("fraud", lambda arrays: arrays.pop("output.logit"), "output 'logit'"),
        ("fraud", lambda arrays: arrays.update({"output.logit": np.zeros(3, np.float32)}), "output 'logit'"),
        ("fraud", lambda arrays: arrays.pop("input.fields"), "no input 'fields'"),
        ("fraud", lambda arrays: arrays.update({"input.fields": arrays["input.fields"][:5]}), "rows"),
        ("fraud", lambda arrays: arrays.update({"input.fields": arrays["input.fields"][:, :5]}), "no input 'fields'"),
        ("recommendations", lambda arrays: arrays.pop("output.scores"), "output 'scores'"),
    ],
)
def test_a_probe_that_is_none_of_this_release_is_named(
    task: str, change: Callable[[dict[str, np.ndarray]], object], said: str, made: Made, tmp_path: Path
) -> None:
    engine = compiled(made(task))
    with pytest.raises(EngineError, match=f"{said}.*{made(task).version}"):
        certify(engine, changed(made(task), tmp_path, change))


def test_a_damaged_probe_is_named(made: Made, tmp_path: Path) -> None:
    for data in (b"", b"PK\x03\x04 no archive", (made("fraud").folder / PROBE).read_bytes()[:500]):
        (tmp_path / PROBE).write_bytes(data)
        with pytest.raises(EngineError, match="probe cannot be read"):
            certify(compiled(made("fraud")), dataclasses.replace(made("fraud"), folder=tmp_path))


def test_a_release_without_a_probe_says_so(made: Made, tmp_path: Path) -> None:
    manifest = made("fraud").manifest.model_copy(update={"files": {}})
    with pytest.raises(ReleaseError, match=PROBE):
        certify(compiled(made("fraud")), dataclasses.replace(made("fraud"), manifest=manifest))


def test_zeros_are_not_certified(made: Made) -> None:
    with pytest.raises(EngineError, match="no bounds for precision 'none'"):
        certify(NullEngine(made("fraud"), precision="f32", buckets=(8,), threads=1), made("fraud"))
