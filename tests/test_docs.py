"""The documents say what is so: each command, setting, topic, metric, error and field that they name is there,
and nothing of those is left out. Links lead somewhere; code blocks are the files that they show.
"""

import ast
import inspect
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import BaseModel
from typer.main import get_command

from schemas import errors
from schemas.errors import BadRecord, HeadraceError
from streams.cli import app
from streams.config import Settings
from streams.config_sources import flatten
from streams.features import SEQUENCE_FIELDS
from streams.learner.metrics import LearnerMetrics
from streams.mapping.metrics import MappingMetrics
from streams.metrics import Metrics
from streams.tasks import TASKS, make_task
from streams.topics import topic_specs

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# The last of a word in backquotes, if it is a path into the project.
PATH = re.compile(r"`((?:schemas|engines|streams|finetune|bench|tests|docs)/[\w./-]+)`")


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return [(found[1], found[2]) for found in FENCE.finditer(text(page))]


def prose(page: str) -> str:
    return FENCE.sub("", text(page))


def code_lines(page: str) -> Iterator[str]:
    """Lines of shell blocks, without comments, and what stands in backquotes."""
    for language, content in blocks(page):
        if language in ("bash", "console", "sh"):
            yield from (line.partition(" #")[0].removeprefix("$ ") for line in content.splitlines())
    yield from re.findall(r"`([^`]+)`", prose(page))


def table(page: str, name: str) -> list[list[str]]:
    """Cells of the rows of the table under `<!-- name -->`."""
    lines = text(page).partition(f"<!-- {name} -->\n")[2].splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert len(rows) > 2, f"{page} has no table {name}"
    return rows[2:]


def first_word(cell: str) -> str:
    return cell.strip("`")


def anchors(page: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        where = os.path.relpath(file, ROOT)
        if not file.exists() or (anchor and anchor not in anchors(where)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    shown = {"streams/tasks/next_purchase.py"}  # the file that add-a-task makes
    assert not [path for path in PATH.findall(prose(page)) if path not in shown and not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    wrong = []
    for line in code_lines(page):
        found = re.search(r"(?:^|\s|/)headrace ((?:[a-z-]|--).*)", line)
        if found and (problem := misused(found[1].split())):
            wrong.append(f"{line}: {problem}")
    assert not wrong


def misused(words: list[str]) -> str:
    """What is wrong with the words after `headrace`; empty if nothing is."""
    command: Any = get_command(app)
    options = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    for word in words:
        if word in ("|", ">", "&"):
            break
        if hasattr(command, "commands") and re.fullmatch(r"[a-z]+", word):
            if word not in command.commands:
                return f"no command {word}"
            command = command.commands[word]
            options |= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        elif word.startswith("--") and word.partition("=")[0] not in options:
            return f"no option {word}"
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = {found[1] for line in code_lines(page) for found in re.finditer(r"(?:^|\s)make ([a-z-]+)", line)}
    assert named <= targets


def test_every_make_target_that_is_worth_a_line_is_in_the_readme() -> None:
    measured = set(re.findall(r"^((?:bench|quality|test|demo|check)[a-z-]*):", text("Makefile"), re.MULTILINE))
    assert {target for target in measured if f"`make {target}`" not in text("README.md")} == set()


@pytest.mark.parametrize("page", [*PAGES, "docker-compose.yml", "Dockerfile"])
def test_setting_variables_exist(page: str) -> None:
    wrong = []
    for variable in set(re.findall(r"\bHEADRACE_[A-Z_]+", text(page))) - {"HEADRACE_", "HEADRACE_CONFIG"}:
        name = variable.removeprefix("HEADRACE_").lower().replace("__", ".")
        if name not in settings() and not name.startswith("deadlines_ms."):
            wrong.append(variable)
    assert not wrong


@cache
def settings() -> dict[str, Any]:
    """Every setting, by its dotted name, with its default."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("HEADRACE_")]:
            patch.delenv(variable)
        patch.chdir(ROOT)
        return flatten(Settings().model_dump(mode="json"))


def test_the_settings_table_is_whole_and_its_defaults_are_right() -> None:
    shown = {first_word(name): first_word(default) for name, default, _ in table("docs/operate.md", "table: settings")}
    wanted = {name: value for name, value in settings().items() if not name.startswith("topics.")}
    assert shown.keys() == wanted.keys()
    here = {"data_dir", "release_store"}  # of the machine
    assert {name: shown[name] for name in shown if name not in here} == {
        name: said(value) for name, value in wanted.items() if name not in here
    }


def said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def test_dotted_names_in_backquotes_are_settings() -> None:
    sections = [name for name, each in Settings.model_fields.items() if is_section(each.annotation)]
    pattern = re.compile(rf"`((?:{'|'.join(sections)})\.[a-z_]+)`")
    named = {name for page in PAGES for name in pattern.findall(prose(page))}
    assert named - {topic for name, topic in settings().items() if name.startswith("topics.")} <= settings().keys()


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_the_topics_table_is_whole_and_right() -> None:
    rows = {cells[0].strip("`"): cells[1:] for cells in table("docs/operate.md", "table: topics")}
    names = {name: value for name, value in settings().items() if name.startswith("topics.")}
    assert {name: cells[0].strip("`") for name, cells in rows.items()} == names
    specs = {spec.name: spec for spec in topic_specs(Settings(partitions=7, brokers="127.0.0.1:9092"))}
    for name, _, partitions, kept in rows.values():
        spec = specs[name.strip("`")]
        assert spec.partitions == (7 if partitions == "`partitions`" else int(partitions)), name
        days = re.match(r"(\d+) days", kept)
        if days:
            assert int(spec.config["retention.ms"]) == int(days[1]) * 86_400_000, name
        else:
            assert (kept == "compacted") == (spec.config.get("cleanup.policy") == "compact"), name


def test_the_metrics_table_is_whole_and_right() -> None:
    metrics = Metrics()
    metrics.latency.observe("fraud", np.array([0.1]))
    found = {family.name: family for family in metrics.registry.collect() if family.name.startswith("headrace_")}
    shown = {first_word(name): labels for name, labels, _ in table("docs/operate.md", "table: metrics")}
    assert shown.keys() == found.keys()


def test_the_table_of_the_learners_metrics_is_whole_and_right() -> None:
    found = {
        family.name: {label for sample in family.samples for label in sample.labels}
        for family in touched(LearnerMetrics()).collect()
        if family.name.startswith("headrace_")
    }
    shown = {first_word(name): labels for name, labels, _ in table("docs/operate.md", "table: learner metrics")}
    assert {name: {part.strip() for part in labels.split(",")} - {""} for name, labels in shown.items()} == found


def test_the_table_of_a_mappings_metrics_is_whole_and_right() -> None:
    found = {
        family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in MappingMetrics("orders").registry.collect()
        if family.name.startswith("headrace_")
    }
    shown = {first_word(name): labels for name, labels, _ in table("docs/operate.md", "table: mapping metrics")}
    assert {name: {part.strip() for part in labels.split(",")} for name, labels in shown.items()} == found


def touched(metrics: LearnerMetrics) -> CollectorRegistry:
    """With one series of each family, so that its labels are there."""
    for each in vars(metrics).values():
        if isinstance(each, Counter | Gauge) and each._labelnames:
            each.labels(*each._labelnames)
    return metrics.registry


def test_every_error_has_its_entry_and_none_else() -> None:
    classes = {name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, HeadraceError)}
    part = text("docs/operate.md").partition("\n## Errors, and what to do\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^### (\w+)$", part, re.MULTILINE)) == classes


def test_retriable_errors_are_said_to_be_so() -> None:
    for name, each in inspect.getmembers(errors, inspect.isclass):
        entry = text("docs/operate.md").partition(f"\n### {name}\n\n")[2]
        assert entry.startswith("Retriable.") == getattr(each, "retriable", False), name


def test_every_code_of_a_dead_letter_has_a_row() -> None:
    part = text("docs/operate.md").partition("\n## Dead letters\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == set(BadRecord.CODES)


def test_every_task_states_its_fallback() -> None:
    part = text("docs/operate.md").partition("\n## Lateness and fallbacks\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == set(TASKS)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_layout_of_served_is_as_documented(task: str) -> None:
    shown = layout("sequence") + (layout(task) if f"<!-- dtype: {task} -->" in text("docs/architecture.md") else [])
    dtype = make_task(task).features
    assert dtype.fields is not None
    found = []
    for name, (field, offset, *_) in dtype.fields.items():
        count = f"{field.shape[0]} x " if field.shape else ""
        found.append((str(offset), name, f"{count}{field.base.name}"))
    assert shown == found
    assert f"{dtype.itemsize} bytes" in text("docs/architecture.md")
    assert len(layout("sequence")) == len(SEQUENCE_FIELDS)


def layout(name: str) -> list[tuple[str, str, str]]:
    return [
        (offset, first_word(field), kind) for offset, field, kind, _ in table("docs/architecture.md", f"dtype: {name}")
    ]


def test_the_task_of_the_tutorial_is_the_one_that_is_tested() -> None:
    code = [content for language, content in blocks("docs/add-a-task.md") if language == "python"]
    assert code[0] == text("tests/toy_task.py")


def test_the_registry_of_the_tutorial_is_the_real_one_and_one_line() -> None:
    code = [content for language, content in blocks("docs/add-a-task.md") if language == "python"][1]
    shown: dict[str, str] = ast.literal_eval(code.partition("= ")[2])
    assert shown == TASKS | {"next_purchase": "streams.tasks.next_purchase:NextPurchase"}


@pytest.mark.parametrize("page", PAGES)
def test_what_python_blocks_import_is_there(page: str) -> None:
    for language, content in blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ImportFrom) and node.module:
                missing = {alias.name for alias in node.names} - defined(node.module)
                assert not missing, node.module


def defined(module: str) -> set[str]:
    """Names that a module of ours or of numpy's has at its top. Read, not imported: torch takes seconds."""
    path = ROOT / (module.replace(".", "/") + ".py")
    path = path if path.exists() else ROOT / module.replace(".", "/") / "__init__.py"
    if not path.exists():
        return set(dir(import_module(module)))
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_readme_shows_code_and_what_it_prints_by_line_20() -> None:
    lines = text("README.md").splitlines()
    fence = next(number for number, line in enumerate(lines) if line.startswith("```"))
    assert lines[fence + 1] == "$ make demo"
    assert lines.index("```", fence + 1) <= 20
