"""Are clicks of bots told from clicks of people? `python -m bench.click_fraud` prints one line of JSON.
A shop is simulated with programs among its visitors; who is one is known, and not to what judges.

Precision and recall are of clicks on ads, recall by kind of bot too; false positives are of people's impressions, with
the upper end of a 95 % interval. What bots do to a model is measured on people's ads of the last third, against one
that learned from people alone: by how much they move the clicks that a logistic regression on feature rows expects, the
mean rate (the fallback's answer), and the log loss; with the discount and without.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bench.report import show
from finetune.history import Examples, catalogue_from, replay
from finetune.labels import Labels, click_labels, shown_ads
from finetune.metrics import log_loss
from schemas.errors import HeadraceError
from streams.batch import KINDS
from streams.config_sections import LearningSettings
from streams.events import MAX_SLATE
from streams.sources.bots import KINDS as BOTS
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task
from streams.tasks.automation import look, signs_of
from streams.vectors import HashingEncoder, catalogue_vectors

Floats = NDArray[np.float64]

START, BORDER, END = "2011-09-01", "2011-11-01", "2011-12-01"
SEED, COUNT = 5, 24
PERSON = "person"
TARGETS = {"false_positives_percent_high": 0.1}


class Told(NamedTuple):
    """B impressions of C places. who (B,): PERSON, or the kind of bot. label, shown, automated (B, C)."""

    examples: Examples
    who: NDArray[np.str_]
    label: Floats
    shown: NDArray[np.bool_]
    automated: NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.click_fraud", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--bots", type=int, default=COUNT)
    parser.add_argument("--shop", default="auto", choices=("auto", "real", "generated"))
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        world = World(
            WorldConfig(start=START, end=END, shop=arguments.shop, bots=arguments.bots, keep_truth=False),
            arguments.seed,
        )
        told = tell(world)
    except HeadraceError as error:
        sys.exit(str(error))
    measured = {**found(told), **calibrations(told)}
    show("click_fraud", {"shop": world.shop.name, **measured, "seconds": time.monotonic() - began}, TARGETS)


def tell(world: World) -> Told:
    """All impressions, as they were served, and what is made of each label of theirs."""
    items, ads = world.catalog()
    catalog = catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder()))
    recording = replay(((event.topic, event.record) for event in world.events()), [make_task("ctr")], catalog)
    examples = recording.examples["ctr"]
    kinds = {bot.user: bot.kind for bot in world.bots}
    return Told(
        examples,
        np.array([kinds.get(event["user_id"], PERSON) for event in examples.events]),
        click_labels(examples.events, recording.labels, MAX_SLATE).astype(np.float64),
        shown_ads(examples.events, MAX_SLATE) > 0,
        np.array(list(judged(examples, recording.labels))),
    )


def judged(examples: Examples, labels: Labels) -> Iterator[list[bool]]:
    """Of each place of each slate, whether its label is discounted."""
    for event, found_signs in zip(examples.events, signs_of(examples.rows), strict=True):
        silent = look(found_signs).automated
        places = [silent] * MAX_SLATE
        for place, ad in enumerate(event["slate"][:MAX_SLATE]):
            clicked_at = labels.clicks.get((event["event_id"], ad["ad_id"]))
            if clicked_at is not None:
                places[place] = look(found_signs, clicked_at - event["event_time"]).automated
        yield places


def found(told: Told) -> dict[str, Any]:
    clicked, person = told.label > 0, told.who == PERSON
    clicks_of = {kind: int(clicked[told.who == kind].sum()) for kind in (PERSON, *BOTS)}
    hits = {kind: int((clicked & told.automated)[told.who == kind].sum()) for kind in (PERSON, *BOTS)}
    bots, caught = sum(clicks_of[kind] for kind in BOTS), sum(hits[kind] for kind in BOTS)
    wrong, people = int(told.automated[person].any(axis=1).sum()), int(person.sum())
    figures: dict[str, Any] = {
        "clicks_of_people": clicks_of[PERSON],
        "clicks_of_bots": bots,
        "impressions_of_people": people,
        "precision_percent": percent(caught, caught + hits[PERSON]),
        "recall_percent": percent(caught, bots),
        "false_positives_percent": percent(wrong, people),
        "false_positives_percent_high": 100 * upper(wrong, people),
    }
    return figures | {f"recall_percent_{kind}": percent(hits[kind], clicks_of[kind]) for kind in BOTS}


def percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def upper(hits: int, count: int) -> float:
    """The upper end of Wilson's 95 % interval of a share."""
    if not count:
        return 1.0
    z, share = 1.96, hits / count
    middle, spread = share + z * z / (2 * count), z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return float((middle + spread) / (1 + z * z / count))


class Learned(NamedTuple):
    """Clicks that are expected of people's later ads, by a model and by the mean rate; and the model's log loss."""

    expected: float
    mean: float
    loss: float


def calibrations(told: Told) -> dict[str, float]:
    border, person = milliseconds(BORDER), told.who == PERSON
    late = ((told.examples.time >= border) & person)[:, None] & told.shown
    share, inputs = LearningSettings().automated_weight, features(told)
    people = learned(told, inputs, late, np.broadcast_to(person[:, None], told.label.shape).astype(np.float64))
    figures = {"people_alone_expected_over_clicked": people.expected / float(told.label[late].sum())}
    for name, weight in (
        ("without", np.ones(told.label.shape)),
        ("with", np.where(told.automated, share, 1.0)),
    ):
        both = learned(told, inputs, late, weight)
        figures |= {
            f"expected_moved_percent_{name}": 100 * (both.expected / people.expected - 1),
            f"mean_moved_percent_{name}": 100 * (both.mean / people.mean - 1),
            f"log_loss_moved_percent_{name}": 100 * (both.loss / people.loss - 1),
        }
    return figures


def learned(told: Told, inputs: Floats, late: NDArray[np.bool_], weight: Floats) -> Learned:
    """From what was shown before the border, with these weights."""
    early = (told.examples.time < milliseconds(BORDER))[:, None] & told.shown & (weight > 0)
    model = LogisticRegression(C=1.0, max_iter=500)
    model.fit(inputs[early], told.label[early], sample_weight=weight[early])
    chance = model.predict_proba(inputs[late])[:, 1]
    mean = float(np.average(told.label[early], weights=weight[early]))
    return Learned(float(chance.sum()), mean, float(log_loss(told.label[late], chance)))


def features(told: Told) -> Floats:
    """(B, C, F): the place of each ad, its bid, and how much of what is in the history."""
    rows = told.examples.rows
    counts = [np.log1p((rows["kind"] == KINDS[name]).sum(axis=1)) for name in ("view", "click", "search", "impression")]
    since = np.log1p(np.where(rows["kind"][:, -1] > 0, rows["age"][:, -1], 0))
    common = np.stack([*counts, since, rows["context_item"] > 0], axis=1).astype(np.float64)
    shared = np.broadcast_to(common[:, None, :], (*rows["ad"].shape, common.shape[1]))
    place = np.eye(MAX_SLATE)[np.minimum(rows["position"], MAX_SLATE - 1)]
    made: Floats = np.concatenate([place, np.log1p(rows["bid"])[..., None], shared], axis=2)
    return made


if __name__ == "__main__":
    main()
