"""The layout holds: imports go one way, nothing goes round, the worker is free of torch, files stay small.
Read from the sources, so a module is judged also if no test imports it.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "engines", "streams", "finetune", "bench")
# Arrays in, arrays out: the learner replays through these, so nothing under them may reach for a cluster.
PURE = (
    "streams.batch",
    "streams.catalog",
    "streams.events",
    "streams.features",
    "streams.labels",
    "streams.policy",
    "streams.rows",
    "streams.state",
    "streams.tasks",
)
# What a person runs. It alone may reach both the fine-tune and Kafka.
TOP = ("streams.cli", "streams.console", "streams.demo", "streams.learner", "streams.__main__")
KAFKA = {"aiokafka", "confluent_kafka", "faust", "kafka", "mode"}
TORCH = {"onnxscript", "peft", "torch", "transformers"}
# Loaded by name, so no import statement leads a reader of the sources to it.
SERVING_ENGINES = ("engines.openvino",)
# Compiles the codecs of parsed schemas; names reach the code as literals only.
MAY_EXECUTE = ("schemas.codegen",)
MAX_FILE, MAX_FUNCTION = 300, 60


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    tree: ast.Module = field(repr=False)

    def part_of(self, names: tuple[str, ...]) -> bool:
        return any(self.name == name or self.name.startswith(name + ".") for name in names)

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@cache
def modules() -> dict[str, Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = Module(name, path, ast.parse(path.read_text("utf-8")))
    return found


def imports(module: Module) -> Iterator[str]:
    """Full names of what a module imports anywhere, but for the sake of types alone."""
    for node in walk_outside_type_checking(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def walk_outside_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from walk_outside_type_checking(child)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = module.path.name == "__init__.py"
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


def own_imports(module: Module) -> set[str]:
    """Modules of ours that `module` imports: `a.b.c` counts as module a.b if c is a name in it."""
    found = set()
    for name in imports(module):
        while name and name not in modules():
            name = name.rpartition(".")[0]
        if name and name != module.name:
            found.add(name)
    return found


def foreign_imports(module: Module) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)} - set(PACKAGES)


def reached(module: Module) -> set[str]:
    """`module` and all modules of ours that its import leads to."""
    found, todo = set[str](), [module.name]
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += own_imports(modules()[name])
    return found


def foreign_reached(module: Module) -> set[str]:
    return set().union(*(foreign_imports(modules()[name]) for name in reached(module)))


def allowed(module: Module, other: Module) -> bool:
    """Whether `module` may import `other`: the table of the architecture."""
    if module.package == "bench" or (module.part_of(TOP) and other.package != "bench"):
        return True
    if other.part_of(TOP):
        return False
    below = {
        "schemas": ("schemas",),
        "engines": ("schemas", "engines"),
        "streams": ("schemas", "engines", "streams"),
        "finetune": ("schemas", "engines", "finetune"),
    }
    pure_for_the_learner = module.package == "finetune" and not foreign_reached(other) & KAFKA
    return other.part_of(below[module.package]) or pure_for_the_learner


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module.name} imports {other}"
        for module in modules().values()
        for other in sorted(own_imports(module))
        if not allowed(module, modules()[other])
    ]
    assert not wrong


def test_nothing_imports_the_tests() -> None:
    """They are not installed, and what a benchmark stands on is its own."""
    assert not {name for name, module in modules().items() if "tests" in foreign_imports(module)}


def test_no_import_goes_round() -> None:
    graph = {name: own_imports(module) for name, module in modules().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_pure_part_reaches_no_kafka() -> None:
    assert not {name for name, module in modules().items() if module.part_of(PURE) and foreign_reached(module) & KAFKA}


def test_engines_and_the_learner_know_no_stream_app() -> None:
    parts = ("engines", "finetune")
    assert not {name for name, module in modules().items() if module.part_of(parts) and foreign_reached(module) & KAFKA}


def test_schemas_and_streams_reach_no_torch() -> None:
    lower = [module for module in modules().values() if module.package in ("schemas", "streams")]
    assert not {module.name for module in lower if not module.part_of(TOP) and foreign_reached(module) & TORCH}


def test_nothing_the_worker_imports_brings_torch() -> None:
    """For real, in a fresh process: a library may bring it along."""
    names = [name for name, module in modules().items() if module.package in ("schemas", "streams")]
    names += [name for name in SERVING_ENGINES if name in modules()]
    code = f"""
import importlib, sys
for name in {[name for name in names if not name.endswith("__main__")]!r}:
    importlib.import_module(name)
    found = sorted({TORCH!r} & sys.modules.keys())
    assert not found, f"{{name}} brings {{found}}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]


def test_what_the_type_checker_is_told_to_pass_over_has_a_reason() -> None:
    silent = []
    for module in modules().values():
        for number, line in enumerate(module.path.read_text("utf-8").splitlines(), 1):
            if "# type: ignore" in line and not re.search(r"# type: ignore\[[\w, -]+\]  # \S", line):
                silent.append(f"{module.name}:{number}")
    assert not silent


def test_nothing_unpickles() -> None:
    pickles = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert not {name for name, module in modules().items() if foreign_imports(module) & pickles}


def test_nothing_executes_text_but_the_schema_compiler() -> None:
    assert not {
        name for name, module in modules().items() if calls(module) & {"eval", "exec"} and name not in MAY_EXECUTE
    }


def calls(module: Module) -> set[str]:
    """Names of the plain functions that a module calls."""
    nodes = (node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


@pytest.mark.parametrize("word", ["utils", "util", "helpers", "helper", "manager", "common", "misc"])
def test_a_module_is_named_after_what_it_holds(word: str) -> None:
    assert not [name for name in modules() if name.rpartition(".")[2] == word]


def test_every_module_says_what_it_is() -> None:
    silent = [m.name for m in modules().values() if m.path.stat().st_size and not ast.get_docstring(m.tree)]
    assert not silent


def test_files_and_functions_stay_small() -> None:
    large = []
    for module in modules().values():
        if (lines := len(module.path.read_text("utf-8").splitlines())) > MAX_FILE:
            large.append(f"{module.name}: {lines} lines")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION:
                    large.append(f"{module.name}.{node.name}: {length} lines")
    assert not large
