"""The gate: whether a candidate may take the champion's place, and in words, why not.
Pure: the same evidence gives the same report, and nothing here reads a store, a topic or a clock.

What the learner hands in, as `evidence.Evidence`:

- `window`: the newest events whose labels have matured (negatives too, from an alive source) and that neither side has
  trained on: `trained_until` is checked against it. Both sides' scores come from their compiled engines, over the
  features that were served, each calibrated by its own manifest. Rows of weight 0 count nowhere.
- `old`: the same of a span that is months back, drawn from the reservoir *without* what the candidate replayed, and
  rescored by both; None only while no such span has enough labels, and `why_no_old` says what there is.
- `taught`: the labels behind the candidate's examples, by `label_id`, with their source as published; `known`: those of
  earlier trainings, some weeks of them, so that a source's hours are comparable; None at the first fine-tune.
- `certificate`: `engines.parity.parity` of the candidate's engine; `p99_ms`: CPU time at the serving batch on
  this processor, beside the budget.
- `thresholds`: (review, block) of champion and candidate, from their manifests, for a task that decides.

The report goes into the manifest's metrics (`GateReport.as_dict`), of a refused candidate too.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from finetune import checks
from finetune.bootstrap import Difference
from finetune.bounds import Bounds
from finetune.evidence import Check, Evidence, GateReport, Window
from finetune.poison import poisoned
from finetune.unjudged import unjudged

DEFAULT = Bounds()


def judge(evidence: Evidence, bounds: Bounds = DEFAULT) -> GateReport:
    """Runs every check that the evidence allows, and says which it does not. Raises SettingsError for a metric that it
    does not know.
    """
    done = [*fresh(evidence), *checks.engine(evidence.certificate, evidence.p99_ms, evidence.budget_ms)]
    done += poisoned(evidence, bounds)
    unable = [*checks.usable(evidence.window.candidate), *checks.enough(evidence.window, ranks(evidence), bounds)]
    if evidence.old is not None:
        unable += [each for each in checks.usable(evidence.old.candidate) if not each.passed]
        unable += checks.enough(evidence.old, ranks(evidence), bounds, "old ")
    done += unable
    figures: dict[str, float] = {}
    slices: dict[str, float] = {}
    improves = False
    if comparable(unable):
        found = dict(checks.differences(evidence, evidence.window, bounds))
        done += [checks.kept(name, each, bounds.margins[name], "", bounds.confidence) for name, each in found.items()]
        figures = {f"{name}_{key}": value for name, each in found.items() for key, value in spelled(each)}
        improves = next(iter(found.values())).low > 0
        if not ranks(evidence):
            done += checks.calibrated(evidence.window, bounds)
        of_slices, slices = checks.sliced(evidence, bounds)
        done += [
            of_slices,
            *checks.decisions(evidence, bounds, gained=improves),
            checks.leakage(evidence.window, bounds),
        ]
        if evidence.old is not None:
            done += forgetting(evidence, evidence.old, bounds, found)
    passed = all(check.passed for check in done)
    missing = unjudged(evidence, bounds, compared=comparable(unable), slices=len(slices))
    verdict: Literal["pass", "refuse"] = "pass" if passed else "refuse"
    return GateReport(evidence.task, verdict, improves and passed, tuple(done), figures, slices, missing)


def ranks(evidence: Evidence) -> bool:
    return evidence.window.candidate.rows is not None


def comparable(unable: list[Check]) -> bool:
    """Constant scores can be compared, and are: how bad they are belongs into the report."""
    return all(check.passed or check.name == "varied scores" for check in unable)


def fresh(evidence: Evidence) -> Iterator[Check]:
    """The window is later than all training."""
    share = (
        float((np.asarray(evidence.window.time) <= evidence.trained_until).mean()) if len(evidence.window.time) else 0
    )
    yield checks.at_most("never trained", share, 0, f"{share:.1%} of the window's events are not after the training.")


def forgetting(evidence: Evidence, old: Window, bounds: Bounds, newest: Mapping[str, Difference]) -> Iterator[Check]:
    """The old window is compared as the new one, with margins of its own."""
    for name, found in checks.differences(evidence, old, bounds):
        margin = bounds.old_margins[name]
        if share := bounds.old_share.get(name):
            margin = max(margin, newest[name].low * (1 - share) / share)
        yield checks.kept(name, found, margin, "old ", bounds.confidence)


def spelled(found: Difference) -> Iterator[tuple[str, float]]:
    for key in ("champion", "candidate", "difference", "low", "high"):
        yield key, getattr(found, key)
