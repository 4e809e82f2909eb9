"""What a release says of itself that answers "why": what it learned from, what it came from, how it was judged.
And whether it has learned from one example, which follows from the example's place on training.examples.
"""

from collections.abc import Mapping
from typing import Any

from engines.releases import Release, ReleaseStore
from schemas.errors import ReleaseError
from streams.tracing.reading import Found


def described(store: ReleaseStore, name: str) -> dict[str, Any]:
    """A release `task/version` for JSON; with `problem` alone where it is gone or damaged."""
    task, _, version = name.partition("/")
    try:
        release = store.open(task, version)
    except ReleaseError as error:
        return {"release": name, "problem": str(error)}
    return {"release": name, **summary(release)}


def summary(release: Release) -> dict[str, Any]:
    """Digest, when it was made, what trained it, its champion, its certificate and what the gate said, or null."""
    manifest = release.manifest
    trained, metrics = dict(manifest.trained), dict(manifest.metrics)
    champion, gate, certificate = trained.pop("champion", None), metrics.pop("gate", None), metrics.pop("parity", None)
    return {
        "digest": release.digest,
        "created_at": manifest.created_at,
        "champion": f"{release.task}/{champion}" if champion else None,
        "trained": trained,
        "metrics": metrics,
        "certificate": certificate,
        "gate": gate,
    }


def learned(trained: Mapping[str, Any], partition: int, offset: int, event_time: int) -> bool | None:
    """Whether a release has learned from the example at this place, by its manifest's `trained`; None: not known.

    `offsets`: {partition: [from, to)}. `standing`: before `start`, or before `end` and of an event time (UTC ms) up
    to `until`; what its ancestors have learned is in it.
    """
    part = str(partition)
    if isinstance(offsets := trained.get("offsets"), Mapping):
        try:
            start, end = offsets.get(part, (0, 0))
        except (TypeError, ValueError):
            return None
        return bool(start <= offset < end)
    standing = trained.get("standing")
    if not isinstance(standing, Mapping):
        return None
    try:
        before, up_to = (int(standing[name].get(part, 0)) for name in ("start", "end"))
        return offset < before or (offset < up_to and event_time <= int(standing["until"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def learners(store: ReleaseStore, task: str, examples: list[Found]) -> list[dict[str, Any]]:
    """By example: which releases of the task have learned from it, and which cannot say. Damaged ones are left out."""
    known = []
    for version in store.list(task):
        try:
            known.append((f"{task}/{version}", store.open(task, version).manifest.trained))
        except ReleaseError:
            continue
    rows = []
    for found in examples:
        place = found.partition, found.offset, int(found.record["event_time"])
        told = [(name, learned(trained, *place)) for name, trained in known]
        rows.append(
            {
                "trained": [name for name, said in told if said],
                "not_known": [name for name, said in told if said is None],
            }
        )
    return rows
