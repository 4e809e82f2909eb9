"""`headrace broker`: a real Kafka and a real schema registry on this machine, for a first look.
They listen on 127.0.0.1 at the ports of the settings, and keep their data in `data_dir`."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.frame import FAILED, JSON_OPTION, load_settings, print_json, print_table

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.java import JavaServer

app = typer.Typer(no_args_is_help=True, help="Run a Kafka broker and a schema registry on this machine.")


@app.command()
def start(context: typer.Context) -> None:
    """Start both, unless they run already, and return when they answer.

    The first start fetches Kafka and the registry (about 200 MB) into the cache folder;
    no Docker and no Java are needed. They go on running until `headrace broker stop`.

    Examples:

        headrace broker start
        HEADRACE_BROKERS=127.0.0.1:19092 headrace broker start
    """
    settings = load_settings(context)
    with ExitStack() as undo:
        for server in _servers(settings):
            was_running = server.status().running
            server.start()
            if not was_running:
                undo.callback(server.stop)
        undo.pop_all()
    print(f"Kafka on {settings.brokers}, schema registry on {settings.registry_url}")


@app.command()
def stop(context: typer.Context) -> None:
    """Stop both in order; their data stays.

    Example:

        headrace broker stop
    """
    settings = load_settings(context)
    for server in reversed(_servers(settings)):
        running = server.status().running
        server.stop()
        print(f"{server.name}: {'stopped' if running else 'was not running'}")


@app.command()
def status(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """Say whether they run and answer; exit code 1 if one does not.

    Example:

        headrace broker status --json
    """
    settings = load_settings(context)
    states = [_state(server) for server in _servers(settings)]
    if json:
        print_json(states)
    else:
        columns = ("name", "running", "answers", "pid", "port", "folder")
        print_table(columns, [[state[column] for column in columns] for state in states])
    if not all(state["answers"] for state in states):
        raise typer.Exit(FAILED)


def _state(server: "JavaServer") -> dict[str, Any]:
    state = server.status()
    return {
        "name": state.name,
        "running": state.running,
        "answers": state.running and server.answers(),
        "pid": state.pid,
        "port": state.port,
        "folder": str(state.folder),
    }


def _servers(settings: "Settings") -> "tuple[JavaServer, ...]":
    """Broker and registry at the addresses of the settings. SettingsError if not on this machine."""
    from streams.local import local_servers

    return local_servers(settings)
