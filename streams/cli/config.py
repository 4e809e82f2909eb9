"""`headrace config`: which settings are in force, and where each value came from.
Secrets are masked here as everywhere."""

from typing import Any

import typer

from streams.cli.frame import JSON_OPTION, load_settings, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Show the settings.")


@app.command()
def show(
    context: typer.Context,
    json: bool = JSON_OPTION,
    changed: bool = typer.Option(False, "--changed", help="Only what is not a default."),
) -> None:
    """List every setting, its value and its source. Secrets are masked.

    A setting `batch.max_events` is the variable HEADRACE_BATCH__MAX_EVENTS, and `max_events` under
    `[batch]` in a TOML file.

    Examples:

        headrace config show --changed
        HEADRACE_BATCH__MAX_EVENTS=64 headrace config show --json
    """
    settings = load_settings(context)
    from streams.config_sources import flatten

    values = flatten(settings.model_dump(mode="json"))
    rows = [
        (name, values[name], source)
        for name, source in settings.sources().items()
        if source != "default" or not changed
    ]
    if json:
        print_json({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        print_table(("setting", "value", "source"), [(name, _shown(value), source) for name, value, source in rows])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
