"""What a fine-tune trains on and in which order: new examples, a replay of old ones, and the newest held out.
What a first run of a plan drew is written down and drawn again, whatever was kept since.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.example_files import whole
from finetune.examples import Examples, is_positive, ranks, same_period
from finetune.plan import TunePlan
from finetune.release import HELD_ROWS
from finetune.reservoir import Reservoir
from schemas.errors import TrainingError
from streams.tasks.base import Task

Keys = NDArray[np.uint64]
NONE: Keys = np.zeros(0, np.uint64)


@dataclass(slots=True)
class Mix:
    """Examples in the order of training and holding out: the first `learning` train, from `judging` on they judge.

    new, replayed: how many of each there are; of the new ones all but those held out train. held_back: new ones of a
    period without negatives. What is new is what the plan hands over: who writes it sees to it that each example is
    handed over until it has trained, and not after that.
    """

    examples: Examples
    learning: int
    judging: int
    new: int
    replayed: int
    held_back: int

    @property
    def replay_digest(self) -> str:
        """sha256 of what was replayed, in its order: the reservoir is a folder, and no offset says what is in it."""
        drawn = self.examples[self.learning - self.replayed : self.learning]
        return hashlib.sha256(drawn.tobytes()).hexdigest()

    @property
    def fresh(self) -> NDArray[np.bool_]:
        """(N,) whether an example is new, and no replay."""
        number = np.arange(len(self.examples))
        return (number < self.learning - self.replayed) | (number >= self.learning)


def mixed(
    plan: TunePlan, task: Task, new: Examples, kept: Reservoir | None, window: Keys = NONE,
    holding: Examples | None = None,
) -> Mix:  # fmt: skip
    """New examples and their replay. window: keys of the gate's examples, which are in neither. holding: what does not
    train; None holds out the newest of the new.

    Raises TrainingError where all that would train is of one class.
    """
    new, apart = _usable(new, window), None if holding is None else _usable(holding, window)
    drawn = _drawn(plan, task, new, kept, window, apart)
    inside, replay = drawn["inside"], drawn["replay"]
    trains, apart = _parted(plan, new[inside], apart)
    learning = len(trains) + len(replay)
    examples = np.concatenate([trains, replay, apart])
    mix = Mix(
        examples, learning, learning + len(apart) // 2, len(trains) + len(apart), len(replay),
        int((~inside).sum()),
    )  # fmt: skip
    if not ranks(task) and mix.learning:
        positives = int(is_positive(task, examples[: mix.learning]).sum())
        if not 0 < positives < mix.learning:
            raise TrainingError(
                f"{positives} positives among the {mix.learning} examples to train on",
                where=f"{plan.task}, {mix.held_back} of {len(new)} new examples held back",
                expected="examples of both kinds, from one period",
                todo="wait for more labels",
            )
    return mix


def _usable(examples: Examples, window: Keys) -> Examples:
    """Those with a label that weighs something, in order of time."""
    return examples[(examples["weight"] > 0).any(axis=1) & ~np.isin(examples["key"], window)]


def _parted(plan: TunePlan, used: Examples, apart: Examples | None) -> tuple[Examples, Examples]:
    """What trains, and what does not: no more than a release is checked with."""
    if apart is not None:
        return used, apart
    trains = len(used) - min(round(len(used) * plan.holdout), HELD_ROWS)
    return used[:trains], used[trains:]


def _drawn(
    plan: TunePlan, task: Task, new: Examples, kept: Reservoir | None, window: Keys, apart: Examples | None
) -> dict[str, NDArray[Any]]:
    """inside (N,): which of the new are of a period that has negatives. replay: with its weights multiplied in."""
    path = plan.out / f"mix-{plan.identity[:16]}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in ("inside", "replay")}
    known: Examples = new[:0] if kept is None else kept.examples
    inside = same_period(task, new, known) if plan.period == "shared" else np.ones(len(new), np.bool_)
    trains, apart = _parted(plan, new[inside], apart)
    replay = new[:0].copy()
    if kept is not None and len(trains):
        wanted = round(len(trains) * plan.replay / (1 - plan.replay))
        seed = (plan.made_recipe().seed, int(plan.identity[:8], 16))
        elsewhere = np.concatenate([new["key"], apart["key"], window])
        draw = kept.draw(wanted, seed, before=int(trains["time"][-1]), without=elsewhere)
        replay = draw.examples.copy()
        replay["weight"] *= draw.weight[:, None]
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, inside=inside, replay=replay)
    return {"inside": inside, "replay": replay}
