"""What every command shares: settings, the way errors end, and output for people or for programs.
An error of Headrace is one line on stderr and an exit code, never a traceback unless --debug asks for it."""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from schemas.errors import BadRecord, HeadraceError, SchemaError, SettingsError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from schemas.registry import Registry
    from streams.config import Settings

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
JSON_OPTION = typer.Option(False, "--json", help="Print JSON, for programs.")


@dataclass(frozen=True, slots=True)
class Options:
    """What was said before the command's name."""

    config_file: str | None = None
    debug: bool = False
    tenant: str = ""


class Commands(TyperGroup):
    """The outermost group: every command's failure passes here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a reader that left is understood
            return result
        except HeadraceError as error:
            if ctx.obj is not None and ctx.obj.debug:
                traceback.print_exc()
            shop = f"{ctx.obj.tenant}: " if ctx.obj is not None and ctx.obj.tenant else ""
            print(f"headrace: {shop}{one_line(error)}", file=sys.stderr)
            raise typer.Exit(exit_code(error)) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            # The reader left (`| head`): what it asked for was delivered. Python would complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error


def exit_code(error: HeadraceError) -> int:
    return BAD_INPUT if isinstance(error, (SettingsError, BadRecord, SchemaError)) else FAILED


def one_line(error: HeadraceError) -> str:
    return " ".join(str(error).split())


def load_settings(context: typer.Context, *, service: bool = False, **values: Any) -> "Settings":
    """The settings of this call; `values` outrank environment and file. Logging is set up from them.

    Only a service logs unasked: what a short command has to say is its output, or the one line of its error.
    """
    from streams import logs
    from streams.config import Settings

    options: Options = context.obj or Options()
    if options.tenant:
        values["tenant"] = options.tenant
    settings = Settings(config_file=options.config_file, **values)
    asked = service or options.debug or settings.sources()["log.level"] != "default"
    logs.setup(settings, level="" if asked else "critical")
    return settings


@contextmanager
def open_registry(settings: "Settings") -> Iterator["Registry"]:
    """The schema registry of the settings; its connections are closed at the end."""
    from schemas.confluent import ConfluentRegistry

    with closing(ConfluentRegistry(settings.registry())) as registry:
        yield registry


def print_json(value: Any) -> None:
    """One JSON document on stdout; what JSON does not know is written as text."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """For people: wraps to the terminal; piped, it is as wide as it needs."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    print_whole(table)


def print_whole(what: "RenderableType") -> None:
    """On no terminal, as wide as it is: who reads it further must not find it cut."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(80, console.measure(what).maximum)
    with console.capture() as rendered:
        console.print(what)
    print(rendered.get(), end="")


class Ticker:
    """A line on a terminal that says how far a long command has come; silent in a pipe."""

    def __init__(self, unit: str) -> None:
        self._unit, self._shown = unit, sys.stderr.isatty()
        self._count, self._begun = 0, time.monotonic()
        self._next = self._begun + 0.5

    def tick(self, _: object = None) -> None:
        self._count += 1
        if self._shown and (now := time.monotonic()) >= self._next:
            self._next = now + 0.5
            rate = self._count / (now - self._begun)
            print(f"\r{self._count:,} {self._unit}, {rate:,.0f}/s ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
