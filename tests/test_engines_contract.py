"""Every backend, on every task, keeps every promise of the engine contract; and opening one fails clearly."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engines
from engines import BACKENDS, open_engine
from engines.base import Engine
from schemas.errors import EngineError
from tests.checks_engine import BUCKETS, CHECKS
from tests.engine_backends import at_hand
from tests.engine_releases import TASKS, release


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend, as it is opened."""
    with at_hand(request.param) as opened:
        yield opened


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("check", CHECKS)
def test_backend(backend: str, task: str, check: str) -> None:
    def make() -> Engine:
        return open_engine(backend, release(task), precision="f32", buckets=BUCKETS, threads=1)

    CHECKS[check](make)


def test_the_serving_precision_keeps_the_promises_too() -> None:
    for name in (
        "a_row_depends_on_neither_its_place_nor_its_neighbours",
        "two_engines_of_a_release_agree_bit_for_bit",
    ):
        for task in TASKS:
            CHECKS[name](
                lambda task=task: open_engine(  # type: ignore[misc]
                    "openvino", release(task), precision="bf16", buckets=BUCKETS, threads=1
                )
            )


def test_an_unknown_backend_is_named_with_the_known_ones() -> None:
    with pytest.raises(EngineError, match=r"'tensorflow'.*openvino, eager, .*null"):
        open_engine("tensorflow", release("fraud"), precision="f32", buckets=(1,), threads=1)


def test_a_backend_whose_library_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.BACKENDS, "lost", "no_such_library.engine:Engine")
    with pytest.raises(EngineError, match=r"no_such_library.*install"):
        open_engine("lost", release("fraud"), precision="f32", buckets=(1,), threads=1)


@pytest.mark.parametrize("backend", ["openvino", "eager"])
def test_an_unknown_precision_is_refused(backend: str) -> None:
    with pytest.raises(EngineError, match=r"int4.*f32, bf16"):
        open_engine(backend, release("fraud"), precision="int4", buckets=(1,), threads=1)


@pytest.mark.parametrize("buckets", [(), (0, 8), (-1,), (1, 5000)])
def test_buckets_that_cannot_be_used_are_refused(buckets: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"engine\.buckets"):
        open_engine("null", release("fraud"), precision="f32", buckets=buckets, threads=1)


def test_serving_needs_no_torch() -> None:
    parts = (
        "base",
        "openvino",
        "null",
        "releases",
        "slot",
        "tables",
        "encoder",
        "parity",
        "signatures",
        "samples",
    )
    code = f"import sys, {', '.join(f'engines.{part}' for part in parts)}\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
