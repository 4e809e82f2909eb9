"""The release store: immutable folders `<store>/<task>/<version>/`, on a disk or anywhere that fsspec
reaches. A release appears whole or not at all, and every file is verified against the manifest before
anything is loaded.
"""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from engines import files
from engines.manifest import MANIFEST, Description, Manifest, parse
from schemas.errors import ReleaseError, StoreUnavailable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def utc_now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def renamed(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes its name when all went well: readers see it whole or not at all."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        yield partial
        os.rename(partial, folder)
        files.sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Release:
    """A verified release in a local folder. `digest`: sha256 of its manifest, and so of all that is in it.

    compiled: what a process of this machine has compiled of its graphs for this one (`engines.ahead`), by name.
    """

    manifest: Manifest
    folder: Path
    digest: str
    compiled: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def task(self) -> str:
        return self.manifest.task

    @property
    def version(self) -> str:
        return self.manifest.version

    def file(self, name: str) -> Path:
        """Raises ReleaseError for a file that the manifest does not list: it was never verified."""
        if name not in self.manifest.files:
            raise ReleaseError(f"{self.task}/{self.version} has no file {name}", where=str(self.folder))
        return self.folder / name


class ReleaseStore:
    """Publishes and opens releases; what is published never changes.

    url: a path or fsspec URL. cache: the folder for copies from a store that is not a local disk, needed only
    there.
    """

    def __init__(self, url: str, *, cache: Path | None = None, now: Callable[[], datetime] = utc_now) -> None:
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ReleaseError(
                f"the release store cannot be used: {error}", where=url, expected="a path or an fsspec URL"
            ) from error
        self.url, self.cache, self.now = url, cache, now
        self.local = isinstance(self.fs, LocalFileSystem)
        if not self.local and cache is None:
            raise ReleaseError("a store that is not a local disk needs a cache folder", where=url)

    def publish(self, task: str, folder: Path, description: Description, *, version: str = "") -> Release:
        """Copies the folder's files into the store and returns the release, verified.

        version: by default time and content, `20260131T120000-1f3a9c02`. Raises ReleaseError if it exists, or
        if the folder holds anything but plain files.
        """
        now, entries = self.now(), files.entries(folder)
        created_at = now.isoformat(timespec="milliseconds")
        # Equal files may be two releases of one second: what is said of them and the moment tell them apart.
        content = f"{files.digest(entries)} {created_at} {description.model_dump_json()}"
        version = version or f"{now:%Y%m%dT%H%M%S}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        path = self._path(task, version)
        manifest = Manifest(**dict(description), task=task, version=version, created_at=created_at, files=entries)
        if self.fs.exists(path):
            raise ReleaseError(
                f"release {task}/{version} exists", where=path, todo="a release never changes: make another"
            )
        try:
            (self._put_local if self.local else self._put_remote)(folder, path, manifest)
        except OSError as error:
            raise ReleaseError(f"the release cannot be written: {error}", where=path) from error
        return self.open(task, version)

    def open(self, task: str, version: str, *, digest: str | None = None) -> Release:
        """The release, every file verified. digest: the sha256 of the manifest, where it is known."""
        path = self._path(task, version)
        try:
            data: bytes = self.fs.cat_file(f"{path}/{MANIFEST}")
        except OSError as error:
            raise self._missing(task, version, path, error) from error
        manifest, found = parse(data, f"{path}/{MANIFEST}"), hashlib.sha256(data).hexdigest()
        if (manifest.task, manifest.version) != (task, version):
            raise ReleaseError(f"the manifest is of {manifest.task}/{manifest.version}", where=path, todo=files.AGAIN)
        if digest not in (None, found):
            raise ReleaseError("the manifest was changed", where=path, expected=f"sha256 {digest}", todo=files.AGAIN)
        folder = Path(path) if self.local else self._cached(path, manifest, found)
        files.verify(folder, manifest)
        return Release(manifest, folder, found)

    def _missing(self, task: str, version: str, path: str, error: OSError) -> ReleaseError:
        """A release that is not in the store, or a store that is not there."""
        try:
            away = not isinstance(error, FileNotFoundError) or not self.fs.exists(self.root)
        except OSError:
            away = True
        if away:
            return StoreUnavailable(
                f"no release {task}/{version}: the store does not answer ({type(error).__name__})",
                where=self.url,
                todo="look at `release_store`, and whether it is mounted; this is retried",
            )
        known = ", ".join(self.list(task)[-3:]) or "none"
        return ReleaseError(f"no release {task}/{version}", where=path, expected=f"one of: {known}")

    def list(self, task: str) -> list[str]:
        """The task's versions in the order they were made; a folder without a manifest is none."""
        try:
            manifests: list[str] = self.fs.glob(f"{self.root}/{task}/*/{MANIFEST}")
        except OSError:
            return []
        versions = [path.split("/")[-2] for path in manifests]
        return sorted(filter(NAME.fullmatch, versions), key=lambda version: (self._created(task, version), version))

    def latest(self, task: str) -> Release:
        """The release made last. Raises ReleaseError if there is none."""
        versions = self.list(task)
        if not versions:
            raise ReleaseError(f"no release of {task}", where=self.url, todo="train one, or set release_store")
        return self.open(task, versions[-1])

    def _path(self, task: str, version: str) -> str:
        for what, name in (("task", task), ("version", version)):
            if not NAME.fullmatch(name):
                raise ReleaseError(
                    f"{what} {name!r} names no folder", where=self.url, expected="letters, digits, - _ ."
                )
        return f"{self.root}/{task}/{version}"

    def _created(self, task: str, version: str) -> str:
        path = f"{self._path(task, version)}/{MANIFEST}"
        with suppress(ReleaseError, OSError):
            return parse(self.fs.cat_file(path), path).created_at
        return ""  # damaged: first, so that it is never the latest

    def _put_local(self, folder: Path, path: str, manifest: Manifest) -> None:
        with renamed(Path(path)) as partial:
            files.copy(folder, partial, manifest)

    def _put_remote(self, folder: Path, path: str, manifest: Manifest) -> None:
        for name in manifest.files:
            self.fs.put_file(str(folder / name), f"{path}/{name}")
        self.fs.pipe_file(f"{path}/{MANIFEST}", manifest.to_bytes())  # last: without it there is no release

    def _cached(self, path: str, manifest: Manifest, digest: str) -> Path:
        """The release's folder in the cache, whole; a damaged copy is fetched again."""
        assert self.cache is not None
        folder = self.cache / manifest.task / f"{manifest.version}-{digest[:16]}"
        with suppress(ReleaseError):
            files.verify(folder, manifest)
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with renamed(folder) as partial:
                for name in manifest.files:
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    self.fs.get_file(f"{path}/{name}", str(partial / name))
                files.write_manifest(partial, manifest)
        except OSError as error:
            if folder.exists():  # another process was first
                return folder
            raise ReleaseError(f"the release cannot be fetched: {error}", where=path, todo=files.AGAIN) from error
        return folder
