"""A bill of materials for each image, CycloneDX 1.6, from the pins: `python deploy/sbom.py FOLDER`.
What is pinned is what is installed, by hash, so nothing is looked up; the same pins give the same bytes.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
JARS = ROOT / "streams" / "jars.lock"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)((?:.*\\\n)(?:\s+--hash=.*\n?)+)", re.MULTILINE)


def python_parts(pins: Path) -> Iterator[dict[str, Any]]:
    """A component for each pin, with the digest of every file that pip would take."""
    for name, version, rest in PIN.findall(pins.read_text("utf-8")):
        digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", rest)
        yield component("library", name, version, f"pkg:pypi/{name.lower()}@{version}", digests)


def java_parts() -> Iterator[dict[str, Any]]:
    """Of the embedded broker and registry, which the demo and the tests run; no image holds them."""
    for line in JARS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            coordinate, digest, _ = line.split()
            group, name, version, *_ = coordinate.split(":")
            yield component("library", f"{group}:{name}", version, f"pkg:maven/{group}/{name}@{version}", [digest])


def component(kind: str, name: str, version: str, purl: str, digests: list[str]) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": digest} for digest in digests]
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl, "hashes": hashes}


def bill(name: str, parts: Iterator[dict[str, Any]]) -> dict[str, Any]:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    unique = {(part["bom-ref"], *(each["content"] for each in part["hashes"])): part for part in parts}
    seen: dict[str, int] = {}
    for part in unique.values():  # one coordinate with two classifiers is two files
        count = seen[part["purl"]] = seen.get(part["purl"], 0) + 1
        part["bom-ref"] += f"#{count}" if count > 1 else ""
    subject = {"type": "application", "bom-ref": name, "name": name, "version": version}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": list(unique.values()),
    }


def bills() -> dict[str, dict[str, Any]]:
    return {
        "headrace-worker": bill("headrace-worker", python_parts(ROOT / "requirements-worker.txt")),
        "headrace-learner": bill("headrace-learner", python_parts(ROOT / "requirements-learner.txt")),
        "headrace-embedded-servers": bill("headrace-embedded-servers", java_parts()),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for title, content in bills().items():
        (folder / f"{title}.cdx.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        print(f"{folder / title}.cdx.json: {len(content['components'])} components")
