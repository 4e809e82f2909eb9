"""What is wrong with an installation, and what to do: each check asks the real thing and changes nothing.
Not monitoring: it is run once by a person, before a first start or after a bad night.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from schemas.errors import HeadraceError
from streams.config import Settings
from streams.doctor import cluster, machine, records, traces
from streams.doctor.finding import Finding

__all__ = ["CHECKS", "Finding", "examine"]

Check = Callable[[Settings], Iterator[Finding]]
Needs = Literal["broker", "registry", ""]


@dataclass(frozen=True, slots=True)
class Step:
    """`needs`: what must have been found well for the check to say anything."""

    check: Check
    needs: Needs = ""


CHECKS: dict[str, Step] = {
    "disk": Step(machine.disk),
    "ports": Step(machine.ports),
    "engine": Step(machine.engine),
    "releases": Step(machine.releases),
    "traces": Step(traces.traces),
    "broker": Step(cluster.broker),
    "registry": Step(cluster.registry),
    "clocks": Step(cluster.clocks, "broker"),
    "topics": Step(cluster.topics, "broker"),
    "rights": Step(cluster.rights, "broker"),
    "partitioner": Step(records.partitioner, "broker"),
    "contracts": Step(records.contracts, "registry"),
}


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn; one that cannot be made for want of another says so. Never raises a HeadraceError."""
    broken = set[str]()
    for name, step in CHECKS.items():
        if step.needs in broken:
            yield Finding(name, "skipped", f"not asked: the {step.needs} comes first")
            continue
        for finding in _found(name, step.check, settings):
            if finding.state == "problem":
                broken.add(name)
            yield finding


def _found(name: str, check: Check, settings: Settings) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except HeadraceError as error:
        yield Finding.of(name, error)
