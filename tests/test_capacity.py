"""Capacity: the figures are those that the pages say and the product has, more load never needs less, and the page's
calculator gives the command's numbers.
"""

import json
import re
import shutil
import subprocess
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.capacity import sizes
from schemas.errors import SettingsError
from streams.capacity.measured import FIGURES, FIXED, constants
from streams.capacity.model import MEANINGS, Load, Plan, largest, plan, total
from streams.cli import app
from streams.config import Settings
from streams.labels.rules import Rule
from streams.tasks import TASKS, make_task
from streams.topics import STATE, topic_specs

ROOT = Path(__file__).parent.parent
DAY_MS = 86_400_000
BOUNDS = {
    "events_per_s": (0, 1e6),
    "users": (0, 1e9),
    "items": (0, 1e7),
    "orders": (0, 0.5),
    "impressions": (0, 0.5),
    "peak": (1, 50),
    "growth": (1, 10),
    "slate": (1, 20),
    "replication": (1, 5),
}
loads = st.builds(
    Load,
    **{
        name: st.floats(*BOUNDS.get(name, (low, min(high, 1000))), allow_nan=False)
        for name, (_, low, high) in MEANINGS.items()
    },
)


def totals(made: Plan) -> dict[str, float]:
    return {
        "workers": made.workers,
        "partitions": made.partitions,
        "cores": total(made.cores),
        "memory_mb": total(made.memory_mb),
        "disk_gb": total(made.disk_gb),
    }


# Shares of the events are no load: more of one are fewer of another.
MORE = sorted(MEANINGS.keys() - {"orders", "impressions"})


@pytest.mark.parametrize("name", MORE)
@settings(max_examples=25, deadline=None)
@given(load=loads, share=st.floats(0, 1))
def test_more_load_never_needs_less(name: str, load: Load, share: float) -> None:
    most = BOUNDS.get(name, (0, min(MEANINGS[name][2], 1000)))[1]
    value = getattr(load, name)
    more = totals(plan(replace(load, **{name: value + share * (most - value)})))
    assert all(more[what] >= least * (1 - 1e-9) for what, least in totals(plan(load)).items())


def test_twice_the_events_take_more_of_all_but_what_is_fixed() -> None:
    one, two = plan(Load(events_per_s=20_000)), plan(Load(events_per_s=40_000))
    assert two.workers == pytest.approx(2 * one.workers, abs=1)
    assert two.disk_gb["served.ctr"] == pytest.approx(2 * one.disk_gb["served.ctr"])
    assert two.cores["fine-tune"] == one.cores["fine-tune"]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_each_figure_is_the_one_that_its_page_says(name: str) -> None:
    figure = FIGURES[name]
    page, _, anchor = figure.page.partition("#")
    head = next(line for line in text(page).splitlines() if line.startswith("#") and slug(line) == anchor)
    depth = len(head) - len(head.lstrip("#"))
    part = re.split(rf"^#{{1,{depth}}} ", text(page).partition(head + "\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    assert figure.said in part
    assert f"{figure.value:g}" in figure.said.replace(",", "")


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text("utf-8")


def slug(head: str) -> str:
    return re.sub(r"[^\w\- ]", "", head.lstrip("# ").lower()).replace(" ", "-")


def test_the_table_of_the_page_is_the_figures() -> None:
    rows = [f"| {each.what} | {each.value:g} {each.unit} | `{each.bench}` |" for each in FIGURES.values()]
    shown = text("capacity.md").partition("<!-- table: figures -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert shown == rows, "\n".join(rows)


def test_the_sizes_are_what_the_benchmark_measures() -> None:
    """Measured again, of fewer events: a contract or a feature row that has grown makes the figures old."""
    found = sizes(users=200, events=640)
    for task, (topic, record) in {
        "fraud": ("orders", "order"),
        "recommendations": ("clicks", "click"),
        "ctr": ("impressions", "impression"),
    }.items():
        found[f"{record}_bytes"] = next(value for name, value in found.items() if name.endswith(f"{topic}_bytes"))
        found[f"{task}_score_bytes"] = found[f"scores.{task}_bytes"]
        found[f"{task}_served_bytes"] = found[f"served.{task}_bytes"]
        found[f"{task}_example_bytes"] = found[f"examples.{task}_bytes"]
    found["label_bytes"] = found["labels_bytes"]
    measured = {name: each.value for name, each in FIGURES.items() if each.unit == "bytes" and name in found}
    assert len(measured) == 15
    assert {name: found[name] for name in measured} == {
        name: pytest.approx(v, rel=0.08) for name, v in measured.items()
    }


def test_what_is_fixed_is_what_the_product_has() -> None:
    known, rules = Settings(), {task: Rule.of(make_task(task)) for task in TASKS}
    assert FIXED["slots"] == known.state.slots
    assert FIXED["learner_mb"] == known.learning.memory_mb
    assert FIXED["fine_tune_cores"] == known.learning.threads
    assert FIXED["segment_mb"] == int(STATE["segment.bytes"]) >> 20
    assert FIXED["dirty"] == 1 / (1 - float(STATE["min.cleanable.dirty.ratio"]))
    assert FIXED["negatives"] == rules["ctr"].negatives
    assert {task: FIXED[f"{task}_days"] for task in TASKS} == {
        task: (rule.window_ms + rule.grace_ms) / DAY_MS for task, rule in rules.items()
    }
    assert {task: [FIXED[f"{task}_answered_days"]] for task in ("recommendations", "ctr")} == {
        task: [ms / DAY_MS for _, ms in rule.also] for task, rule in rules.items() if rule.also
    }


def test_what_topics_keep_by_default_is_what_topics_keep() -> None:
    days = {spec.name: int(spec.config.get("retention.ms", 0)) / DAY_MS for spec in topic_specs(Settings())}
    load = Load()
    assert load.retention_days == days["events.orders"] == days["events.clicks"] == days["events.impressions"]
    assert load.scores_days == days["scores.ctr"]
    assert load.served_days == days["served.ctr"]
    assert load.labels_days == days["events.labels"]
    assert load.examples_days == days["training.examples"]


def test_every_option_of_the_command_is_a_field_of_the_load() -> None:
    assert {each.name for each in fields(Load)} == MEANINGS.keys()
    run = CliRunner().invoke(
        app, ["capacity", "--events-per-s", "2000", "--users", "5e6", "--retention-days", "14", "--json"]
    )
    made = json.loads(run.stdout)
    wanted = plan(Load(events_per_s=2000, users=5e6, retention_days=14))
    assert {name: made[name] for name in asdict(wanted)} == asdict(wanted)
    assert made["dominates"]["disk_gb"] == largest(wanted.disk_gb)


def test_a_value_that_cannot_be_meant_is_an_error_that_names_it() -> None:
    for bad in ({"users": float("nan")}, {"headroom": 1.0}, {"orders": 0.7, "impressions": 0.6}):
        with pytest.raises(SettingsError, match=next(iter(bad))):
            Load(**bad)


@pytest.mark.skipif(not shutil.which("node"), reason="no node; the browser's test runs the same script")
@settings(max_examples=3, deadline=None)
@given(st.lists(loads, min_size=30, max_size=30))
def test_the_pages_calculator_gives_the_same_numbers(many: list[Load]) -> None:
    script = (
        f"const {{capacity}} = require({json.dumps(str(ROOT / 'deploy/site/calculator.js'))});"
        "const {loads, k} = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(loads.map((load) => capacity(load, k))))"
    )
    given_in = json.dumps({"loads": [asdict(load) for load in many], "k": constants()})
    done = subprocess.run(["node", "-e", script], input=given_in, capture_output=True, text=True, check=True)
    for load, found in zip(many, json.loads(done.stdout), strict=True):
        wanted = asdict(plan(load))
        for name in ("cores", "memory_mb", "disk_gb"):
            assert found.pop(name) == pytest.approx(wanted.pop(name), rel=1e-9, abs=1e-9)
        assert found == wanted
