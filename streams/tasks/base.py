"""The Task contract: what one scoring task adds to the common loop, in one file per task.
A task is pure: arrays and records in, arrays and records out; it knows no Kafka, no engine and no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streams.catalog import Catalogue
from streams.events import Record
from streams.features import Inputs, Rows, Table
from streams.state import History
from streams.tasks.exploration import Exploration
from streams.tasks.selection import PLAIN, Selection


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of each of B scored events just before it: never anything of a later event.

    totals (B, 5): clicks, orders, impressions, order amount (minor units), order quantity before the event.
    first_time (B,): ms of the user's first event, 0 if this is it. known (B, 5): the user used this card, device,
    address, email or ip before. entities (B, 5, 2): how many users, and how many with a fraud label, share it.
    """

    time: NDArray[np.int64]
    history: History
    totals: NDArray[np.int64]
    first_time: NDArray[np.int64]
    known: NDArray[np.bool_]
    entities: NDArray[np.int32]
    catalog: Catalogue


class Result(NamedTuple):
    """One event's outcome. `fields` completes the score record; the rest goes into `served`."""

    fields: dict[str, Any]
    candidates: list[str]
    prediction: list[float]
    decision: str | None = None
    propensity: float = 1.0
    """Chance with which the decision was taken, in float32; see streams.tasks.exploration."""
    otherwise: str | None = None
    """What else it could have been; None: it was not drawn."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Which later event is this task's label: its name, and the window in seconds after which there is none.

    See streams.labels.rules.Rule for what each part does.
    """

    name: str
    window_s: int
    grace_s: int = 86_400
    """For how long after the window a label still revises what was concluded from silence."""
    at_once: bool = False
    """Whether a label teaches as it comes, or only together with the negatives, when its window closes."""
    negatives: float = 1.0
    """Share of the negatives that are kept, weighted by its inverse."""
    also: tuple[tuple[str, int], ...] = ()
    """Other outcomes that count, with their windows in seconds; their absence says nothing."""
    sources: tuple[str, ...] = ("derived",)
    """Sources of labels that must be alive for silence to be an answer."""
    unanswered: tuple[str, ...] = ()
    """Decisions after which silence is never an answer."""
    discounted: bool = False
    """Whether what looks automated teaches less: see streams.labels.automated."""


class Task(ABC):
    """One scoring task. Add one by writing a subclass and one line in `streams.tasks.TASKS`.

    Every method may be called again for the same event (after a crash) and must then answer the same.
    """

    name: ClassVar[str]
    topic: ClassVar[int]
    """The input topic whose events it scores: CLICKS, ORDERS or IMPRESSIONS of streams.batch."""
    schema: ClassVar[str]
    """The contract of its score records."""
    features: ClassVar[np.dtype[np.void]]
    """dtype of a feature row; begins with streams.features.SEQUENCE_FIELDS; at most 2,048 bytes."""
    labels: ClassVar[LabelRule]
    loss: ClassVar[str]
    metric: ClassVar[str]
    """What the gate compares: a name in finetune.metrics."""
    raises_alerts: ClassVar[bool] = False
    """Whether a decision other than approve goes to alerts.fraud: its events are orders, its results have reasons."""
    late_is_scored: ClassVar[bool] = False
    """Whether an event past its deadline still gets the model (marked late) or the fallback."""

    @abstractmethod
    def target(self, event: Record) -> str:
        """The label's target id: the key of its `served` record."""

    def explore(self, exploration: Exploration) -> None:
        """Says how decisions are drawn, before the first: those of most tasks are not."""
        return

    def shown(self, event: Record) -> list[bool]:
        """Of each candidate, whether the user saw it: only such a one can become a negative. Empty: all of them."""
        return []

    @abstractmethod
    def fill(self, rows: Rows, events: Sequence[Record], context: Context) -> None:
        """Writes the task's part of zeroed feature rows; the sequence part is written already."""

    @abstractmethod
    def inputs(self, rows: Rows, table: Table) -> Inputs:
        """Engine inputs of feature rows, and nothing but them and the release's vector table."""

    def inputs_served(self, rows: Rows, table: Table, serving: "Serving") -> Inputs:
        """As `inputs`, with what the settings have to say: a function of these and the rows, so it can be had again."""
        return self.inputs(rows, table)

    @abstractmethod
    def results(
        self, outputs: Mapping[str, NDArray[Any]], events: Sequence[Record], rows: Rows, serving: "Serving"
    ) -> list[Result]:
        """Engine outputs to results: calibrated, with ids, decided."""

    @abstractmethod
    def fallback(self, events: Sequence[Record], rows: Rows, serving: "Serving") -> list[Result]:
        """What is answered when the model cannot in time. Stated in docs/operate.md."""

    @abstractmethod
    def said(self, score: Record) -> Result:
        """The result that a score record holds: what was said before a crash is said again, not computed anew."""


class Verdict(NamedTuple):
    """What a policy says of one order. decided_by: the rule that did; empty: the score. because: of each rule that
    fired, in words. expected_loss: of approving it.
    """

    decision: str
    decided_by: str
    rules: tuple[str, ...]
    because: tuple[str, ...]
    version: str
    expected_loss: float | None


class Decides(Protocol):
    """A decision policy: see streams.policy."""

    version: str

    def decide(self, event: Record, probability: float, fields: NDArray[np.float32]) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """What a task needs of the live release beside its engine: calibration, settings, the catalogue of ids; the policy
    that decides, where there is one; and what is chosen of a ranking.
    """

    catalog: Catalogue
    calibration: Mapping[str, float]
    settings: Mapping[str, Any]
    policy: Decides | None = None
    selection: Selection = PLAIN


def calibrated(logit: NDArray[np.float32], calibration: Mapping[str, float]) -> NDArray[np.float64]:
    """Platt scaling: sigmoid(a * logit + b) (Platt 1999, Probabilistic outputs for support vector machines)."""
    scaled = calibration.get("a", 1.0) * logit.astype(np.float64) + calibration.get("b", 0.0)
    return 1.0 / (1.0 + np.exp(-scaled))
