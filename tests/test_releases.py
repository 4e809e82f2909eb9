"""Releases: what is published is what is opened, or it is refused by the name of what is wrong."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import files
from engines.manifest import FORMAT, MANIFEST, Description, safe
from engines.releases import Release, ReleaseStore
from engines.signatures import SIZES, signature
from schemas.errors import ReleaseError, StoreUnavailable


def description(**said: Any) -> Description:
    config = {**SIZES, "task": "fraud"}
    return Description(signature=signature(config), config=config, **said)


def clock() -> Callable[[], datetime]:
    """A minute later each time it is asked."""
    times = iter(datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(minutes=step) for step in range(100))
    return lambda: next(times)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "plans").mkdir(parents=True)
    (made / "model.onnx").write_bytes(b"a graph" * 1000)
    (made / "plans" / "cpu.bin").write_bytes(b"a plan")
    return made


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(str(tmp_path / "store"), now=clock())


@pytest.fixture
def release(store: ReleaseStore, folder: Path) -> Release:
    return store.publish("fraud", folder, description(calibration={"a": 1.1, "b": -0.2}))


def test_what_is_published_is_what_is_opened(store: ReleaseStore, release: Release, folder: Path) -> None:
    opened = store.open("fraud", release.version)
    assert opened == release
    assert opened.manifest.calibration == {"a": 1.1, "b": -0.2}
    assert opened.manifest.signature == description().signature
    for name in ("model.onnx", "plans/cpu.bin"):
        assert opened.file(name).read_bytes() == (folder / name).read_bytes()


def test_a_version_names_its_time_and_content(release: Release) -> None:
    assert release.version.startswith("20260131T120000-")
    assert release.manifest.created_at == "2026-01-31T12:00:00.000+00:00"


def test_a_release_is_one_folder_of_its_files_and_a_manifest(tmp_path: Path, release: Release) -> None:
    folder = tmp_path / "store" / "fraud" / release.version
    assert sorted(files.names(folder)) == ["model.onnx", "plans/cpu.bin"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["format"] == FORMAT
    assert manifest["files"]["plans/cpu.bin"]["size"] == 6


def test_only_verified_files_are_handed_out(release: Release) -> None:
    for name in (MANIFEST, "other.bin", "../../secret"):
        with pytest.raises(ReleaseError, match="has no file"):
            release.file(name)


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    target = path.rename(path.parent.parent.parent / "elsewhere")
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("damage", "said"),
    [(change, "was changed"), (cut, "cut short"), (Path.unlink, "is missing"), (link, "no plain file")],
)
def test_damage_to_a_file_is_refused_by_its_name(
    store: ReleaseStore, release: Release, damage: Callable[[Path], None], said: str
) -> None:
    damage(release.folder / "model.onnx")
    with pytest.raises(ReleaseError, match=rf"model\.onnx.*{said}|{said}.*model\.onnx"):
        store.open("fraud", release.version)


def test_a_file_that_was_added_is_refused(store: ReleaseStore, release: Release) -> None:
    (release.folder / "model.onnx.data").write_bytes(b"weights of another")
    with pytest.raises(ReleaseError, match=r"model\.onnx\.data is not in the manifest"):
        store.open("fraud", release.version)


def edit(release: Release, change: Callable[[dict[str, Any]], None]) -> None:
    path = release.folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_newer_format_says_to_upgrade(store: ReleaseStore, release: Release) -> None:
    edit(release, lambda manifest: manifest.update(format=FORMAT + 1, invented={}))
    with pytest.raises(ReleaseError, match=r"format 2 is newer.*upgrade"):
        store.open("fraud", release.version)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}', b'{"format": "x"}'])
def test_a_manifest_that_is_none_is_refused(store: ReleaseStore, release: Release, text: bytes) -> None:
    (release.folder / MANIFEST).write_bytes(text)
    with pytest.raises(ReleaseError, match=r"manifest\.json"):
        store.open("fraud", release.version)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\b", "c:x", ".", "", MANIFEST, "a//b", "./a"])
def test_a_name_that_leads_out_of_the_release_is_refused(store: ReleaseStore, release: Release, name: str) -> None:
    edit(release, lambda manifest: manifest["files"].update({name: manifest["files"]["model.onnx"]}))
    with pytest.raises(ReleaseError, match="leads out"):
        store.open("fraud", release.version)


@settings(deadline=None)
@given(st.text())
def test_a_safe_name_stays_inside(name: str) -> None:
    if safe(name):
        assert os.path.normpath(f"/some/folder/{name}") == f"/some/folder/{name}"


def test_a_release_under_anothers_name_is_refused(store: ReleaseStore, release: Release) -> None:
    release.folder.rename(release.folder.with_name("other"))
    with pytest.raises(ReleaseError, match="the manifest is of fraud/"):
        store.open("fraud", "other")


def test_a_changed_manifest_is_refused_where_its_digest_is_known(store: ReleaseStore, release: Release) -> None:
    store.open("fraud", release.version, digest=release.digest)
    edit(release, lambda manifest: manifest["calibration"].update(a=9.0))
    with pytest.raises(ReleaseError, match="manifest was changed"):
        store.open("fraud", release.version, digest=release.digest)


def test_versions_are_listed_as_they_were_made_and_the_latest_is_the_last(store: ReleaseStore, folder: Path) -> None:
    made = []
    for step in range(3):
        (folder / "model.onnx").write_bytes(bytes([step]))
        made.append(store.publish("fraud", folder, description()).version)
    made.append(store.publish("fraud", folder, description(), version="by-hand").version)
    assert store.list("fraud") == made
    assert store.latest("fraud").version == "by-hand"
    assert store.list("ctr") == []


def test_a_damaged_manifest_is_listed_but_never_the_latest(store: ReleaseStore, folder: Path) -> None:
    first = store.publish("fraud", folder, description())
    second = store.publish("fraud", folder, description())
    (second.folder / MANIFEST).write_text("{")
    assert store.list("fraud") == [second.version, first.version]
    assert store.latest("fraud") == first


def test_what_is_not_there_is_said_with_what_is(store: ReleaseStore, release: Release) -> None:
    with pytest.raises(ReleaseError, match=f"no release fraud/other.*{release.version}"):
        store.open("fraud", "other")
    with pytest.raises(ReleaseError, match="no release of ctr"):
        store.latest("ctr")


def test_a_release_never_changes(store: ReleaseStore, release: Release, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"another graph")
    with pytest.raises(ReleaseError, match="exists"):
        store.publish("fraud", folder, description(), version=release.version)
    assert store.open("fraud", release.version) == release


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 200])
def test_names_that_cannot_be_folders_are_refused(store: ReleaseStore, folder: Path, name: str) -> None:
    with pytest.raises(ReleaseError, match="names no folder"):
        store.publish(name, folder, description())
    with pytest.raises(ReleaseError, match="names no folder"):
        store.open("fraud", name)


def test_an_interrupted_publish_leaves_nothing(
    store: ReleaseStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(ReleaseError, match="No space left"):
        store.publish("fraud", folder, description())
    assert store.list("fraud") == []
    assert list((tmp_path / "store" / "fraud").iterdir()) == []


def test_a_half_copied_release_is_none(store: ReleaseStore, release: Release) -> None:
    half = release.folder.with_name("half")
    half.mkdir()
    (half / "model.onnx").write_bytes(b"a gra")
    assert store.list("fraud") == [release.version]
    with pytest.raises(ReleaseError, match="no release fraud/half"):
        store.open("fraud", "half")


def test_a_folder_with_links_or_without_files_is_not_published(
    store: ReleaseStore, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReleaseError, match="no files"):
        store.publish("fraud", tmp_path / "empty", description())
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(ReleaseError, match="link is no plain file"):
        store.publish("fraud", folder, description())


@pytest.fixture
def remote(tmp_path: Path, request: pytest.FixtureRequest) -> ReleaseStore:
    """A store that is no local disk, of this test alone."""
    return ReleaseStore(f"memory://{request.node.name}", cache=tmp_path / "cache", now=clock())


def test_a_remote_release_is_copied_whole_and_verified(remote: ReleaseStore, folder: Path, tmp_path: Path) -> None:
    published = remote.publish("fraud", folder, description())
    assert remote.list("fraud") == [published.version]
    assert published.folder.is_relative_to(tmp_path / "cache")
    assert published.file("plans/cpu.bin").read_bytes() == b"a plan"


def test_a_damaged_copy_is_fetched_again(remote: ReleaseStore, folder: Path) -> None:
    published = remote.publish("fraud", folder, description())
    change(published.folder / "model.onnx")
    assert remote.open("fraud", published.version).file("model.onnx").read_bytes() == b"a graph" * 1000


def test_damage_in_a_remote_store_is_refused_by_name(remote: ReleaseStore, folder: Path, tmp_path: Path) -> None:
    published = remote.publish("fraud", folder, description())
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{remote.root}/fraud/{published.version}/model.onnx", b"another graph")
    other = ReleaseStore(remote.url, cache=tmp_path / "another-cache")
    with pytest.raises(ReleaseError, match=r"model\.onnx"):
        other.open("fraud", published.version)
    memory.rm_file(f"{remote.root}/fraud/{published.version}/plans/cpu.bin")
    with pytest.raises(ReleaseError, match="cannot be fetched"):
        other.open("fraud", published.version)


def test_two_that_fetch_at_once_end_with_one_copy(
    remote: ReleaseStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = remote.publish("fraud", folder, description())
    twin = ReleaseStore(remote.url, cache=remote.cache)
    change(published.folder / "model.onnx")
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        twin.open("fraud", published.version)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert remote.open("fraud", published.version) == published


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "memory://no-cache"])
def test_a_store_that_cannot_be_used_is_said_at_once(url: str) -> None:
    with pytest.raises(ReleaseError, match=url):
        ReleaseStore(url)


def test_a_store_that_is_away_is_told_from_a_release_that_is_not_in_it(store: ReleaseStore, release: Release) -> None:
    with pytest.raises(ReleaseError, match=f"no release fraud/none; .*one of: {release.version}") as missing:
        store.open("fraud", "none")
    assert not missing.value.retriable
    root = Path(store.root)
    root.rename(root.with_name("unmounted"))
    with pytest.raises(StoreUnavailable, match="the store does not answer") as away:
        store.open("fraud", release.version)
    assert away.value.retriable
    root.with_name("unmounted").rename(root)
    assert store.open("fraud", release.version).digest == release.digest
