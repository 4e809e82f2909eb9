"""What the gate is given, what it may let through, and what it says: three plain data types, no judgement in them.
All arrays of one part have the same length N, one row an event (ctr: a shown ad).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from engines.parity import Report
from schemas.errors import TrainingError

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Scores:
    """value: probabilities (N,) as served, calibrated; where the task ranks, scores (N, K), best first, with rows
    (N, K) of the catalogue.
    """

    value: Array
    rows: Array | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Matured labels and what both sides score on the same events.

    label (N,): 0 or 1, or the catalogue row that was wanted. weight (N,). time (N,): UTC ms of the event. user (N,):
    any type. slices: of each kind (country, newness of the user, price band, ...) the value (N,) of every event.
    """

    label: Array
    weight: Array
    time: Array
    user: Array
    champion: Scores
    candidate: Scores
    slices: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = {"weight": self.weight, "time": self.time, "user": self.user, **self.slices}
        arrays |= {"champion": self.champion.value, "candidate": self.candidate.value}
        for name, array in arrays.items():
            if len(array) != len(self.label):
                raise TrainingError(
                    f"{len(array)} of `{name}` for {len(self.label)} labels",
                    where="the window of the gate",
                    expected="one for each event",
                )


@dataclass(frozen=True, slots=True)
class Taught:
    """The labels that were trained on, or those of earlier trainings to compare them with.

    label_id, source, user (N,): any type. claim (N,): a hash of (target, candidate, name, revision): equal where
    labels speak of the same. value, weight (N,). observed_at, event_time (N,): UTC ms. features (N, F): rows that
    trained; served (N, F): the same as they were served, if they were looked up again. stands_for (N,): of how many
    each was kept, 1 where all were. contradictions: records that said something else of the same claim as one that is
    here, found when they were read. A label of source "" is silence.
    """

    label_id: Array
    claim: Array
    source: Array
    user: Array
    value: Array
    weight: Array
    observed_at: Array
    event_time: Array
    features: Array
    served: Array | None = None
    stands_for: Array | None = None
    contradictions: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the gate judges by. unit: what is drawn in the bootstrap.

    thresholds: (review, block) of champion and candidate, where the task decides. certificate: of the candidate's
    compiled engine. p99_ms: of that engine at its serving batch, CPU time. trained_until: UTC ms of the newest event
    that any of the two was trained on. window_features (M, F): rows of the window, where kept. why_no_old: what is said
    where `old` is None.
    """

    task: str
    metric: str
    window: Window
    old: Window | None
    taught: Taught
    known: Taught | None
    certificate: Report | None
    p99_ms: float
    budget_ms: float
    trained_until: int
    unit: Literal["user", "event"] = "user"
    thresholds: tuple[tuple[float, float], tuple[float, float]] | None = None
    feature_names: tuple[str, ...] = ()
    window_features: Array | None = None
    seed: int = 0
    why_no_old: str = "no span of old events has enough labels"


@dataclass(frozen=True, slots=True)
class Check:
    """value against bound, both as compared; `said` is one sentence for a person."""

    name: str
    value: float
    bound: float
    passed: bool
    said: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """improves: whether the metric's lower bound is above 0; it is no condition of passing. not_judged: why a check was
    not run, by its name.
    """

    task: str
    verdict: Literal["pass", "refuse"]
    improves: bool
    checks: tuple[Check, ...]
    figures: dict[str, float]
    slices: dict[str, float] = field(default_factory=dict)
    not_judged: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(check.name for check in self.checks if not check.passed)

    def as_dict(self) -> dict[str, Any]:
        """For the release's manifest: strict JSON, a number that is not finite as null."""
        said: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        return said

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "GateReport":
        """What `as_dict` wrote; null becomes NaN."""

        def number(value: float | None) -> float:
            return float("nan") if value is None else value

        checks = (
            Check(each["name"], number(each["value"]), number(each["bound"]), each["passed"], each["said"])
            for each in said["checks"]
        )
        figures, slices = ({key: number(value) for key, value in said[name].items()} for name in ("figures", "slices"))
        unjudged = dict(said.get("not_judged", {}))  # older reports have none
        return cls(said["task"], said["verdict"], said["improves"], tuple(checks), figures, slices, unjudged)
