"""The Java files: pinned, verified, fetched once, and a clear word when they cannot be had."""

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pytest
from jgo.maven import PythonResolver

from schemas.errors import DataUnavailable
from streams.jars import Artefact, fetch, kafka_jars, read_lock, registry_folder

GOOD = b"what was pinned"
ARTEFACT = Artefact("org.example:thing:1.0", hashlib.sha256(GOOD).hexdigest(), len(GOOD))
PLACE = "org/example/thing/1.0/thing-1.0.jar"


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Replaces the download; the answer lists what was asked for."""
    asked: list[str] = []

    def download(self: PythonResolver, artifact: Any) -> Path:
        asked.append(artifact.filename)
        path: Path = artifact.cached_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    monkeypatch.setattr(PythonResolver, "download", download)
    return asked


def say_nothing(line: str) -> None:
    pass


def test_the_lock_pins_one_version_of_each_file() -> None:
    artefacts = read_lock()
    names = [artefact.coordinate.split(":")[1] for artefact in artefacts]
    assert len(names) == len(set(names)) > 40
    assert all(len(artefact.sha256) == 64 and artefact.size > 0 for artefact in artefacts)
    assert sum(artefact.is_registry for artefact in artefacts) == 1
    assert {"kafka_2.13", "kafka-clients", "log4j-slf4j-impl"} <= set(names)


def test_a_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = serve(monkeypatch, GOOD), list[str]()
    for _ in range(2):
        assert fetch([ARTEFACT], tmp_path, "Thing", said.append) == [tmp_path / PLACE]
    assert asked == ["thing-1.0.jar"]
    assert len(said) == 1
    assert "fetching Thing" in said[0]


def test_a_damaged_file_in_the_cache_is_fetched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, GOOD)
    damaged = tmp_path / PLACE
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(GOOD[::-1])
    fetch([ARTEFACT], tmp_path, "Thing", say_nothing)
    assert damaged.read_bytes() == GOOD


def test_a_file_other_than_the_pinned_one_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, GOOD[::-1])
    with pytest.raises(DataUnavailable, match="not the file that was pinned"):
        fetch([ARTEFACT], tmp_path, "Thing", say_nothing)
    assert not (tmp_path / PLACE).exists()


def test_without_network_it_says_what_is_missing_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for need in (kafka_jars, registry_folder):
        with pytest.raises(DataUnavailable, match=r"could not fetch .*Maven Central within reach.*HEADRACE_BROKERS"):
            need(tmp_path, say_nothing)
    assert not [path for path in tmp_path.rglob("*.jar*")]


def test_an_archive_that_writes_outside_its_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.tar.gz"
    with tarfile.open(bad, "w:gz") as tar:
        tar.add(__file__, arcname="../../escaped.py")
    monkeypatch.setattr("streams.jars.fetch", lambda *_: [bad])
    with pytest.raises(DataUnavailable, match="outside its folder"):
        registry_folder(tmp_path / "a" / "b", say_nothing)
    assert not list(tmp_path.rglob("escaped.py"))
