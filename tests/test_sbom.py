"""The bills of materials name every pin of every image, each file by its digest."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BILLS: dict[str, dict[str, Any]] = runpy.run_path(str(ROOT / "deploy" / "sbom.py"))["bills"]()


@pytest.mark.parametrize("image", ["worker", "learner"])
def test_every_pin_is_a_component_with_its_digests(image: str) -> None:
    pins = (ROOT / f"requirements-{image}.txt").read_text("utf-8")
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", pins, re.MULTILINE))
    parts = BILLS[f"headrace-{image}"]["components"]
    assert {part["name"]: part["version"] for part in parts} == wanted
    digests = {each["content"] for part in parts for each in part["hashes"]}
    assert digests == set(re.findall(r"sha256:([0-9a-f]{64})", pins))


def test_every_java_file_is_a_component_with_its_digest() -> None:
    lines = [line for line in (ROOT / "streams/jars.lock").read_text("utf-8").splitlines() if not line.startswith("#")]
    parts = BILLS["headrace-embedded-servers"]["components"]
    assert sorted(part["hashes"][0]["content"] for part in parts) == sorted(line.split()[1] for line in lines)


@pytest.mark.parametrize("name", BILLS)
def test_references_are_unique_and_name_no_registry(name: str) -> None:
    references = [part["bom-ref"] for part in BILLS[name]["components"]]
    assert len(references) == len(set(references)) > 20
    assert all(reference.startswith(("pkg:pypi/", "pkg:maven/")) for reference in references)
