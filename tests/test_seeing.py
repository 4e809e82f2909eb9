"""Alert rules and dashboards stand on series that the processes really have, with the labels that they have, and leave
out none that matters; promtool, Prometheus's own, says that each rule fires when it must and is silent when it must.
"""

import json
import re
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry

from streams.learner.metrics import LearnerMetrics
from streams.mapping.metrics import MappingMetrics
from streams.metrics import Metrics
from streams.webhooks.metrics import WebhookMetrics
from tests.outside_programs import promtool, ran
from tests.test_docs import table

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "headrace.rules.yml"
TESTS = DEPLOY / "prometheus" / "headrace.rules.test.yml"
BOARDS = runpy.run_path(str(DEPLOY / "grafana" / "boards.py"))
# What Prometheus adds to each series that it has asked for.
SCRAPED = {"job", "instance"}
JOBS = {"headrace-worker", "headrace-learner", "headrace-webhooks", "headrace-mapping"}
SELECTOR = re.compile(r"\b(headrace_\w+|process_\w+)(?:\{([^}]*)\})?")
# Known of a shop without an alert of its own or a panel, and why.
NOT_SHOWN = {"headrace_score_latency_seconds_sum"}


@cache
def series() -> dict[str, set[str]]:
    """Each sample's name on the four pages -> the labels it may have."""
    worker, webhooks = Metrics(), WebhookMetrics()
    worker.latency.observe("fraud", np.array([0.1]))
    webhooks.begin("shop")
    found: dict[str, set[str]] = {}
    for registry in (worker.registry, LearnerMetrics().registry, webhooks.registry, MappingMetrics("orders").registry):
        for family in touched(registry):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels, SCRAPED)
    return found


def touched(registry: CollectorRegistry) -> Iterator[Any]:
    """With one series of each family: one with labels has none before it counts."""
    for collector in list(registry._collector_to_names):
        if names := getattr(collector, "_labelnames", ()):
            collector.labels(*names)  # type: ignore[attr-defined]  # what has label names has it
    yield from registry.collect()


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> list[tuple[str, str, str]]:
    """(title, legend, query) of each line of each dashboard."""
    documents = [json.loads(path.read_text("utf-8")) for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))]
    shown = [panel for document in documents for panel in document["panels"] if panel["type"] != "row"]
    return [(panel["title"], each["legendFormat"], each["expr"]) for panel in shown for each in panel["targets"]]


def queries() -> list[str]:
    return [rule["expr"] for rule in rules()] + [query for _, _, query in panels()]


def test_every_series_that_is_named_exists_with_its_labels() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for query in queries():
        for name, matchers in SELECTOR.findall(query):
            if re.search(rf"\b{name}:", query):
                continue
            assert name in series(), query
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= series()[name], query
        assert set(re.findall(r"\bheadrace:[\w:]+", query)) <= recorded, query


def test_what_is_grouped_by_is_a_label_of_a_series_in_the_query() -> None:
    for query in queries():
        known = SCRAPED | {"le"}
        for name, _ in SELECTOR.findall(query):
            known |= series().get(name, set())
        grouped = {
            part.strip() for found in re.findall(r"(?:by|on|ignoring) \(([^)]*)\)", query) for part in found.split(",")
        }
        assert grouped - {""} <= known | ({"task", "topic"} if "headrace:" in query else set()), query


def test_a_legend_names_labels_that_its_query_leaves() -> None:
    for title, legend, query in panels():
        left = re.search(r"(?:sum|max|count) by \(([^)]*)\)", query)
        labels = {part.strip() for part in left[1].split(",")} if left else SCRAPED
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels, title


def test_every_series_is_on_a_dashboard_or_in_a_rule() -> None:
    named = {name for query in queries() for name, _ in SELECTOR.findall(query)}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}
    own = {name for name in series() if name.startswith("headrace_")} - NOT_SHOWN
    assert {
        name for name in own if name not in named and re.sub(r"_(bucket|count|sum)$", "", name) not in families
    } == set()


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("lag", "HeadraceLag"),
        ("stalled offsets", "HeadraceOffsetsStalled"),
        ("dead letters", "HeadraceDeadLetters"),
        ("alert rate", "HeadraceAlertRate"),
        ("calibration", "HeadraceCalibration"),
        ("label to live", "HeadraceLabelToLive"),
        ("swap failed", "HeadraceSwapFailed"),
    ],
)
def test_there_is_an_alert_of(asked: str, name: str) -> None:
    assert name in alerts(), asked


def test_every_alert_says_what_to_do_and_whom_to_wake() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["annotations"].keys() == {"summary", "description"}, name


def test_every_alert_is_documented_with_its_severity() -> None:
    shown = {cells[0].strip("`"): cells[1] for cells in table("docs/seeing.md", "table: alerts")}
    assert shown == {name: rule["labels"]["severity"] for name, rule in alerts().items()}


def test_every_alert_is_made_to_fire_and_the_noisy_ones_to_be_silent() -> None:
    cases = [case for group in yaml.safe_load(TESTS.read_text("utf-8"))["tests"] for case in group["promql_expr_test"]]
    fired, silent = set[str](), set[str]()
    for case in cases:
        (fired if case["exp_samples"] else silent).update(re.findall(r'alertname="(\w+)"', case["expr"]))
    assert fired == alerts().keys()
    assert len(silent) >= 15


def test_the_jobs_of_rules_and_boards_are_those_that_are_asked() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert {job["job_name"] for job in config["scrape_configs"]} == JOBS
    named = {job for query in queries() for job in re.findall(r'job="([\w-]+)"', query)}
    assert named <= JOBS


def test_the_dashboards_are_what_their_code_writes() -> None:
    written = {f"{board.uid}.json": BOARDS["written"](board) for board in BOARDS["BOARDS"]}
    there = {path.name: path.read_text("utf-8") for path in (DEPLOY / "grafana/dashboards").glob("*.json")}
    assert there == written, "run `python deploy/grafana/boards.py`"


def test_panels_do_not_cover_each_other() -> None:
    for board in BOARDS["BOARDS"]:
        taken: set[tuple[int, int]] = set()
        for panel in BOARDS["document"](board)["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells


def test_promtool_takes_the_rules_and_each_fires_when_it_must() -> None:
    for arguments in (("check", "rules", RULES), ("test", "rules", TESTS)):
        done = ran(promtool(), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    done = ran(promtool(), "check", "config", RULES.with_name("prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_sees_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    """The unit tests can fail: with the order that `increase` alone needs, the first failed swap is missed."""
    text = RULES.read_text("utf-8")
    broken = re.sub(r"\(headrace_swaps_total\{[^}]*\} unless .* offset 15m\)\s+or ", "", text)
    assert broken != text
    (tmp_path / RULES.name).write_text(broken, "utf-8")
    (tmp_path / TESTS.name).write_text(TESTS.read_text("utf-8"), "utf-8")
    done = ran(promtool(), "test", "rules", tmp_path / TESTS.name)
    assert done.returncode != 0
    assert "HeadraceSwapFailed" in done.stdout + done.stderr


def test_promtool_takes_every_query_of_the_dashboards(tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, (_, _, query) in enumerate(panels())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}), "utf-8")
    done = ran(promtool(), "check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
