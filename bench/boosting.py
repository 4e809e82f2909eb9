"""The gradient-boosted baseline: LightGBM on raw columns, tuned by optuna on the newest part of what may be learned.
It is what a shop with a data scientist would have; texts are LightGBM's own categories, missing values its own too.
"""

from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import optuna
from numpy.typing import NDArray

from finetune.metrics import pr_auc, roc_auc

Columns = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
METRICS = {"roc_auc": roc_auc, "pr_auc": pr_auc}
MOST_TREES, PATIENCE = 600, 50


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best settings found, with their number of trees, and what they scored on the span that chose them."""

    options: dict[str, Any]
    trees: int
    score: float


def coded(columns: Columns) -> tuple[Floats, list[int]]:
    """(N, C) numbers, texts as the numbers of their categories, and which columns are texts."""
    out, texts = np.zeros((len(next(iter(columns.values()))), len(columns))), []
    for place, column in enumerate(columns.values()):
        if column.dtype == object:
            texts.append(place)
            known = np.array([value is not None for value in column])
            out[:, place] = np.nan
            out[known, place] = np.unique(column[known].astype(str), return_inverse=True)[1]
        else:
            out[:, place] = column
    return out, texts


def tune(
    x: Floats, label: NDArray[np.floating], texts: list[int], *, trials: int, metric: str, start: float, seed: int = 0
) -> Tuned:
    """Learns on the first `start` of the rows, which are in time order, and is judged on the rest of them."""
    cut, judge = round(len(label) * start), METRICS[metric]
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def score(trial: optuna.Trial) -> float:
        options = _options(trial, seed)
        early = lgb.Dataset(x[:cut], label[:cut], categorical_feature=texts, params={"verbosity": -1})
        late = lgb.Dataset(x[cut:], label[cut:], reference=early)
        stopping = lgb.early_stopping(PATIENCE, verbose=False)
        model = lgb.train(
            options, early, MOST_TREES, valid_sets=[late], callbacks=[stopping],
            feval=lambda predicted, data: (metric, judge(data.get_label(), predicted), True),
        )  # fmt: skip
        trial.set_user_attr("options", options)
        trial.set_user_attr("trees", model.best_iteration)
        return float(judge(label[cut:], np.asarray(model.predict(x[cut:]))))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({"learning_rate": 0.02, "num_leaves": 15, "feature_fraction": 0.4, "lambda_l2": 10.0})
    study.optimize(score, n_trials=trials)
    best = study.best_trial
    return Tuned(best.user_attrs["options"], best.user_attrs["trees"], study.best_value)


def _options(trial: optuna.Trial, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary", "metric": "None", "verbosity": -1, "num_threads": 1, "seed": seed, "max_bin": 255,
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 4, 63, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.1, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0), "bagging_freq": 1,
        "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 100.0, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 5, 200, log=True),
        "cat_smooth": trial.suggest_float("cat_smooth", 5.0, 100.0, log=True),
        "cat_l2": trial.suggest_float("cat_l2", 1.0, 100.0, log=True),
    }  # fmt: skip


def predicted(
    tuned: Tuned, x: Floats, label: NDArray[np.floating], texts: list[int], later: Floats, seeds: int = 1
) -> list[Floats]:
    """Chances of the later rows, one array a seed, by models that learned from all of `x`."""
    found = []
    for seed in range(seeds):
        options = {**tuned.options, "seed": seed}
        data = lgb.Dataset(x, label, categorical_feature=texts, params={"verbosity": -1})
        found.append(np.asarray(lgb.train(options, data, tuned.trees).predict(later), np.float64))
    return found
