"""The next basket of Online Retail II: `python -m bench.quality_baskets`, beside a customer's own frequencies.
Every order of an identified customer from 2011-11-09 on is foreseen in time order, from what was before it; the
settings were chosen on the month before (`--span validation`).
"""

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.baskets import Baskets, Popularity, load_baskets
from bench.report import show
from engines.model import HeadraceConfig, HeadraceModel
from finetune.baskets import BasketCourse, Prior, fit_baskets, recommended
from finetune.pretrain import claim
from schemas.errors import HeadraceError
from streams.sources.shop import DAY_MS

SPANS = {"test": ("2011-11-09", "2011-12-10"), "validation": ("2011-10-09", "2011-11-09")}
HISTORY, WIDTH, BUCKETS, SPREAD = 64, 64, 8192, 0.02
PASSES = 2.5
FADE_DAYS, POPULAR_DAYS, POPULAR_SHARE, TOP = 180.0, 30, 0.2, 10
DRAWS = 2000
DIGITS = 4
WANTED = (("hit_at_10", 0.77), ("recall_at_10", 0.205))
TARGETS = {
    "hit_at_10_missing_to_0_77": 0.0,
    "recall_at_10_missing_to_0_205": 0.0,
    "hit_difference_below_0": 0.0,
    "recall_difference_below_0": 0.0,
}

Pair = NDArray[np.float64]
"""(R, 2): whether any of the ten was bought, and the share of the basket that is among the ten."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality_baskets", description=__doc__)
    parser.add_argument("--span", choices=SPANS, default="test")
    parser.add_argument("--passes", type=float, default=PASSES)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        show("quality_baskets", {"span": arguments.span, **figures(arguments.span, arguments.passes)}, TARGETS, DIGITS)
    except HeadraceError as error:
        sys.exit(str(error))


def figures(span: str = "test", passes: float = PASSES) -> dict[str, Any]:
    """Of the model and of own frequency, with the paired differences. Raises DataUnavailable."""
    baskets = load_baskets()
    start, end = milliseconds(span)
    known, asked = baskets.between(0, start), baskets.between(start, end)
    popularity = Popularity(baskets)
    model, prior = fresh(baskets, known), Prior(popularity.columns.shape[-1])
    course = BasketCourse(passes=passes)
    training_s = fit_baskets(model, baskets, known, popularity.before, prior, course, progress)
    started = time.process_time()
    found = judged(baskets, asked, recommended(model, baskets, asked, popularity.before, prior))
    answering_s = time.process_time() - started
    own = judged(baskets, asked, own_frequency(baskets, asked))
    ours = named("", found)
    return {
        **ours,
        **named("own_frequency_", own),
        **differences(found - own, baskets.customer[asked]),
        **{f"{name}_missing_to_{str(least).replace('.', '_')}": max(0.0, least - ours[name]) for name, least in WANTED},
        "invoices": len(asked),
        "customers": len(np.unique(baskets.customer[asked])),
        "parameters": sum(each.numel() for each in model.parameters()),
        "training_cpu_s": training_s,
        "answering_cpu_s": answering_s,
    }


def milliseconds(span: str) -> tuple[int, int]:
    start, end = (int(np.datetime64(day).astype("M8[ms]").astype(np.int64)) for day in SPANS[span])
    return start, end


def fresh(baskets: Baskets, known: NDArray[np.intp]) -> HeadraceModel:
    """The family's model with vectors by id and own items; bought items of the training span claim vectors."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "width": WIDTH,
        "hidden": 2 * WIDTH,
        "history": HISTORY,
        "item_buckets": BUCKETS,
        "own_items": 1,
    }
    model = HeadraceModel(HeadraceConfig(task="recommendations", **sizes))
    claim(model, baskets.catalog, np.concatenate([baskets.basket(int(order)) for order in known]), SPREAD)
    return model


def own_frequency(baskets: Baskets, asked: NDArray[np.intp]) -> NDArray[np.int32]:
    """(R, 10) a customer's own items by count, each fading with its age, plus a share of what sold lately."""
    rows = len(baskets.catalog)
    line_time = np.repeat(baskets.time, np.diff(baskets.offset))
    out = np.zeros((len(asked), TOP), np.int32)
    for number, order in enumerate(asked):
        now = baskets.time[order]
        before = np.flatnonzero(baskets.customer[:order] == baskets.customer[order])
        lines = np.concatenate([np.zeros(0, np.intp), *(np.arange(*baskets.offset[[r, r + 1]]) for r in before)])
        fading = np.exp(-(now - line_time[lines]) / DAY_MS / FADE_DAYS)
        score = np.bincount(baskets.item[lines], fading, minlength=rows).astype(
            np.float64
        )  # no lines count as integers
        span = slice(*np.searchsorted(line_time, [now - POPULAR_DAYS * DAY_MS, now]))
        sold = np.bincount(baskets.item[span], minlength=rows)
        score += POPULAR_SHARE * sold / max(sold.max(), 1)
        score[0] = -1
        out[number] = np.argsort(-score, kind="stable")[:TOP]
    return out


def judged(baskets: Baskets, asked: NDArray[np.intp], ranked: NDArray[np.int32]) -> Pair:
    bought = [baskets.basket(int(order)) for order in asked]
    right = np.array([np.isin(best, basket).sum() for best, basket in zip(ranked, bought, strict=True)])
    return np.stack([right > 0, right / np.array([len(basket) for basket in bought])], axis=1).astype(np.float64)


def named(prefix: str, pair: Pair) -> dict[str, float]:
    hit, recall = pair.mean(axis=0)
    return {f"{prefix}hit_at_10": float(hit), f"{prefix}recall_at_10": float(recall)}


def differences(each: Pair, customer: NDArray[np.intp], prefix: str = "") -> dict[str, float]:
    """95 % intervals of the mean differences, customers drawn with all their invoices (paired bootstrap); and by how
    much each interval's lower end is below 0.
    """
    _, number = np.unique(customer, return_inverse=True)
    sums = np.stack([np.bincount(number, column) for column in (*each.T, np.ones(len(each)))], axis=1)
    draw = np.random.default_rng(0)
    totals = np.stack([sums[draw.integers(0, len(sums), len(sums))].sum(axis=0) for _ in range(DRAWS)])
    ends = np.percentile(totals[:, :2] / totals[:, 2:], [2.5, 97.5], axis=0)
    out: dict[str, float] = {}
    for column, name in enumerate(("hit", "recall")):
        low, high = float(ends[0, column]), float(ends[1, column])
        out |= {f"{prefix}{name}_difference_low": low, f"{prefix}{name}_difference_high": high}
        out[f"{prefix}{name}_difference_below_0"] = max(0.0, -low)
    return out


def progress(done: int, steps: int, loss: float) -> None:
    if done % max(steps // 10, 1) == 0:
        print(f"{done:,} of {steps:,} steps, loss {loss:.3f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
