"""What a candidate may differ by, each bound with its reason. Every one is a setting of the gate; margins are of
differences that are positive where the candidate is better.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from finetune.calibrate import REVIEW_BUDGET


def fixed(**values: float) -> Mapping[str, float]:
    return MappingProxyType(values)


@dataclass(frozen=True, slots=True)
class Bounds:
    # Bootstrap: 1,000 draws leave an error of the 5th percentile of about a tenth of a standard deviation.
    draws: int = 1000
    confidence: float = 0.95
    # Fewer labels cannot tell a loss of a margin's size from chance: at 100 positives the paired PR-AUC of two
    # releases of equal worth differs by 0.02.
    min_labels: int = 1000
    min_positives: int = 100
    # Loss that the lower bound may show. Zero would refuse half of the releases that are equal. PR-AUC and recall
    # are absolute, the others a share of the champion's figure. At 190 frauds one-sided noise is 0.02 and 0.05.
    margins: Mapping[str, float] = field(
        default_factory=lambda: fixed(pr_auc=0.025, recall=0.08, normalised_entropy=0.005, ndcg=0.03)
    )
    # Forgetting: wider, as an old window may be small and is not what comes next.
    old_margins: Mapping[str, float] = field(
        default_factory=lambda: fixed(pr_auc=0.04, recall=0.10, normalised_entropy=0.01, ndcg=0.05)
    )
    # Of clicks and rankings: tastes that are over do not come back as frauds do. Where the newest examples show a gain,
    # at most this share of what is to come is held to be as the old ones were, and on such a mixture nothing may be
    # lost: old ones may cost up to (1 - share) / share times the gain that is certain.
    old_share: Mapping[str, float] = field(default_factory=lambda: fixed(normalised_entropy=0.25, ndcg=0.25))
    # Predictions over labels, either way, beyond the noise of the positives: decisions are taken on probabilities.
    calibration: float = 1.25
    decile: float = 1.5
    decile_positives: int = 30
    # Expected calibration error as a share of the base rate, more than the champion's.
    ece: float = 0.15
    # A slice is judged by its loss (log loss, NDCG) against the champion's: what is refused is a loss of more than this
    # share that Holm's test over all slices holds for real. To demand a proof of harmlessness from every
    # small slice would refuse everything.
    slice_loss: float = 0.05
    slice_alpha: float = 0.05
    slice_labels: int = 500
    slice_positives: int = 20
    # Share of events that are decided differently; a fine-tune moves few of them. Ranked: share of the top 10 that is
    # not the champion's. Click-through: probabilities that move by more than a factor of 2; more of them may where the
    # newest examples show a gain for certain, as they do where tastes have changed.
    changes: Mapping[str, float] = field(
        default_factory=lambda: fixed(decided=0.05, ranked=0.7, chances=0.25, chances_gained=0.5)
    )
    # Orders that an analyst would see; the budget at which thresholds are set is 0.03. When fraud rises the champion
    # raises more alerts too, and to refuse the candidate would spare nobody: so many times the champion's will do.
    alerts: float = 0.05
    alert_times: float = 1.5
    # A result this near to perfect that also halves the gap to it has seen the answer.
    leak_level: float = 0.99
    leak_gain: float = 0.5
    # Labels of one source in one hour: robust z-score, and times its busiest hour so far (a feed that comes once a day
    # has a median of 0).
    burst_z: float = 10.0
    burst_times: float = 3.0
    burst_labels: int = 50
    # Labels of one user, times the most that one had.
    user_times: float = 5.0
    user_labels: int = 20
    # The join drops repeats, so that a share above noise means another way in.
    repeats: float = 0.005
    contradictions: float = 0.001
    # Share of positives against earlier trainings: a new pattern may double it.
    rate: float = 3.0
    # Population stability index: above 0.25 is called a major shift (Siddiqi 2006); a season reaches 0.3, another
    # unit exceeds 1.
    shift: float = 0.5
    # Rows that trained on other features than were served.
    skew: float = 0.001
    # Labels observed before their event, by more than clocks differ.
    clock_ms: int = 5000
    early: float = 0.001

    def for_budget(self, budget: float) -> Self:
        """For a shop whose analysts look at that share of its orders: as much more may be decided otherwise."""
        times = max(1.0, budget / REVIEW_BUDGET)
        changes = {**self.changes, "decided": self.changes["decided"] * times}
        return replace(self, alerts=self.alerts * times, changes=fixed(**changes))
