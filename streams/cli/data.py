"""`headrace data`: public data sets of real shops, fetched once into the cache.
Each is checked against a pinned digest; licence and size are said before anything is downloaded."""

import sys

import typer

from schemas.errors import SettingsError
from streams.cli.frame import JSON_OPTION, load_settings, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Fetch public data sets.")


@app.command()
def fetch(
    context: typer.Context,
    name: str = typer.Argument(help="A name of `headrace data list`."),
) -> None:
    """Fetch a data set unless it is here, and print its path.

    Example:

        headrace data fetch online-retail
    """
    load_settings(context)
    from streams.sources.datasets import DATASETS
    from streams.sources.fetch import fetch as fetch_dataset

    if name not in DATASETS:
        raise SettingsError(f"no data set named {name!r}", expected=f"one of {', '.join(DATASETS)}")
    print(fetch_dataset(name, say=lambda line: print(line, file=sys.stderr)))


@app.command("list")
def list_(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """List the data sets: size, licence, and whether they are here.

    Example:

        headrace data list --json
    """
    load_settings(context)
    from streams.sources.datasets import DATASETS
    from streams.sources.fetch import cache_folder

    rows = [
        {
            "name": dataset.name,
            "title": dataset.title,
            "licence": dataset.licence,
            "download_mb": dataset.download_mb,
            "here": all((cache_folder() / name / member.saved_as).is_file() for member in dataset.members),
        }
        for name, dataset in DATASETS.items()
    ]
    if json:
        print_json(rows)
    else:
        print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
