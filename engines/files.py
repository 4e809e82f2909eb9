"""The files of a release folder: listing, digests, copying durably, and comparing with a manifest."""

import hashlib
import os
import shutil
from pathlib import Path

from engines.manifest import MANIFEST, FileEntry, Manifest, safe
from schemas.errors import ReleaseError

AGAIN = "copy it again from where it was made, or serve an older release"


def entries(folder: Path) -> dict[str, FileEntry]:
    """Size and sha256 of each file, by relative name. Raises ReleaseError for all but plain files."""
    found = {name: entry(folder / name) for name in names(folder)}
    if not found:
        raise ReleaseError("there are no files to release", where=str(folder))
    return found


def names(folder: Path) -> list[str]:
    """Relative names of all files but the manifest. A link is refused: it leads out of what is verified."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (path.is_dir() and not path.is_symlink()) or name == MANIFEST:
            continue
        if path.is_symlink() or not path.is_file() or not safe(name):
            raise ReleaseError(f"{name} is no plain file", where=str(folder), expected="files that a release can hold")
        found.append(name)
    return found


def entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)


def digest(files: dict[str, FileEntry]) -> str:
    """One sha256 over all names and contents."""
    lines = "".join(f"{name} {files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def verify(folder: Path, manifest: Manifest) -> None:
    """Raises ReleaseError that names the first file that is missing, foreign, cut short or changed."""
    where = f"{manifest.task}/{manifest.version} in {folder}"
    present = set(names(folder))
    for name, expected in manifest.files.items():
        if name not in present:
            raise ReleaseError(f"file {name} is missing", where=where, todo=AGAIN)
        found = entry(folder / name)
        if found.size != expected.size:
            size = f"{expected.size} bytes, not {found.size}"
            raise ReleaseError(f"file {name} was cut short or grew", where=where, expected=size, todo=AGAIN)
        if found.sha256 != expected.sha256:
            raise ReleaseError(
                f"file {name} was changed", where=where, expected=f"sha256 {expected.sha256}", todo=AGAIN
            )
    if foreign := sorted(present - set(manifest.files)):
        raise ReleaseError(f"file {foreign[0]} is not in the manifest", where=where, todo="remove it, or " + AGAIN)


def copy(source: Path, target: Path, manifest: Manifest) -> None:
    """Copies the manifest's files and writes the manifest last, each on the disk before the next."""
    for name in manifest.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        sync(target / name)
    write_manifest(target, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    sync(folder / MANIFEST)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
