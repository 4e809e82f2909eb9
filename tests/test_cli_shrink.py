"""`headrace shrink` refuses what it cannot do before it reads a single event; what it makes is in test_cli_training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engines.releases import Release, ReleaseStore
from streams.cli import app
from tests.finetune_examples import small_model, small_release

pytestmark = pytest.mark.usefixtures("torch_as_it_was", "logging_as_it_was")


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return small_release(small_model("fraud"), ReleaseStore(str(tmp_path / "store")))


@pytest.fixture
def headrace(tmp_path: Path, release: Release, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """No broker is there, and none is asked."""
    monkeypatch.chdir(tmp_path)
    env = {"HEADRACE_RELEASE_STORE": str(tmp_path / "store"), "HEADRACE_BROKERS": "127.0.0.1:1"}
    return lambda line: CliRunner().invoke(app, line.split(), env=env, prog_name="headrace")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("fraud/nobody --hidden 8", 1, "no release fraud/nobody"),
        ("ctr --hidden 8", 1, "no release of ctr"),
        ("fraud --hidden 64", 2, "hidden 64; at --hidden; expected from 1 to 32"),
        ("fraud --layers 1", 2, "pruning takes no layers away; at --layers; expected one of hidden, heads; distil it"),
        ("fraud", 2, "nothing of fraud/"),
        ("fraud --by magic --hidden 8", 2, "'magic' is no way to shrink; at --by; expected prune or distill"),
        ("fraud --hidden 8 --from yesterday", 2, "'yesterday' is no time"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(headrace, line, code, said):
    result = headrace(f"shrink {line}")
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_release_that_was_tampered_with_teaches_nothing(headrace, release):
    graph = release.folder / "model.safetensors"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    result = headrace(f"shrink fraud/{release.version} --hidden 8")
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr
