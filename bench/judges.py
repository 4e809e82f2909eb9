"""Recommendations and fraud and their baselines on the same later events, a function a task: figures with 95 %
intervals. Click-through is judged in bench/ctr_judge.py.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.ctr_judge import judge_ctr
from bench.judging import Case, Figures, against_truth, classified, prefixed, served
from finetune import metrics
from finetune.labels import fraud_labels, next_items
from finetune.problems import NEXT_ITEM_WINDOW_MS, Fraud, popularity
from streams.sources.world import World
from streams.tasks.fraud import COLUMN, FIELDS

TOP = 20

ORDER_FIELDS = (
    *("amount", "lines", "quantity", "top_line_share", "foreign_card", "ships_elsewhere", "guest"),
    *("hour_sin", "hour_cos", "weekday_sin", "weekday_cos"),
    *(name for name in FIELDS if name.startswith(("paid_by_", "attribute_"))),
)
"""Columns of fraud's fields that the order record alone gives, without any history."""


def judge_recommendations(case: Case) -> Figures:
    """The user's next other item within three days, ranked among the whole catalogue."""
    late, clicks = case.late, case.recording.clicks
    target = next_items(clicks.user, clicks.time, clicks.item, NEXT_ITEM_WINDOW_MS)[late.place]
    asked = target > 0
    target, late = target[asked], late.part(asked)
    ranked = np.zeros((len(late), TOP), np.int64)
    for number, result in enumerate(served(case, late)):
        ranked[number, : len(result.candidates)] = [case.catalog.items[ident] for ident in result.candidates]
    bias = case.catalog.candidate_bias() + popularity(case.known.clicks.item, len(case.catalog))
    popular = np.tile(np.argsort(-bias, kind="stable")[:TOP], (len(late), 1))
    ours, theirs = metrics.rank_of(target, ranked), metrics.rank_of(target, popular)
    figures: Figures = {"events": float(len(late))}
    for name, metric in (("ndcg_at_10", metrics.ndcg_at), ("hit_at_10", metrics.hit_at)):
        low, high = metrics.bootstrap_mean(partial(metric, k=10), ours)
        figures |= {name: metric(ours, 10), f"{name}_low": low, f"{name}_high": high}
        figures[f"popularity_{name}"] = metric(theirs, 10)
    return figures


def judge_fraud(case: Case) -> Figures:
    """All later orders, by the labels that have come in the end."""
    late = case.late
    label = fraud_labels(late.events, case.recording.labels)
    chance = np.array([result.prediction[0] for result in served(case, late)])
    truth = np.array([_fraud_truth(case.world, event["event_id"]) for event in late.events])
    figures = classified(label, chance, truth) | against_truth(chance, truth)
    problem = Fraud(case.task, case.known, case.catalog)
    known, labels = problem.examples, problem.label  # baselines learn from held-out orders too
    columns = [COLUMN[name] for name in ORDER_FIELDS]
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    logistic.fit(known.rows["fields"][:, columns], labels)
    plain = logistic.predict_proba(late.rows["fields"][:, columns])[:, 1]
    boosting = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=120, max_leaf_nodes=15, l2_regularization=10.0, random_state=0
    ).fit(known.rows["fields"], labels)
    boosted = boosting.predict_proba(late.rows["fields"])[:, 1]
    shown = ("pr_auc", "log_loss_nats", "roc_auc")
    figures |= prefixed("logistic", classified(label, plain), shown)
    figures |= prefixed("boosting", classified(label, boosted), shown)
    return figures


def _fraud_truth(world: World, event_id: str) -> float:
    told = world.truth(event_id)
    return told.probabilities[0] if told is not None else 0.0


JUDGES: dict[str, Callable[[Case], Figures]] = {
    "recommendations": judge_recommendations,
    "ctr": judge_ctr,
    "fraud": judge_fraud,
}
