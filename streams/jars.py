"""Fetches the Java parts of the embedded broker and registry once, into a cache, each pinned by its sha256.
`jars.lock` beside this file names every file; `python -m streams.jars` (`make lock`) writes it anew.
"""

import hashlib
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from jgo.maven import MavenContext, PythonResolver

from schemas.errors import DataUnavailable
from streams.config import default_data_dir
from streams.java import exclusive

LOCK = Path(__file__).with_name("jars.lock")
KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka logs through slf4j and brings no binding: without one its log is empty, a failed start unexplained.
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
REGISTRY = "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all"

Report = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The default report: progress is for a person and must not mix with a command's output."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Artefact:
    """One locked file: `coordinate` is group:name:version[:packaging:classifier], `size` is in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def is_registry(self) -> bool:
        return self.coordinate == REGISTRY


def read_lock(path: Path = LOCK) -> list[Artefact]:
    """The locked files, in the order of the lock file. Raises DataUnavailable if there is no lock file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise DataUnavailable("no list of Java files", where=str(path), todo="reinstall headrace") from error
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return [Artefact(coordinate, sha256, int(size)) for coordinate, sha256, size in rows]


def kafka_jars(cache: Path | None = None, report: Report = to_stderr) -> list[Path]:
    """The verified jars of the broker, fetched if need be. Raises DataUnavailable."""
    wanted = [artefact for artefact in read_lock() if not artefact.is_registry]
    cache = cache or default_data_dir() / "java"
    with exclusive(cache):
        return fetch(wanted, cache, f"Apache Kafka {KAFKA.split(':')[2]}", report)


def registry_folder(cache: Path | None = None, report: Report = to_stderr) -> Path:
    """The unpacked registry (it holds quarkus-run.jar), fetched if need be. Raises DataUnavailable."""
    (artefact,) = (artefact for artefact in read_lock() if artefact.is_registry)
    cache = cache or default_data_dir() / "java"
    folder = cache / f"registry-{artefact.sha256[:16]}"
    with exclusive(cache):
        if not folder.is_dir():
            (archive,) = fetch([artefact], cache, f"Apicurio Registry {REGISTRY.split(':')[2]}", report)
            try:
                _unpack(archive, folder)
                archive.unlink()
            except OSError as error:
                raise DataUnavailable(
                    f"could not unpack {archive.name}: {error.strerror}",
                    where=str(cache),
                    expected="200 MB of room",
                ) from error
    return folder


def fetch(wanted: list[Artefact], cache: Path, title: str, report: Report) -> list[Path]:
    """Paths of `wanted`, each checked against its sha256; those absent or damaged are fetched."""
    paths = {artefact: _path(artefact, cache) for artefact in wanted}
    missing = [artefact for artefact, path in paths.items() if not _intact(artefact, path)]
    if missing:
        total = sum(artefact.size for artefact in missing)
        report(f"fetching {title} ({len(missing)} files, {total / 1e6:.0f} MB) into {cache}, once")
        resolver = PythonResolver(progress_callback=_progress(total, title, report))
        context = MavenContext(repo_cache=cache, resolver=resolver, timeout=30)
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda artefact: _download(artefact, context, paths[artefact]), missing):
                pass
    return list(paths.values())


def _download(artefact: Artefact, context: MavenContext, path: Path) -> None:
    """Fetches one file; what is damaged or half-written is never left behind."""
    path.unlink(missing_ok=True)
    group, name, version, packaging, classifier = _split(artefact.coordinate)
    try:
        context.project(group, name).at_version(version).artifact(classifier, packaging).resolve()
        if not _intact(artefact, path):
            raise DataUnavailable(
                f"{path.name} is not the file that was pinned",
                where=artefact.coordinate,
                expected=f"sha256 {artefact.sha256}",
                todo="try again; if it stays, something between you and Maven Central changes files",
            )
    except (requests.RequestException, RuntimeError, OSError) as error:
        path.unlink(missing_ok=True)
        raise DataUnavailable(
            f"could not fetch {path.name}: {getattr(error, 'strerror', None) or type(error).__name__}",
            where=artefact.coordinate,
            expected="Maven Central within reach (once; HTTPS_PROXY and REQUESTS_CA_BUNDLE count)",
            todo="connect and run the command again; all but the demo can use a Kafka of yours (HEADRACE_BROKERS)",
        ) from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _intact(artefact: Artefact, path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != artefact.size:
        return False
    return _sha256(path) == artefact.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(coordinate: str) -> tuple[str, str, str, str, str]:
    group, name, version, packaging, classifier = (*coordinate.split(":"), "jar", "")[:5]
    return group, name, version, packaging, classifier


def _path(artefact: Artefact, cache: Path) -> Path:
    group, name, version, packaging, classifier = _split(artefact.coordinate)
    stem = f"{name}-{version}-{classifier}" if classifier else f"{name}-{version}"
    return cache / Path(*group.split("."), name, version, f"{stem}.{packaging}")


def _progress(
    total: int, title: str, report: Report
) -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
    """A progress callback for jgo that reports each tenth of all files together."""
    done = tenth = 0

    def add(count: int) -> None:
        nonlocal done, tenth
        done += count
        if done * 10 // total > tenth:
            tenth = done * 10 // total
            report(f"  {title}: {tenth * 10} % of {total / 1e6:.0f} MB")

    @contextmanager
    def one_file(name: str, size: int) -> Iterator[Callable[[int], None]]:
        yield add

    return one_file


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks files only, to a neighbour that is renamed last: a folder that exists is complete."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            source = tar.extractfile(member)
            if source is None:
                continue
            target = (partial / member.name).resolve()
            if not target.is_relative_to(partial.resolve()):
                raise DataUnavailable("an archive that writes outside its folder", where=str(archive))
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    partial.rename(folder)


def write_lock(cache: Path, path: Path = LOCK) -> None:
    """Resolves what Kafka needs and writes the lock file anew. Takes about half a minute."""
    context = MavenContext(repo_cache=cache, resolver=PythonResolver(), timeout=30)
    # Kafka alone: a second root's bill of materials would move the versions that Kafka was released with.
    inputs, transitive = context.resolver.resolve([context.create_dependency(KAFKA)])
    jars = {f"{d.groupId}:{d.artifactId}:{d.version}": d.artifact for d in (*inputs, *transitive)}
    for coordinate in (LOGGING, REGISTRY):
        group, name, version, packaging, classifier = _split(coordinate)
        jars[coordinate] = context.project(group, name).at_version(version).artifact(classifier, packaging)
    rows = ["# Java files of the embedded broker and registry: coordinate, sha256, bytes. Written by `make lock`."]
    for coordinate in sorted(jars):
        file = jars[coordinate].resolve()
        rows.append(f"{coordinate} {_sha256(file)} {file.stat().st_size}")
    path.write_text("\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    write_lock(default_data_dir() / "lock")
