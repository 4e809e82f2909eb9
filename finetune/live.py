"""The watch on a release that went live: may be looked at after every label, and says when to go back, and why.
Pure: who runs it hands in what the live release and the previous one, as a sampled shadow, said of the same events.

Each question is a bet against "the live release is fine" (Waudby-Smith and Ramdas 2023, Estimating means of bounded
random variables by betting): a wealth that starts at 1, and that is multiplied by 1 + stake * (x - bound) with each
observation x. While the mean of x is at most `bound`, given all before, the wealth is a nonnegative supermartingale, so
it ever reaches 1 / alpha with a chance of at most alpha (Ville 1939), however often it is looked at. The stakes are
a fixed mixture, so that nothing is tuned to a size of harm.

Labels must come in the order in which their *windows* close, both kinds together: frauds that are told the day they
are known would ask about frauds alone, and there a release that predicts less always looks worse.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engines.parity import rank_correlation
from finetune.checks import gains
from finetune.metrics import EPSILON
from finetune.poison import psi
from schemas.errors import SettingsError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LiveBounds:
    # In all, so that a good swap is taken back by a bet once in a hundred at most. Labels are few and calls are many,
    # so quality gets most of it.
    alpha: float = 0.01
    quality_share: float = 0.8
    # Nats of log loss a label may weigh: what is lost on one event beyond this says nothing more of the release.
    cap: float = 2.0
    # Harm a label that is tolerated, as a share of the cap (ranked: NDCG): below it a swap back costs more than it
    # saves.
    harm: float = 0.002
    # Share of calls that fail, and of calls slower than the p99 budget: five times what the budget means, as slow calls
    # come together and the bet takes them for independent.
    errors: float = 0.01
    slow: float = 0.05
    # Population stability index of live against shadow scores of the same events; noise at 300 is about 0.1.
    drift: float = 0.5
    # Spearman's rank correlation of the two; fine-tunes of one another keep above 0.9.
    agreement: float = 0.5
    drift_pairs: int = 300
    kept_pairs: int = 5000


class Bet:
    """Against "the mean of x is at most `bound`", for x in [low, high]."""

    def __init__(self, bound: float, low: float, high: float, alpha: float) -> None:
        if not (low <= bound < high and 0 < alpha < 1):
            raise SettingsError(
                f"a bet on at most {bound} in [{low}, {high}] at alpha {alpha}",
                expected="low <= bound < high, 0 < alpha < 1",
            )
        most = 1.0 / (bound - low) if bound > low else 1.0 / (high - low)
        self._stakes = most * np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
        self._log = np.zeros(len(self._stakes))
        self._bound, self._low, self._high = bound, low, high
        self.limit = float(np.log(1 / alpha))
        self.count, self.total, self.peak = 0, 0.0, 0.0

    def add(self, values: ArrayLike) -> bool:
        """Whether the wealth has ever reached 1 / alpha; looks after each value."""
        x = np.clip(np.asarray(values, np.float64).reshape(-1), self._low, self._high)
        if len(x):
            path = self._log + np.cumsum(np.log1p(self._stakes * (x[:, None] - self._bound)), axis=0)
            self._log = path[-1]
            top = path.max(axis=1)
            wealth = top + np.log(np.exp(path - top[:, None]).mean(axis=1))
            self.peak = max(self.peak, float(wealth.max()))
            self.count, self.total = self.count + len(x), self.total + float(x.sum())
        return self.lost

    @property
    def lost(self) -> bool:
        """Whether "fine" is refuted."""
        return self.peak >= self.limit

    @property
    def mean(self) -> float:
        return self.total / max(self.count, 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """reasons: a sentence for each trigger. evidence: natural log of the highest wealth of each bet, PSI and rank
    correlation of the scores."""

    action: Literal["keep", "rollback"]
    labels: int
    reasons: tuple[str, ...]
    evidence: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For an alert or the release's mark."""
        return asdict(self)


class Watch:
    """One live release against the one before it. Not for several threads."""

    def __init__(self, live: str, previous: str, *, budget_ms: float, bounds: LiveBounds | None = None) -> None:
        self.live, self.previous, self.budget_ms = live, previous, budget_ms
        self.bounds = bounds or LiveBounds()
        share = self.bounds.alpha * (1 - self.bounds.quality_share) / 2
        self._quality = Bet(self.bounds.harm, -1.0, 1.0, self.bounds.alpha * self.bounds.quality_share)
        self._errors = Bet(self.bounds.errors, 0.0, 1.0, share)
        self._slow = Bet(self.bounds.slow, 0.0, 1.0, share)
        self._live_scores = deque[float](maxlen=self.bounds.kept_pairs)
        self._shadow_scores = deque[float](maxlen=self.bounds.kept_pairs)
        self._broken = 0

    def labelled(self, label: ArrayLike, live: ArrayLike, shadow: ArrayLike) -> Verdict:
        """Labels (N,) of 0 or 1, with the probabilities that both gave. A score that is no number counts as the cap."""
        wanted = np.asarray(label, np.float64).reshape(-1)
        ours, theirs = (_log_loss(wanted, np.asarray(each, np.float64).reshape(-1)) for each in (live, shadow))
        harm = np.nan_to_num((ours - theirs) / self.bounds.cap, nan=1.0, posinf=1.0, neginf=-1.0)
        self._quality.add(harm)
        return self.verdict()

    def ranked(self, wanted: ArrayLike, live: ArrayLike, shadow: ArrayLike) -> Verdict:
        """Wanted rows (N,) with the lists (N, K) that both gave.

        What was wanted must not depend on what was shown (the user's next item, not a click on the live list): the
        shadow's list was seen by nobody.
        """
        target = np.asarray(wanted)
        self._quality.add(gains(target, np.asarray(shadow)) - gains(target, np.asarray(live)))
        return self.verdict()

    def scored(self, live: Sequence[float], shadow: Sequence[float]) -> Verdict:
        """Scores of the same events, labelled or not."""
        fine = [(a, b) for a, b in zip(live, shadow, strict=True) if np.isfinite(a) and np.isfinite(b)]
        self._broken += int((~np.isfinite(np.asarray(live, np.float64))).sum())
        self._live_scores.extend(a for a, _ in fine)
        self._shadow_scores.extend(b for _, b in fine)
        return self.verdict()

    def called(self, ms: ArrayLike, failed: ArrayLike) -> Verdict:
        """Calls of the live engine: how long each took, and whether it failed."""
        self._errors.add(np.asarray(failed, np.float64))
        self._slow.add(np.asarray(ms, np.float64) > self.budget_ms)
        return self.verdict()

    @property
    def drift(self) -> float:
        """Population stability index of live against shadow scores; 0 while they are few."""
        if len(self._live_scores) < self.bounds.drift_pairs:
            return 0.0
        return psi(np.array(self._live_scores), np.array(self._shadow_scores))

    @property
    def agreement(self) -> float:
        """Rank correlation of live and shadow scores; 1 while they are few."""
        if len(self._live_scores) < self.bounds.drift_pairs:
            return 1.0
        live = np.array(self._live_scores)
        return rank_correlation(live, np.array(self._shadow_scores)) if np.ptp(live) > 0 else 0.0

    def verdict(self) -> Verdict:
        """Once it says rollback for a bet it goes on saying so: a refuted claim is not taken back."""
        drift, agreement, reasons = self.drift, self.agreement, list[str]()
        if self._quality.lost:
            reasons.append(
                f"On {self._quality.count:,} labels {self.live} does worse than {self.previous}, by "
                f"{self._quality.mean:.3f} of what a label can show; "
                f"of a good one this is said with a chance of at most {self.bounds.alpha:.0%}."
            )
        if self._errors.lost:
            reasons.append(f"{self._errors.mean:.1%} of {self._errors.count:,} calls of {self.live} failed.")
        if self._slow.lost:
            reasons.append(
                f"{self._slow.mean:.1%} of {self._slow.count:,} calls of {self.live} took over {self.budget_ms:g} ms."
            )
        if self._broken:
            reasons.append(f"{self._broken:,} scores of {self.live} are not finite.")
        if drift > self.bounds.drift:
            reasons.append(
                f"The scores of {self.live} are spread otherwise than those of {self.previous}: {drift:.2f}."
            )
        if agreement < self.bounds.agreement:
            reasons.append(
                f"{self.live} orders events otherwise than {self.previous}: rank correlation {agreement:.2f}."
            )
        evidence = {
            "quality": self._quality.peak, "errors": self._errors.peak, "slow": self._slow.peak, "drift": drift,
            "agreement": agreement,
        }  # fmt: skip
        return Verdict("rollback" if reasons else "keep", self._quality.count, tuple(reasons), evidence)


def _log_loss(label: Floats, chance: Floats) -> Floats:
    p = np.clip(chance, EPSILON, 1 - EPSILON)
    found: Floats = -(label * np.log(p) + (1 - label) * np.log1p(-p))
    return found
