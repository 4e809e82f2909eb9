"""`headrace catalog`: texts of items and ads to the vectors that the models read.
One such process a shop; workers only read what it publishes."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streams.cli.frame import load_settings

if TYPE_CHECKING:
    from streams.vectors import Encoder

app = typer.Typer(no_args_is_help=True, help="Keep the catalogue's vectors in step with its texts.")


@app.command()
def encode(
    context: typer.Context,
    once: bool = typer.Option(False, "--once", help="Encode what is there now, and end."),
) -> None:
    """Encode new and changed texts of the catalogue, and go on following it until Ctrl-C.

    Needs the text encoder: `headrace data fetch text-encoder`, which exports it once (with the `train` extra).

    Examples:

        headrace catalog encode --once
        headrace catalog encode
    """
    import threading

    from schemas.confluent import ConfluentRegistry
    from streams.clients import require_broker
    from streams.encoding import CatalogueEncoder

    settings = load_settings(context)
    require_broker(settings)
    registry = ConfluentRegistry(settings.registry())
    encoder = CatalogueEncoder(settings, registry, text_encoder(settings.data_dir / "encoder"))
    try:
        if once:
            print(f"{encoder.step():,} vectors published")
        else:
            encoder.follow(threading.Event())
    finally:
        encoder.close()
        registry.close()


def text_encoder(folder: Path) -> "Encoder":
    """The encoder exported before, or exported now if torch is installed. Raises DataUnavailable."""
    from engines.encoder import TextEncoder
    from schemas.errors import DataUnavailable
    from streams.sources.fetch import fetch

    source = fetch("text-encoder")
    try:
        from engines.encoder_export import export_encoder
    except ImportError as error:
        found = sorted(folder.glob("*/encoder.json"))
        if found:
            return TextEncoder(found[-1].parent)
        raise DataUnavailable(
            "the text encoder is not exported yet", where=str(folder), todo="install headrace[train] and run this once"
        ) from error
    return TextEncoder(export_encoder(source, folder))
