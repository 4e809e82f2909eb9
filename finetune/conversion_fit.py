"""How the head of conversions learns: a penalised logistic regression, fitted after the steps, of clicked ads alone.
Nothing of it reaches what clicks are estimated by: the rest of the model is what it would be without this head.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln
from sklearn.linear_model import LogisticRegression

from engines.conversion_head import IDS, ConversionHead
from finetune.calibrate import shrunk_platt
from finetune.metrics import log_loss, normalised_entropy
from streams.tasks.base import calibrated

LEAST = 100
"""Clicked ads that were bought, and as many that were not, without which there is no such head."""
STRENGTH = 1.0  # variance of the linear weights before anything is known
SLOPE = 0.02
"""Hardly free: a slope that a hundred clicked ads were to tell would tilt what is said of all that are not clicked."""
LEVEL = 0.05
"""That of all clicks is where a hundred orders say little; nothing has changed since it was fitted."""
SURE = 1e6
"""Orders that an ad's own rate is worth beside, where all ads seem to sell alike."""
PRIORS = (*(float(2**power) for power in range(11)), SURE)

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Clicked:
    """Ads that were clicked, in order of time: facts (n, X), buckets of ads, whether they were bought, and what each
    counts, (n,).
    """

    facts: NDArray[np.float32]
    ad: NDArray[np.integer]
    bought: NDArray[np.bool_]
    weight: NDArray[np.float32]


def enough(bought: NDArray[np.bool_]) -> bool:
    """Of clicked ads (n,), whether there are LEAST of both kinds."""
    return min(int(bought.sum()), int((~bought).sum())) >= LEAST


def fit_conversions(head: ConversionHead, clicked: Clicked) -> None:
    """Sets the line and the ads' biases; the facts are by its own interests."""
    bought, weight = clicked.bought, clicked.weight
    line = LogisticRegression(C=STRENGTH, max_iter=500).fit(clicked.facts, bought, sample_weight=weight)
    rate = line.predict_proba(clicked.facts)[:, 1]
    effect = ad_effects(clicked.ad, bought * weight, rate * weight)
    with torch.no_grad():
        head.line.weight.copy_(torch.from_numpy(line.coef_))
        head.line.bias.copy_(torch.from_numpy(line.intercept_))
        head.bias.weight.copy_(torch.from_numpy(effect)[:, None])


def measured(head: ConversionHead, clicked: Clicked) -> tuple[dict[str, float], dict[str, float]]:
    """Calibration, and figures with it, of clicked ads that the head has not been fitted to."""
    logit = clicked.facts @ head.line.weight[0].detach().numpy() + head.line.bias.item()
    logit = logit + head.bias.weight.detach().numpy()[clicked.ad, 0]
    label = clicked.bought.astype(np.float32)
    found = shrunk_platt(logit, label, slope=SLOPE, level=LEVEL, shift=LEVEL)
    figures = {"conversions": float(label.sum()), "conversion_clicks": float(len(label))}
    if 0 < label.sum() < len(label):
        chance = calibrated(logit, found)
        figures["conversion_log_loss"] = log_loss(label, chance)
        figures["conversion_normalised_entropy"] = normalised_entropy(label, chance)
    return {"conversion_a": found["a"], "conversion_b": found["b"]}, figures


def ad_effects(ad: NDArray[np.integer], orders: Floats, due: Floats) -> Floats:
    """(IDS,) log of how much more often each ad's clicks end in an order than is due, shrunk towards 0.

    The mean of a gamma prior's posterior, as in finetune.clicks; here the prior is the one of PRIORS under which the
    counts are likeliest: a negative binomial's likelihood, empirical Bayes (Gelman et al. 2013, section 2.6).
    """
    counts, expected = (np.bincount(ad, each, IDS).astype(np.float64) for each in (orders, due))
    seen = expected > 0
    prior = max(PRIORS, key=lambda each: likelihood(counts[seen], expected[seen], each))
    return np.where(seen, np.log((counts + prior) / (expected + prior)), 0.0)


def likelihood(counts: Floats, expected: Floats, prior: float) -> float:
    """Of counts (n,) that are Poisson's of `expected` times a rate of gamma(prior, prior), without what is constant."""
    mixed = gammaln(counts + prior) - gammaln(prior) + prior * np.log(prior)
    return float((mixed - (counts + prior) * np.log(expected + prior)).sum())
