"""`headrace catalog`: texts of items and ads to the vectors that the models read, and an encoder of the shop's own.
One process a shop encodes; workers only read what it publishes."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from streams.cli.frame import load_settings, open_registry

if TYPE_CHECKING:
    from schemas.registry import Registry
    from streams.config import Settings
    from streams.events import Record
    from streams.vectors import Encoder

TUNED = "tuned"  # below the folder of encoders, so that none is taken for the one that all begin with

app = typer.Typer(no_args_is_help=True, help="Keep the catalogue's vectors in step with its texts.")


@app.command()
def encode(
    context: typer.Context,
    once: bool = typer.Option(False, "--once", help="Encode what is there now, and end."),
    encoder: str = typer.Option("", "--encoder", metavar="DIR", help="Of `headrace catalog tune`; else the usual."),
    rows_from: str = typer.Option("", "--rows-from", metavar="TOPIC", help="Of another encoder's vectors: same rows."),
) -> None:
    """Encode new and changed texts of the catalogue, and go on following it until Ctrl-C.

    Needs the text encoder: `headrace data fetch text-encoder`, which exports it once (with the `train` extra).

    A topic holds the vectors of one encoder. For another one, name another topic in `topics.vectors`, encode into it
    with --rows-from, and train releases on it; then restart the workers with that topic.

    Examples:

        headrace catalog encode --once
        headrace catalog encode
        headrace --config next.toml catalog encode --once --encoder DIR --rows-from catalog.vectors
    """
    import threading

    from schemas.confluent import ConfluentRegistry
    from streams.clients import require_broker
    from streams.encoding import CatalogueEncoder

    settings = load_settings(context)
    require_broker(settings)
    registry = ConfluentRegistry(settings.registry())
    made = _given(Path(encoder)) if encoder else text_encoder(settings.data_dir / "encoder")
    following = CatalogueEncoder(settings, registry, made, rows_from)
    try:
        if once:
            print(f"{following.step():,} vectors published")
        else:
            following.follow(threading.Event())
    finally:
        following.close()
        registry.close()


@app.command()
def tune(
    context: typer.Context,
    since: str = typer.Option("", "--from", metavar="TIME", help="Events from then on, ISO 8601 with zone; else all."),
    until: str = typer.Option("", "--to", metavar="TIME", help="Events before then; else all."),
    steps: int = typer.Option(300, "--steps", min=1, help="Of training: 0.5 s of CPU each, with short titles."),
    curves: str = typer.Option("", "--curves", metavar="DIR", help="Scalars for TensorBoard go here."),
) -> None:
    """Fine-tune the text encoder on what this shop's customers buy and click together, and print its folder.

    Titles of items that are in one order, or clicked within half an hour, come near each other. Nothing of the shop
    changes by it: `headrace catalog encode --encoder DIR` makes the vectors, in a topic of their own.

    Examples:

        headrace catalog tune --to 2025-12-01T00:00Z
    """
    from streams.cli.training import library, moment
    from streams.clients import require_broker
    from streams.recorded import Recorded
    from streams.sources.fetch import fetch

    settings = load_settings(context)
    texts, exporting = library("finetune.texts"), library("engines.encoder_export")
    span = moment(since, "--from", 0), moment(until, "--to", 1 << 62)
    require_broker(settings)
    folder = settings.data_dir / "encoder" / TUNED
    with open_registry(settings) as registry, TemporaryDirectory(prefix="headrace-texts-") as scratch:
        items = _items(settings, registry)
        recorded = Recorded(settings, registry, Path(scratch), since=span[0], until=span[1])
        recorded.read()
        number = {item["item_id"]: place for place, item in enumerate(items)}
        together = texts.Together(texts.groups_of(recorded, number), len(items))
        print(f"{len(together.groups):,} groups of {len(items):,} items", file=sys.stderr)
        made = texts.tune_encoder(
            fetch("text-encoder"), [item["text"] for item in items], together, Path(scratch) / "source",
            texts.TextCourse(steps=steps), _told, library("finetune.curves").Curves(Path(curves) if curves else None),
        )  # fmt: skip
        exported = exporting.export_encoder(Path(scratch) / "source", folder)
    print(f"loss {made:.4f}", file=sys.stderr)
    print(exported)


def _items(settings: "Settings", registry: "Registry") -> "list[Record]":
    """The newest record of each item, in order of its id. Raises DataUnavailable where there is none."""
    from schemas.errors import DataUnavailable
    from streams.tracing.reading import TopicReader

    reader = TopicReader(settings, registry, settings.topics.items, "catalog_item")
    newest = {found.record["item_id"]: found.record for chunk in reader.chunks() for found in chunk}
    if not newest:
        raise DataUnavailable(
            "the catalogue has no item", where=settings.topics.items, todo="`headrace publish catalog.items FILE`"
        )
    return [newest[ident] for ident in sorted(newest)]


def _told(step: int, steps: int, loss: float) -> None:
    if step == steps or (sys.stderr.isatty() and step % 10 == 0):
        print(f"step {step} of {steps}, loss {loss:.4f}", file=sys.stderr, flush=True)


def _given(folder: Path) -> "Encoder":
    from engines.encoder import TextEncoder

    return TextEncoder(folder)


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
