"""Grafana's dashboards as code: `python deploy/grafana/boards.py` writes dashboards/*.json, which are committed.
Not a library of panels: a panel is a title, a unit and its queries, and the layout is two to a row.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT = 12, 8  # Grafana's grid has 24 columns


@dataclass(frozen=True, slots=True)
class Panel:
    """queries: legend -> PromQL. unit: a name of Grafana's units. limit: from where on it is drawn red."""

    title: str
    unit: str
    queries: dict[str, str]
    says: str = ""
    kind: str = "timeseries"
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """rows: heading -> its panels. uid: part of the address, so it stays."""

    uid: str
    title: str
    rows: dict[str, list[Panel]] = field(default_factory=dict)


def quantiles(name: str, by: str, *labels: str) -> dict[str, str]:
    """p50 and p99 of a histogram; `by` is the label that tells the lines apart."""
    kept = ", ".join((*((by,) if by else ()), *labels, "le"))
    legend = f"{{{{{by}}}}} " if by else ""
    buckets = f"sum by ({kept}) (rate({name}_bucket[$__rate_interval]))"
    return {f"{legend}p{round(at * 100)}": f"histogram_quantile({at}, {buckets})" for at in (0.5, 0.99)}


def rate(name: str, *by: str) -> dict[str, str]:
    """A second, of a counter; a line for each combination of the labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by) or "all"
    return {legend: f"sum by ({', '.join(by)}) (rate({name}_total[$__rate_interval]))"}


def daily(name: str, *by: str) -> dict[str, str]:
    """How many in the last day, of a counter."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return {legend: f"sum by ({', '.join(by)}) (increase({name}_total[1d]))"}


def most(name: str, *by: str) -> dict[str, str]:
    """The largest over all processes, of a gauge."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by) or "all"
    return {legend: f"max by ({', '.join(by)}) ({name})"}


SERVING = Board("headrace-serving", "Headrace: serving", {
    "Is all well?": [
        Panel("Ready workers", "none", {"ready": "sum(headrace_ready)", "workers": 'count(up{job="headrace-worker"})'}),
        Panel("Releases that score", "none", {"{{task}}: {{release}} on {{engine}}":
              "count by (task, release, engine) (headrace_release_info)"},
              "Two of one task for long: a worker could not swap."),
        Panel("Time from event to score", "s", quantiles("headrace_score_latency_seconds", "task"),
              "Broker's time of the event to its acknowledged score.", limit=0.5),
        Panel("The same, newest 4,096 scores", "s", most("headrace_score_latency_recent_seconds", "task", "quantile")),
    ],
    "Flow": [
        Panel("Events read", "ops", rate("headrace_events", "topic")),
        Panel("Scores", "ops", rate("headrace_scores", "task")),
        Panel("Records that wait", "short", {"{{topic}}": "sum by (topic) (headrace_lag)"}),
        Panel("How long they take at this pace", "s", {"{{topic}}":
              "sum by (topic) (headrace_lag) / (sum by (topic) (rate(headrace_events_total[5m])) > 0)"}, limit=60),
        Panel("Partitions that wait for the registry", "none",
              {"{{topic}}": "count by (topic) (headrace_parked == 1)"}),
        Panel("Topics behind the foremost", "s", most("headrace_cross_topic_lag_seconds", "topic"), "Event time."),
        Panel("Answered without the model", "ops", rate("headrace_fallbacks", "task", "reason")),
        Panel("Scored after the deadline", "ops", rate("headrace_late", "task")),
    ],
    "Input": [
        Panel("Dead letters", "ops", rate("headrace_dead_letters", "code")),
        Panel("On another partition than their user's", "ops", rate("headrace_misplaced", "topic")),
        Panel("Repeats and late-comers", "ops", {
            "absorbed before": "sum(rate(headrace_duplicates_total[$__rate_interval]))",
            "older than the user's newest": "sum(rate(headrace_out_of_order_total[$__rate_interval]))",
            "ids forgotten early": "sum(rate(headrace_dedupe_evictions_total[$__rate_interval]))",
        }),
    ],
    "Mapped topics": [
        Panel("Records carried, by what became of them", "ops", rate("headrace_mapping_records", "mapping", "result")),
        Panel("Waiting on the shop's topic", "short", most("headrace_mapping_lag", "mapping")),
        Panel("From the shop's record to the event", "s", quantiles("headrace_mapping_seconds", "mapping")),
        Panel("Waits for the broker or the registry", "none", most("headrace_mapping_waiting", "mapping"), limit=1),
    ],
    "The loop": [
        Panel("Time of a micro-batch by stage, mean", "s", {"{{stage}}":
              "sum by (stage) (rate(headrace_stage_seconds_sum[$__rate_interval]))"
              " / sum by (stage) (rate(headrace_stage_seconds_count[$__rate_interval]))"}),
        Panel("Events in a micro-batch", "none", quantiles("headrace_batch_events", "")),
        Panel("A flush of state", "s", quantiles("headrace_flush_seconds", "")),
        Panel("Rows flushed", "ops", rate("headrace_flushed_rows")),
        Panel("Transactions of exactly_once", "ops", rate("headrace_transactions", "result")),
        Panel("One of them, begin to commit", "s", quantiles("headrace_transaction_seconds", "")),
        Panel("Users in memory", "short", {"{{instance}}": "headrace_users_in_memory"}),
        Panel("CPU", "percentunit", {"{{job}} {{instance}}":
              'rate(process_cpu_seconds_total{job=~"headrace-.*"}[$__rate_interval])'}),
        Panel("Memory", "bytes", {"{{job}} {{instance}}": 'process_resident_memory_bytes{job=~"headrace-.*"}'}),
    ],
    "Scores by request": [
        Panel("Requests", "ops", rate("headrace_asked", "task", "result")),
        Panel("Request to answer", "s", quantiles("headrace_ask_seconds", "task")),
        Panel("Sent on, or answered by the fallback", "ops", {
            "{{task}} sent on": "sum by (task) (rate(headrace_ask_forwarded_total[$__rate_interval]))",
            "{{task}} fallback": "sum by (task) (rate(headrace_ask_fallbacks_total[$__rate_interval]))",
            "{{task}} lost": "sum by (task) (rate(headrace_asked_lost_total[$__rate_interval]))",
        }),
    ],
})  # fmt: skip

DECISIONS = Board("headrace-decisions", "Headrace: decisions and alerts", {
    "Decisions": [
        Panel("Alerts", "ops", rate("headrace_alerts", "decision")),
        Panel("Share of orders with an alert, an hour", "percentunit", {"share":
              "sum(increase(headrace_alerts_total[1h]))"
              ' / (sum(increase(headrace_scores_total{task="fraud"}[1h])) > 0)'}),
        Panel("Policies that stand", "none", {"{{standing}}: {{version}}":
              "count by (standing, version) (headrace_policy_info)"}),
        Panel("Live policy against the shadow", "ops", rate("headrace_policy_shadow", "decided", "would")),
        Panel("Orders that a rule could not judge", "ops", rate("headrace_policy_rule_failures", "rule"), limit=0.001),
    ],
    "Webhooks": [
        Panel("Taken by the endpoint", "ops", rate("headrace_webhooks_delivered", "endpoint")),
        Panel("From alert to answer", "s", quantiles("headrace_webhooks_seconds", "endpoint")),
        Panel("Waiting", "none", {
            "{{endpoint}} on the topic": "sum by (endpoint) (headrace_webhooks_lag)",
            "{{endpoint}} in memory": "sum by (endpoint) (headrace_webhooks_waiting)",
        }),
        Panel("Failures", "ops", {
            "{{endpoint}} tried again": "sum by (endpoint) (rate(headrace_webhooks_retried_total[$__rate_interval]))",
            "{{endpoint}} given up": "sum by (endpoint) (rate(headrace_webhooks_failed_total[$__rate_interval]))",
            "{{endpoint}} passed over":
                "sum by (endpoint) (rate(headrace_webhooks_passed_over_total[$__rate_interval]))",
        }),
        Panel("Circuit breaker open", "none", most("headrace_webhooks_open", "endpoint"), limit=1),
    ],
})  # fmt: skip

LEARNING = Board("headrace-learning", "Headrace: learning", {
    "Quality of what is live": [
        Panel("ROC AUC", "none", most("headrace_live_roc_auc", "task", "release")),
        Panel("PR-AUC", "none", most("headrace_live_pr_auc", "task", "release")),
        Panel("Lists of which something was taken up", "none", most("headrace_live_hit_rate", "task", "release"),
              "Of one of the first ten items."),
        Panel("How far up it stood: NDCG", "none", most("headrace_live_ndcg", "task", "release")),
        Panel("The same by estimate, before labels", "none",
              most("headrace_live_estimated_roc_auc", "task", "release")),
        Panel("Predictions over positives", "none", most("headrace_live_calibration", "task", "release"),
              "1 is right; thresholds in money stand on it.", limit=2),
        Panel("From how many", "short", {
            "{{task}} labels": "max by (task) (headrace_live_labels)",
            "{{task}} positives": "max by (task) (headrace_live_positives)",
            "{{task}} lists": "max by (task) (headrace_live_lists)",
        }),
        Panel("Live against the release beside it", "none", most("headrace_shadow_disagreement", "task")),
        Panel("Events compared", "short", {
            "{{task}} watched": "max by (task) (headrace_watched_events)",
            "{{task}} shadowed, a second": "sum by (task) (rate(headrace_shadow_compared_total[$__rate_interval]))",
            "{{task}} dropped, a second": "sum by (task) (rate(headrace_shadow_dropped_total[$__rate_interval]))",
        }),
    ],
    "From label to live": [
        Panel("Newest example to first score", "s", most("headrace_label_to_live_seconds", "task"), limit=3600),
        Panel("Label to its example", "s", most("headrace_label_join_seconds")),
        Panel("The newest fine-tune by part", "s", most("headrace_finetune_seconds", "task", "part")),
        Panel("The newest swap by part", "s", most("headrace_swap_seconds", "task", "part")),
        Panel("Fine-tunes begun, a day", "none", daily("headrace_finetunes", "task", "reason")),
        Panel("How they ended, a day", "none", daily("headrace_gate", "task", "result")),
        Panel("Swaps, a day", "none", daily("headrace_swaps", "task", "result")),
        Panel("Taken back by themselves, or failed", "none", {
            "{{task}} taken back": "sum by (task) (increase(headrace_rollbacks_total[1d]))",
            "{{task}} worse, and followed": "sum by (task) (increase(headrace_regrets_total[1d]))",
            "{{task}} failed": "sum by (task) (increase(headrace_engine_failures_total[1d]))",
        }),
    ],
    "Examples": [
        Panel("The join, by what became of it", "ops", rate("headrace_join", "task", "result")),
        Panel("How far it is behind", "s", most("headrace_watermark_lag_seconds"), limit=21_600),
        Panel("Examples", "ops", rate("headrace_examples")),
        Panel("Not learned yet", "short", {
            "{{task}}": "max by (task) (headrace_new_examples)",
            "{{task}} positives that wait": "max by (task) (headrace_waiting_positives)",
        }),
    ],
})  # fmt: skip

BOARDS = (SERVING, DECISIONS, LEARNING)


def document(board: Board) -> dict[str, Any]:
    """As Grafana reads it from a file."""
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["headrace"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}]},
        "panels": [{"id": number, **each} for number, each in enumerate(panels(board), 1)],
    }


def panels(board: Board) -> Iterator[dict[str, Any]]:
    """With their places: a heading over each row, two panels beside each other."""
    y = 0
    for heading, row in board.rows.items():
        yield {"type": "row", "title": heading, "collapsed": False, "panels": [], "gridPos": place(0, y, 24, 1)}
        for number, panel in enumerate(row):
            yield drawn(panel, place(number % 2 * WIDTH, y + 1 + number // 2 * HEIGHT, WIDTH, HEIGHT))
        y += 1 + (len(row) + 1) // 2 * HEIGHT


def place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def drawn(panel: Panel, where: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.limit is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": where,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expr, "legendFormat": legend, "datasource": SOURCE}
            for number, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


def written(board: Board) -> str:
    return json.dumps(document(board), indent=1) + "\n"


if __name__ == "__main__":
    for each in BOARDS:
        (FOLDER / f"{each.uid}.json").write_text(written(each), "utf-8")
