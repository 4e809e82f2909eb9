"""The reasons of dead letters are one list, `BadRecord.CODES`: the code, the help and the documents know no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import unstyle
from typer.testing import CliRunner

from schemas.errors import BadRecord
from streams.cli import app

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "engines", "streams", "finetune")
OPERATE = (ROOT / "docs" / "operate.md").read_text("utf-8")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield path, ast.parse(path.read_text("utf-8"))


def strings(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_error_is_of_a_reason_in_the_list() -> None:
    wrong = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "BadRecord":
                code = node.args[0] if node.args else None
                if isinstance(code, ast.Constant) and code.value not in BadRecord.CODES:
                    wrong.append(f"{path}:{node.lineno}: {code.value!r}")
    assert not wrong


def test_every_reason_in_the_list_is_given_somewhere() -> None:
    used = set().union(*(strings(node) for path, tree in trees() for node in ast.walk(tree) if is_raised(node)))
    assert set(BadRecord.CODES) <= used


def is_raised(node: ast.AST) -> bool:
    """A call that makes an error: of a name that says so, or of the base's constructor."""
    return isinstance(node, ast.Call) and bool(re.search(r"Record|_Bad|_bad|__init__|refus", ast.unparse(node.func)))


@pytest.mark.parametrize("command", ["list", "replay"])
def test_the_help_names_them_all(command: str) -> None:
    found = CliRunner().invoke(app, ["deadletters", command, "--help"], env={"COLUMNS": "400", "TERM": "dumb"})
    said = re.search(r"Reasons are ([\w, ]+)\.", " ".join(unstyle(found.stdout).split()))
    assert said
    assert tuple(said[1].split(", ")) == BadRecord.CODES


def test_the_documents_name_them_all_and_in_this_order() -> None:
    entry = OPERATE.partition("\n### BadRecord\n")[2].partition("\n### ")[0]
    listed = re.search(r"`code`: ([^.]+)\.", " ".join(entry.split()))
    assert listed
    assert tuple(re.findall(r"`(\w+)`", listed[1])) == BadRecord.CODES
    part = OPERATE.partition("\n## Dead letters\n")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == BadRecord.CODES
