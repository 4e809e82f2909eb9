"""What a click ends in: `python -m bench.quality_conversions`. A first training's head, LightGBM on the same clicks and
the rate of these are judged on all ads that came into view in later weeks, by the simulator's own chance of each.

Nobody sees what an ad that was not clicked would have sold: who learns from clicks is asked about other ads than those.
"""

import os
import sys
import tempfile

import numpy as np
from numpy.typing import NDArray

from bench.ctr_judge import in_parts, tuned
from bench.judging import Case, Figures, Floats, served
from bench.quality_world import ALL_CLICKS, BORDER, END, START, encoded, stream
from bench.report import show
from engines.releases import ReleaseStore
from finetune.bootstrap import counts, units_of
from finetune.clicks import ClickThrough
from finetune.first import PLANS, train
from finetune.history import Examples, replay
from finetune.labels import shown_ads
from schemas.errors import HeadraceError
from streams.demo.models import SEED
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task

TASKS = ("recommendations", "ctr")  # the first lays the ground
RATE = 0.05  # of clicks that end in an order, about
DRAWS = 400
TARGETS = {"excess_over_boosting_high": 0.0, "prediction_off_truth": 0.05}
"""Not worse than LightGBM beyond the interval; and the sum of what is said within 5 % of that of the true chances."""


def figures() -> Figures:
    world = World(WorldConfig(start=START, end=END, shop="real", conversion_rate=RATE), SEED)
    catalog = encoded(world)
    recording = replay(stream(world), [make_task(name) for name in TASKS], catalog, ALL_CLICKS)
    border = milliseconds(BORDER)
    known = recording.before(border)
    with tempfile.TemporaryDirectory() as folder:
        store = ReleaseStore(folder)
        release = train(known, catalog, store, plans={name: PLANS[name] for name in TASKS})["ctr"]
        return judged(Case(release, recording, known, catalog, world, border))


def judged(case: Case) -> Figures:
    late, slots = case.late, case.late.rows["ad"].shape[1]
    shown = shown_ads(late.events, slots) > 0
    truth = true_conversions(case, late)[shown]
    problem = ClickThrough(case.task, case.known, case.catalog)
    clicked, text = problem.known > 0, case.catalog.text
    bought = problem.bought[clicked]
    boosted = tuned(in_parts(problem.examples, text)[clicked], bought.astype(np.float64))
    chances = {
        "": said(case, late)[shown],
        "boosting_": np.asarray(boosted.predict(in_parts(late, text)[shown])),
        "rate_": np.full(len(truth), bought.mean()),
    }
    users = np.array([event["user_id"] for event in late.events])
    found = {"ads": float(len(truth)), "mean_true_chance": float(truth.mean())}
    found |= {"clicks_known": float(len(bought)), "orders_known": float(bought.sum())}
    found |= beside_truth(chances, truth, units_of(np.repeat(users[:, None], slots, axis=1)[shown]))
    return found | {"prediction_off_truth": abs(found["prediction_over_truth"] - 1)}


def said(case: Case, examples: Examples) -> Floats:
    """(B, slots) what the results say of conversions, as the worker would make them."""
    chance = np.zeros(examples.rows["ad"].shape)
    for number, result in enumerate(served(case, examples)):
        each = [ad["conversion"] for ad in result.fields["ads"]]
        chance[number, : len(each)] = each
    return chance


def true_conversions(case: Case, examples: Examples) -> Floats:
    """(B, slots) the simulator's chance of an order after a click; 0 where the ad did not come into view."""
    truth = np.zeros(examples.rows["ad"].shape)
    for number, event in enumerate(examples.events):
        if (told := case.world.truth(event["event_id"])) is not None:
            by_ad = dict(zip(told.candidates, told.conversions, strict=True))
            truth[number, : len(event["slate"])] = [by_ad.get(ad["ad_id"], 0.0) for ad in event["slate"]]
    return truth


def beside_truth(chances: dict[str, Floats], truth: Floats, user: NDArray[np.intp]) -> Figures:
    """Of each (n,) of `chances`, with 95 % intervals over users: the expected cross-entropy over the truth's own, less
    1, and the sum over that of the true chances. No outcome is drawn: of most ads there is none.
    """
    columns = [truth, cross_entropy(truth, truth)]
    for chance in chances.values():
        columns += [chance, cross_entropy(truth, chance)]
    sums = np.stack([np.bincount(user, column) for column in columns], axis=1)
    drawn = np.concatenate([count @ sums for count in counts(len(sums), DRAWS, 0, len(sums))])
    found: Figures = {}
    excess: dict[str, Floats] = {}
    for number, name in enumerate(chances, 1):
        for what, over, less in (("excess_over_truth", 1, 1.0), ("prediction_over_truth", 0, 0.0)):
            at = 2 * number + over
            every = np.concatenate([[sums[:, at].sum() / sums[:, over].sum()], drawn[:, at] / drawn[:, over]]) - less
            found |= interval(f"{name}{what}", every)
            if over:
                excess[name] = every
    return found | interval("excess_over_boosting", excess[""] - excess["boosting_"])


def cross_entropy(truth: Floats, chance: Floats) -> Floats:
    return -(truth * np.log(chance) + (1 - truth) * np.log1p(-chance))


def interval(name: str, every: Floats) -> Figures:
    """The figure itself, which comes first, and where 95 % of the draws lie."""
    low, high = np.quantile(every[1:], [0.025, 0.975])
    return {name: float(every[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        show("quality_conversions", figures(), TARGETS, digits=5)
    except HeadraceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
