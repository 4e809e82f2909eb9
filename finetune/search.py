"""A search for a task's training plan, by optuna: each trial trains on the past and is judged on the span after it,
several times, ever later (rolling origin; Tashman 2000). What is newest is not touched by any trial: it says at the end
whether the plan that was found is better than the usual one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from engines.model import HeadraceModel
from finetune.first import GROUND, PLANS, trained_model
from finetune.history import Recording
from finetune.problems import PROBLEMS, Recommendations
from finetune.recorded import Recorded
from finetune.trainer import Plan, TorchTable
from schemas.errors import SettingsError, TrainingError
from streams.catalog import Catalogue
from streams.tasks import make_task

MEASURES: dict[str, tuple[str, Literal["minimize", "maximize"]]] = {
    "fraud": ("normalised_entropy", "minimize"),
    "ctr": ("normalised_entropy", "minimize"),
    "recommendations": ("ndcg@10", "maximize"),
}
LOSS_WEIGHTS = {"fraud": {"positive": (1.0, 10.0)}}
WIDTHS, MOST_LAYERS, FEED_FORWARD = (32, 64, 128), 3, 4  # its hidden layer is so many times as wide as the model
EARLIEST = 0.55  # of the examples before the test span: the first border that is learned up to
FIRST_TRIALS = 5  # are not stopped early: they are what others are compared with
FORMAT = 1

Told = Callable[[int, str, float | None], None]
"""Called with a trial's number, its state in a word, and its figure where it has one."""


@dataclass(frozen=True, slots=True)
class Span:
    """Trains on what was known at `border` (UTC ms), and is judged on the examples from then to `end`."""

    border: int
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """value, usual: the mean figures of the best plan and of the usual one over the validation spans. test, usual_test:
    theirs on the newest span, trained on all before it. trials: that are complete, pruned ones included.
    """

    plan: Plan
    measure: str
    value: float
    usual: float
    test: float
    usual_test: float
    trials: int


class Search:
    """Of one task over one recording. The study is a journal file: a search that was stopped goes on."""

    def __init__(
        self, task: str, recording: Recording, catalog: Catalogue, journal: Path, *, usual: Plan | None = None,
        ground: Plan | None = None, folds: int = 3, test: float = 0.15, seed: int = 0,
    ) -> None:  # fmt: skip
        """folds: validation spans. test: the newest share of the examples, for the end. usual: this task's plan, by
        default that of a first training; ground: that of the recommendations model which it may begin with, None where
        there will be none. Raises SettingsError, TrainingError.
        """
        if task not in MEASURES:
            raise SettingsError(f"no search for {task!r}", where="tune", expected=f"one of {', '.join(MEASURES)}")
        if folds < 1 or not 0 < test < 0.5:
            raise SettingsError(
                f"folds = {folds}, test = {test}", where="tune", expected="1 or more, and a share below a half"
            )
        self.task, self._recording, self._catalog, self._seed = task, recording, catalog, seed
        self._ground = None if task == Recommendations.name else ground
        self._usual = usual or PLANS[task]
        if self._ground is None:
            self._usual = replace(self._usual, frozen=())
        self.measure, self._direction = MEASURES[task]
        time = np.sort(recording.examples[task].time)
        self.spans, self.tested = spans(time, folds, test)
        self._grounds: dict[int, HeadraceModel] = {}
        self._problems: dict[int, Recorded] = {}
        identity = hashlib.sha256(
            repr((FORMAT, self.spans, self.tested, len(time), self._usual, self._ground)).encode()
        )
        journal.parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            study_name=f"{task}-{identity.hexdigest()[:12]}",
            storage=JournalStorage(JournalFileBackend(str(journal))),
            direction=self._direction,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS, n_warmup_steps=0),
            load_if_exists=True,
        )

    def run(self, trials: int, told: Told | None = None) -> Found:
        """Goes on until the study has so many trials that ended; the first one is the usual plan.

        Raises TrainingError where a span has nothing to learn from or to judge by.
        """
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(self._asked())
        while (done := self._ended()) < trials:
            self.study.sampler = optuna.samplers.TPESampler(seed=self._seed + done)
            trial = self.study.ask()
            said: tuple[str, float | None]
            try:
                value = self.mean(self.plan(trial), trial)
            except optuna.TrialPruned:
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                said = "pruned", None
            except (TrainingError, KeyboardInterrupt):
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                raise
            else:
                self.study.tell(trial, value)
                said = "complete", value
            if told is not None:
                told(trial.number, *said)
        return self._found()

    def plan(self, trial: optuna.trial.BaseTrial) -> Plan:
        """The usual plan with what the trial draws. With the ground, its sizes are the ground's."""
        usual = self._usual
        drawn: dict[str, Any] = {
            "rate": trial.suggest_float("rate", usual.rate / 10, usual.rate * 10, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.5, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
            "loss_weights": {
                name: trial.suggest_float(name, low, high, log=True)
                for name, (low, high) in LOSS_WEIGHTS.get(self.task, {}).items()
            },
        }
        if self._ground is not None and trial.suggest_categorical("from_ground", (True, False)):
            return replace(usual, **drawn, frozen=GROUND, sizes={})
        width = trial.suggest_categorical("width", WIDTHS)
        layers = trial.suggest_int("layers", 1, MOST_LAYERS)
        sizes = {"width": width, "layers": layers, "hidden": FEED_FORWARD * width}
        return replace(usual, **drawn, frozen=(), sizes=sizes)

    def mean(self, plan: Plan, trial: optuna.Trial | None = None) -> float:
        """The figure over the validation spans. A trial hears of each; raises TrialPruned where others were better."""
        found: list[float] = []
        for fold, span in enumerate(self.spans):
            found.append(self.figure(plan, span))
            if trial is not None:
                trial.report(float(np.mean(found)), fold)
                if fold + 1 < len(self.spans) and trial.should_prune():
                    raise optuna.TrialPruned
        return float(np.mean(found))

    def figure(self, plan: Plan, span: Span) -> float:
        """Trained on what was known at the span's border; judged on the span, calibrated on it as well."""
        problem = self._problem(span.border)
        base = self._ground_at(span.border, self._ground) if self._ground is not None and plan.frozen else None
        model, _ = trained_model(problem, plan, base)
        problem.end(model)
        table = TorchTable(model, self._catalog)
        table.freeze()
        judge = self._judge
        which = np.flatnonzero((judge.examples.time >= span.border) & (judge.examples.time < span.end))
        if not len(which):
            raise TrainingError(f"no labelled examples of {self.task} in a span", expected="a longer record")
        shared = problem.shared_inputs(table.look_up(np.arange(len(self._catalog), dtype=np.int32)).numpy())
        metrics = judge.finish(judge.outputs(model, table, which, shared), which).metrics
        if self.measure not in metrics:
            raise TrainingError(f"no positive of {self.task} in a span", expected="fewer spans, or a longer record")
        return float(metrics[self.measure])

    @cached_property
    def _judge(self) -> Recorded:
        """All examples, with the labels that have come by now."""
        return PROBLEMS[self.task](make_task(self.task), self._recording, self._catalog)

    def _problem(self, border: int) -> Recorded:
        if border not in self._problems:
            known = self._recording.before(border)
            self._problems[border] = PROBLEMS[self.task](make_task(self.task), known, self._catalog)
        return self._problems[border]

    def _ground_at(self, border: int, plan: Plan) -> HeadraceModel:
        if border not in self._grounds:
            known = self._recording.before(border)
            problem = Recommendations(make_task(Recommendations.name), known, self._catalog)
            self._grounds[border] = trained_model(problem, plan, None)[0]
        return self._grounds[border]

    def _asked(self) -> dict[str, Any]:
        """The usual plan as the parameters of a trial: what of it can be searched for."""
        usual = self._usual
        asked: dict[str, Any] = {"rate": usual.rate, "weight_decay": usual.weight_decay, "dropout": usual.dropout}
        asked |= {name: usual.loss_weights.get(name, 1.0) for name in LOSS_WEIGHTS.get(self.task, {})}
        if self._ground is not None:
            return asked | {"from_ground": True}
        return asked | {"width": usual.sizes.get("width", 64), "layers": usual.sizes.get("layers", 2)}

    def _ended(self) -> int:
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        return len(self.study.get_trials(deepcopy=False, states=states))

    def _found(self) -> Found:
        best = self.plan(optuna.trial.FixedTrial(self.study.best_trial.params))
        usual = self.study.get_trials(deepcopy=False)[0]
        tests = [self.figure(plan, self.tested) for plan in (best, self._usual)]
        assert usual.value is not None, "the first trial is never pruned"
        return Found(
            best, self.measure, self.study.best_value, usual.value, tests[0], tests[1], self._ended()
        )  # fmt: skip


def spans(time: NDArray[np.int64], folds: int, test: float) -> tuple[list[Span], Span]:
    """Validation spans with as many examples each, and the test span after them. time: ascending, UTC ms."""
    if len(time) < folds + 2:
        raise TrainingError(f"{len(time)} examples", where="tune", expected="enough to learn from and to judge by")
    shares = np.concatenate([np.linspace(EARLIEST, 1.0, folds + 1) * (1 - test), [1.0]])
    edges = [int(time[min(round(share * len(time)), len(time) - 1)]) for share in shares]
    edges[-1] += 1
    if len(set(edges)) < len(edges):
        raise TrainingError("the examples are all of one time", where="tune", expected="a longer record")
    each = [Span(border, end) for border, end in pairwise(edges)]
    return each[:-1], each[-1]
