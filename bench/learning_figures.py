"""How good releases are on days of a story, by the simulator's truth, on the engine that serves.
Of clicks the truth is each one's chance, so that figures are expectations and need fewer events.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.learning_story import Story, is_new
from engines.openvino import OpenVinoEngine
from engines.releases import Release
from finetune.history import Examples
from finetune.metrics import EPSILON, pr_auc
from finetune.problems import Asked
from finetune.release import BUCKET, PRECISION, scored, vector_table
from streams.tasks.base import calibrated

LOOKS_NEW = 0.02
"""Chance of the new kind from which on an innocent order looks like it."""

Floats = NDArray[np.float64]
Figures = dict[str, float]


class _Part(Asked):
    """Of a story."""

    def __init__(self, story: Story, which: NDArray[np.intp]) -> None:
        self.task, self.catalog = story.task, story.catalog
        rows = story.examples.rows[which]
        self.examples = Examples(rows, [], story.examples.time[which], np.arange(len(rows)))


@dataclass(frozen=True, slots=True)
class Period:
    """Days [low, high) of a story."""

    story: Story
    low: int
    high: int

    @property
    def which(self) -> NDArray[np.intp]:
        return self.story.between(self.low, self.high)

    def figures(self, release: Release, threads: int = 1) -> Figures:
        return self._figures(chances(self.story, release, self.which, threads))

    def of_truth(self) -> Figures:
        """Of who knows each chance: what a perfect model reaches."""
        return self._figures(self.story.chance[self.which])

    def _figures(self, chance: Floats) -> Figures:
        which, story = self.which, self.story
        if story.scenario.task == "fraud":
            return fraud_figures(chance[:, 0], story.truth[which, 0], story.kind[which], story.new[which])
        seen = story.seen[which]
        return click_figures(chance[seen], story.chance[which][seen])


def chances(story: Story, release: Release, which: NDArray[np.intp], threads: int = 1) -> Floats:
    """(N, C) calibrated, of the examples of numbers `which`."""
    problem = _Part(story, which)
    engine = OpenVinoEngine(release, precision=PRECISION, buckets=(BUCKET,), threads=threads)
    outputs = scored(engine, problem, vector_table(problem, release), np.arange(len(which)))
    engine.close()
    return calibrated(outputs["logit"].reshape(len(which), -1), release.manifest.calibration)


def fraud_figures(chance: Floats, label: Floats, kind: NDArray[np.str_], new: Floats) -> Figures:
    """PR-AUC of all, and of new and of old kinds against the innocent; predicted frauds over frauds.

    Of the old kinds against those innocents alone that do not look like the new one: who has learned it ranks these
    high, and a perfect model loses 12 to 15 % of its PR-AUC on old kinds against all.
    """
    found = {"all": pr_auc(label, chance)}
    innocent = label < 0.5
    for name, struck, others in (
        ("new", is_new(kind), innocent), ("old", (label > 0.5) & ~is_new(kind), innocent & (new < LOOKS_NEW)),
    ):  # fmt: skip
        part = struck | others
        if struck.any():
            found[name] = pr_auc(label[part], chance[part])
    return found | {"predicted": float(chance.sum() / label.sum())}


def click_figures(chance: Floats, true: Floats) -> Figures:
    """Normalised entropy (He et al. 2014) over true chances; predicted clicks over those to be expected."""
    base = np.full(len(true), true.mean())
    return {"all": _loss(true, chance) / _loss(true, base), "predicted": float(chance.sum() / true.sum())}


def _loss(true: Floats, chance: Floats) -> float:
    p = np.clip(chance, EPSILON, 1 - EPSILON)
    return float(-(true * np.log(p) + (1 - true) * np.log1p(-p)).mean())


def regained(on: float, off: float, reference: float) -> float:
    """Share of the loss from `reference` to `off` that `on` has made good."""
    return (on - off) / (reference - off) if reference != off else float("nan")
