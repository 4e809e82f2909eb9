"""The text encoder fine-tuned on a shop's orders, beside the general one: `python -m bench.quality_encoder`, on Online
Retail II. It learns from orders before 2011-11-09, without a tenth of the items and a fifth of the customers, which
`bench.quality_cold` keeps out as well; everything is judged on the orders from then on.

Three figures, each with the difference's interval: what is bought with an item, found by its title among all titles;
new items of an order, by the titles of its other items; new items foreseen by the model that learned on the vectors.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.baskets import catalogue_of
from bench.quality_baskets import DIGITS, Pair, differences, milliseconds, named
from bench.quality_cold import Cold, Learned
from bench.report import show
from engines.encoder import TextEncoder
from engines.encoder_export import export_encoder
from finetune.texts import TextCourse, Together, tune_encoder
from schemas.errors import HeadraceError
from streams.sources.fetch import cache_folder, fetch
from streams.sources.retail import load
from streams.sources.shop import Orders, Shop

TOP, SEED = 10, 0
TARGETS = {f"{what}_recall_difference_below_0": 0.0 for what in ("bought_with", "new_by_title", "new_items")}
Vectors = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality_encoder", description=__doc__)
    parser.add_argument("--steps", type=int, default=TextCourse().steps)
    parser.add_argument("--passes", type=float, default=2.0, help="of the recommendations model; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        show("quality_encoder", figures(TextCourse(steps=arguments.steps), arguments.passes), TARGETS, DIGITS)
    except HeadraceError as error:
        sys.exit(str(error))


def figures(course: TextCourse = TextCourse(), passes: float = 2.0) -> dict[str, Any]:  # noqa: B008 — it is frozen
    """Raises DataUnavailable."""
    shop, _ = load(products_only=False)
    cold, source = Cold.of(shop), fetch("text-encoder")
    general = TextEncoder(export_encoder(source, cache_folder()))
    with tempfile.TemporaryDirectory() as name:
        started = time.process_time()
        tune_encoder(source, shop.items.texts, together(cold), Path(name, "source"), course, progress)
        spent = time.process_time() - started
        tuned = TextEncoder(export_encoder(Path(name, "source"), Path(name)))
    said: dict[str, Any] = {"steps": course.steps, "tuning_cpu_s": spent}
    vectors = [each.encode(shop.items.texts) for each in (general, tuned)]
    asked = later(shop.orders)
    customer = shop.orders.customer[asked]
    for what, judge in (("bought_with", bought_with), ("new_by_title", new_by_title)):
        which, frozen = judge(shop, cold, asked, vectors[0])
        _, learned = judge(shop, cold, asked, vectors[1])
        said |= compared(what, frozen, learned, customer[which])
    if passes:
        orders, before = Learned.of(cold, *catalogue_of(shop.items, general), passes).new_items()
        learned_on = Learned.of(cold, *catalogue_of(shop.items, tuned), passes)
        said |= compared("new_items", before, learned_on.new_items()[1], learned_on.whole.customer[orders])
    return said


def together(cold: Cold) -> Together:
    """The warm orders before the test span."""
    border, _ = milliseconds("test")
    warm = cold.warm
    groups = (warm.item[warm.lines(order)].astype(np.int64) for order in np.flatnonzero(warm.time < border).tolist())
    return Together(groups, len(cold.items))


def later(orders: Orders) -> NDArray[np.intp]:
    border, end = milliseconds("test")
    return np.flatnonzero((orders.time >= border) & (orders.time < end))


def bought_with(shop: Shop, cold: Cold, asked: NDArray[np.intp], vectors: Vectors) -> tuple[NDArray[np.intp], Pair]:
    """Of each order one item, drawn by a seed, is asked about: which of the ten nearest titles are in the order?

    Returns the places in `asked` of orders of two items and more, and (n, 2) hit and recall, of ten at most.
    """
    draw, places, pairs = np.random.default_rng(SEED), [], []
    for place, order in enumerate(asked.tolist()):
        items = np.unique(shop.orders.item[shop.orders.lines(order)])
        if len(items) < 2:
            continue
        item = int(draw.choice(items))
        score = vectors @ vectors[item]
        score[item] = -2.0
        places.append(place)
        pairs.append(pair(np.argsort(-score, kind="stable")[:TOP], items[items != item]))
    return np.array(places), np.array(pairs)


def new_by_title(shop: Shop, cold: Cold, asked: NDArray[np.intp], vectors: Vectors) -> tuple[NDArray[np.intp], Pair]:
    """The new items of an order among all new items, by how near their titles are to its other items' mean."""
    new, places, pairs = np.flatnonzero(cold.items), [], []
    for place, order in enumerate(asked.tolist()):
        items = np.unique(shop.orders.item[shop.orders.lines(order)])
        is_new = cold.items[items]
        if not is_new.any() or is_new.all():
            continue
        score = vectors[new] @ vectors[items[~is_new]].mean(axis=0)
        places.append(place)
        pairs.append(pair(new[np.argsort(-score, kind="stable")[:TOP]], items[is_new]))
    return np.array(places), np.array(pairs)


def pair(best: NDArray[np.intp], wanted: NDArray[np.integer]) -> tuple[float, float]:
    right = int(np.isin(best, wanted).sum())
    return float(right > 0), right / min(len(wanted), TOP)


def compared(what: str, frozen: Pair, tuned: Pair, customer: NDArray[np.integer]) -> dict[str, Any]:
    """Figures of both, and the 95 % interval of the difference, customers drawn with all their orders."""
    said = {f"{what}_orders": len(frozen), **named(f"{what}_frozen_", frozen), **named(f"{what}_tuned_", tuned)}
    return said | differences(tuned - frozen, customer.astype(np.intp), f"{what}_")


def progress(done: int, steps: int, loss: float) -> None:
    if done % max(steps // 10, 1) == 0:
        print(f"{done:,} of {steps:,} steps, loss {loss:.3f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
