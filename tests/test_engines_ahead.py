"""Compiling ahead: another process compiles, this one loads; what goes wrong there is said and breaks nothing here."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import compiled
from engines.ahead import compiled_ahead
from engines.compiled import Build, load_blob
from engines.openvino import OpenVinoEngine
from engines.samples import sample
from engines.slot import load
from engines.tables import ItemTower
from schemas.errors import EngineError
from tests.engine_releases import SMALL, release

PYTHON = sys.executable
HOW: dict[str, Any] = {"precision": "f32", "buckets": (1, 4), "threads": 1}


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in place of the process that compiles."""
    script = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(script))
    return script


def says(script: Path, body: str) -> None:
    script.write_text(f"#!{PYTHON}\n{body}\n")
    script.chmod(0o755)


@pytest.mark.parametrize("task", ["fraud", "recommendations", "ctr"])
def test_what_was_compiled_ahead_answers_bit_by_bit_as_what_was_compiled_here(task: str) -> None:
    here = load(release(task), backend="openvino", **HOW)
    there = load(release(task), backend="openvino", **HOW, ahead=True)
    for rows in (1, 3):
        inputs = sample(here.engine.signature, rows)
        expected, found = here.engine.infer(inputs).outputs, there.engine.infer(inputs).outputs
        assert all(np.array_equal(expected[name], found[name]) for name in expected)
    text, scalars = np.ones((5, SMALL["text_width"]), np.float32), np.ones((5, 8), np.float32)
    catalogue = (text, scalars, np.zeros(5, np.int32), np.zeros(5, np.float32))
    here.refresh(*catalogue)
    there.refresh(*catalogue)
    assert np.array_equal(here.table, there.table)


def test_nothing_is_compiled_here_once_it_was_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    source = release("fraud")
    ready = compiled_ahead(source, [*OpenVinoEngine.builds(source, **HOW), ItemTower.build(source)])
    monkeypatch.delattr(compiled, "compile_graph")
    OpenVinoEngine(ready, **HOW).close()
    ItemTower(ready)


def test_other_shapes_than_were_compiled_ahead_are_compiled_here() -> None:
    source = release("fraud")
    ready = compiled_ahead(source, OpenVinoEngine.builds(source, **HOW))
    engine = OpenVinoEngine(ready, **{**HOW, "buckets": (2,)})
    assert engine.infer(sample(engine.signature, 2)).bucket == 2


def test_a_graph_that_cannot_be_compiled_is_refused_with_the_other_process_s_words() -> None:
    source = release("fraud")
    broken = Build("model.onnx", "f32", 1, {"fields": (4, 99)})
    with pytest.raises(EngineError, match=r"fraud/.* not compiled: the graph cannot be compiled"):
        compiled_ahead(source, [broken])


def test_a_compiler_that_crashes_ends_alone(other: Path) -> None:
    says(other, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(EngineError, match="it ended by SIGSEGV"):
        load(release("fraud"), backend="openvino", **HOW, ahead=True)


def test_a_compiler_that_hangs_is_ended(other: Path) -> None:
    says(other, "import time; time.sleep(60)")
    source = release("fraud")
    with pytest.raises(EngineError, match=r"longer than 0\.2 s"):
        compiled_ahead(source, OpenVinoEngine.builds(source, **HOW), patience_s=0.2)


@pytest.mark.parametrize("cut", ["b''", "b'\\0' * 7", "b'\\0' * 7 + b'\\x09' + b'short'"])
def test_half_of_an_answer_is_none(other: Path, cut: str) -> None:
    says(other, f"import sys; sys.stdout.buffer.write({cut})")
    source = release("fraud")
    with pytest.raises(EngineError, match="0 of 2 graphs came back"):
        compiled_ahead(source, OpenVinoEngine.builds(source, **HOW))


def test_a_blob_that_is_no_compiled_graph_is_refused() -> None:
    with pytest.raises(EngineError, match="compiled graph cannot be loaded"):
        load_blob(b"not a graph", precision="f32", threads=1)


def test_a_machine_that_starts_no_process_refuses_the_release(other: Path) -> None:
    source = release("fraud")
    with pytest.raises(EngineError, match="no process for it could be started"):
        compiled_ahead(source, OpenVinoEngine.builds(source, **HOW))


def test_the_process_that_compiles_loads_the_compiler_and_little_else() -> None:
    loaded = "import sys, engines.ahead; print(*sorted(sys.modules))"
    found = subprocess.run([PYTHON, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    assert "openvino" in found
    assert not {"pydantic", "fsspec", "torch", "engines.releases"} & set(found)
