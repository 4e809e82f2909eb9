"""What a fine-tune trains on and in which order: new examples, a replay of old ones, and the newest held out.
What a first run of a plan drew is written down and drawn again, whatever was kept since.
"""

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

    new, replayed: how many of each there are. held_back: new ones of a period without negatives. What is new is what
    the plan hands over: who writes it sees to it that each example is handed over once.
    """

    examples: Examples
    learning: int
    judging: int
    new: int
    replayed: int
    held_back: int

    @property
    def fresh(self) -> NDArray[np.bool_]:
        """(N,) whether an example is new, and no replay."""
        number = np.arange(len(self.examples))
        return (number < self.learning - self.replayed) | (number >= self.learning)


def mixed(plan: TunePlan, task: Task, new: Examples, kept: Reservoir | None, window: Keys = NONE) -> Mix:
    """New examples and their replay. window: keys of the gate's examples, which are in neither.

    Raises TrainingError where all that would train is of one class.
    """
    new = new[(new["weight"] > 0).any(axis=1) & ~np.isin(new["key"], window)]
    drawn = _drawn(plan, task, new, kept, window)
    inside, replay = drawn["inside"], drawn["replay"]
    used = new[inside]
    held = _held(plan, len(used))
    learning, judging = len(used) - held, len(used) - held + held // 2
    examples = np.concatenate([used[:learning], replay, used[learning:]])
    mix = Mix(
        examples, learning + len(replay), judging + len(replay), len(used), len(replay),
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


def _drawn(plan: TunePlan, task: Task, new: Examples, kept: Reservoir | None, window: Keys) -> dict[str, NDArray[Any]]:
    """inside (N,): which of the new are of a period that has negatives. replay: with its weights multiplied in."""
    path = plan.out / f"mix-{plan.identity[:16]}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in ("inside", "replay")}
    known: Examples = new[:0] if kept is None else kept.examples
    inside = same_period(task, new, known) if plan.period == "shared" else np.ones(len(new), np.bool_)
    used = new[inside]
    learning = len(used) - _held(plan, len(used))
    replay = new[:0].copy()
    if kept is not None and learning:
        wanted = round(learning * plan.replay / (1 - plan.replay))
        seed = (plan.made_recipe().seed, int(plan.identity[:8], 16))
        draw = kept.draw(
            wanted, seed, before=int(used["time"][learning - 1]), without=np.concatenate([new["key"], window])
        )
        replay = draw.examples.copy()
        replay["weight"] *= draw.weight[:, None]
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, inside=inside, replay=replay)
    return {"inside": inside, "replay": replay}


def _held(plan: TunePlan, count: int) -> int:
    """How many of the newest examples do not train: no more than a release is checked with."""
    return min(round(count * plan.holdout), HELD_ROWS)
