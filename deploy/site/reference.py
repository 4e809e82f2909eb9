"""Reference pages out of the code: contracts, settings, commands, metrics. Nothing here is written by hand twice:
meanings of settings and metrics are read from the tables of docs/operate.md, which tests hold to the code.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command

from deploy.site.pages import DOCS, ROOT
from streams.cli import app
from streams.config import Settings
from streams.learner.metrics import LearnerMetrics
from streams.metrics import Metrics

AVRO, RELEASED = ROOT / "schemas" / "avro", ROOT / "schemas" / "released"
LINK = re.compile(r"\[([^\]]*)\]\((#?[^)\s]*)\)")


def pages() -> dict[str, str]:
    """Text of each page, by its place on the site."""
    return {
        "reference/contracts.md": contracts(),
        "reference/settings.md": settings(),
        "reference/commands.md": commands(),
        "reference/metrics.md": metrics(),
    }


def table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)]) + "\n"


def cell(text: str) -> str:
    """Within a row, and no HTML outside of code: a contract speaks of `anon:<device>`."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("|", "&#124;"))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


@cache
def told(name: str) -> dict[str, str]:
    """What a table of docs/operate.md says of each name: its last cell, with links that lead from reference/."""
    lines = (DOCS / "operate.md").read_text("utf-8").partition(f"<!-- table: {name} -->\n")[2].partition("\n\n")[0]
    found = {}
    for line in lines.splitlines()[2:]:
        cells = [each.strip() for each in line.strip("|").split("|")]
        found[cells[0].strip("`")] = LINK.sub(_from_reference, cells[-1])
    return found


def _from_reference(link: re.Match[str]) -> str:
    return f"[{link[1]}](../{'operate.md' if link[2].startswith('#') else ''}{link[2]})"


def contracts() -> str:
    """Each Avro contract: what it is, its fields, and what each released version brought."""
    parts = [
        "# Contracts\n\nThe Avro contracts of all topics, of `schemas/avro`. They change only so that "
        "old and new readers and writers understand each other (FULL_TRANSITIVE).\n"
    ]
    for path in sorted(AVRO.glob("*.avsc")):
        schema = json.loads(path.read_text("utf-8"))
        parts.append(f"## {path.stem}\n\n{schema.get('doc', '')}\n\nReleased: {versions(path.stem)}.\n")
        parts.append(table(("field", "type", "default", "what"), fields(schema)))
    return "\n".join(parts)


def fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Rows of a record's fields; those of a record in it follow, with its name before theirs."""
    for field in schema["fields"]:
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        yield f"`{prefix}{field['name']}`", said_type(field["type"]), default, field.get("doc", "")
        for inner in records_in(field["type"]):
            yield from fields(inner, f"{prefix}{field['name']}.")


def records_in(kind: Any) -> Iterator[Mapping[str, Any]]:
    for each in kind if isinstance(kind, list) else [kind]:
        if isinstance(each, dict):
            if each["type"] == "record":
                yield each
            for inner in (each.get("items"), each.get("values"), each["type"]):
                if isinstance(inner, dict | list):
                    yield from records_in(inner)


def said_type(kind: Any) -> str:
    """A type in a few words: `array of string`, `null or long, timestamp-millis`."""
    if isinstance(kind, list):
        return " or ".join(map(said_type, kind))
    if not isinstance(kind, dict):
        return str(kind)
    if kind["type"] in ("array", "map"):
        return f"{kind['type']} of {said_type(kind.get('items', kind.get('values')))}"
    if kind["type"] == "enum":
        return "one of " + ", ".join(kind["symbols"])
    name = kind["name"] if "name" in kind else said_type(kind["type"])
    return f"{name}, {kind['logicalType']}" if "logicalType" in kind else name


def versions(name: str) -> str:
    """Its released versions, with the fields that each one brought."""
    known, found = set[str](), []
    for path in sorted((RELEASED / name).glob("*.avsc"), key=lambda each: int(each.stem)):
        here = {row[0] for row in fields(json.loads(path.read_text("utf-8")))}
        new = sorted(here - known) if known else []
        found.append(f"{path.stem}{' (' + ', '.join(new) + ')' if new else ''}")
        known |= here
    return ", ".join(found) or "not yet"


def settings() -> str:
    head = (
        "# Settings\n\nEach setting of the code: its name in `headrace.toml`, its environment variable, "
        "its default. Precedence and spelling: [operate](../operate.md#settings).\n"
    )
    return head + "\n" + table(("setting", "variable", "default", "what"), leaves(Settings))


def leaves(model: type[BaseModel], prefix: str = "", instance: BaseModel | None = None) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        dotted, kind = f"{prefix}{name}", field.annotation
        default = getattr(instance, name) if instance is not None else field.default
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{dotted}.", default if isinstance(default, BaseModel) else None)
            continue
        variable = "HEADRACE_" + dotted.upper().replace(".", "__")
        what = told("settings").get(dotted) or field.description or told("topics").get(dotted, "")
        what = f"name of the topic: kept {what}" if dotted.startswith("topics.") else what
        yield f"`{dotted}`", f"`{variable}`", said_default(default), what


def said_default(value: Any) -> str:
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, tuple | list):
        value = ", ".join(map(str, value))
    if isinstance(value, dict):
        value = ", ".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, bool):
        value = str(value).lower()
    text = str(value)
    return f"`{text}`" if text and not isinstance(value, Path) else ""


def commands() -> str:
    """Each command with its options, as `--help` has them."""
    return "# Commands\n\n" + "\n".join(command(get_command(app), "headrace"))


def command(one: Any, path: str) -> Iterator[str]:
    inner = getattr(one, "commands", {})
    yield f"{'##' if inner else '###'} {path}\n\n{inspect.cleandoc(one.help or '')}\n"
    rows = [option_row(each) for each in one.params]
    if rows:
        yield table(("argument or option", "default", "what"), iter(rows))
    for name in sorted(inner, key=lambda name: (bool(getattr(inner[name], "commands", {})), name)):
        yield from command(inner[name], f"{path} {name}")


def option_row(option: Any) -> tuple[str, ...]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.param_type_name == "argument":
        names = f"`{option.name.upper()}`"
    default = option.default
    shown = "" if option.required or default in (None, "", False, ()) or callable(default) else f"`{default}`"
    return names, "required" if option.required else shown, getattr(option, "help", "") or ""


def metrics() -> str:
    parts = ["# Metrics\n\nWhat `/metrics` of a process has. Alerts on them: [seeing](../seeing.md).\n"]
    for title, registry, name in (
        ("Worker", Metrics().registry, "metrics"),
        ("Learner", LearnerMetrics().registry, "learner metrics"),
    ):
        families = [each for each in registry.collect() if each.name.startswith("headrace_")]
        rows = ((f"`{each.name}`", each.type, told(name).get(each.name) or each.documentation) for each in families)
        parts.append(f"## {title}\n\n" + table(("metric", "type", "what"), rows))
    return "\n".join(parts)
