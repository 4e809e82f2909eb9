"""`headrace simulate` and `headrace replay`: a shop to score where there is none at hand.
What of it is real and what is simulated is said at the start."""

import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streams.cli.frame import INTERRUPTED, JSON_OPTION, Ticker, load_settings, open_registry, print_json

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.sources.replay import Pace

START = typer.Option("2011-06-01", metavar="DAY", help="First day of the shop's time, UTC.")
END = typer.Option("2011-12-09", metavar="DAY", help="Day after the last one.")
SEED = typer.Option(1, help="Same seed and days, same records.")
SECONDS = typer.Option(0, min=0, metavar="S", help="Stop after S seconds; 0: at the end of its time.")
TRUTH = typer.Option("", metavar="FILE", help="Write the true probabilities and frauds there, as Parquet.")


def register(app: typer.Typer) -> None:
    app.command()(simulate)
    app.command()(replay)


def simulate(
    context: typer.Context,
    rate: float = typer.Option(100, metavar="N", help="Events a second; 0: as fast as Kafka takes them."),
    shop: Annotated[
        Literal["auto", "real", "generated"], typer.Option(help="auto: real if its data can be had.")
    ] = "auto",
    fraud_rate: float = typer.Option(0.015, help="Share of orders that are fraud, about."),
    conversion_rate: float = typer.Option(0.0, help="Share of clicks on ads that end in an order of the item, about."),
    fraud_drift: str = typer.Option("", metavar="DAY", help="A new kind of fraud starts on that day."),
    taste_drift: str = typer.Option("", metavar="DAY", help="Tastes shift on that day."),
    start: str = START,
    end: str = END,
    seed: int = SEED,
    seconds: float = SECONDS,
    truth: str = TRUTH,
    json: bool = JSON_OPTION,
) -> None:
    """Publish a simulated shop: its catalogue, then visits, ads, orders, frauds and their late labels.

    Examples:

        headrace simulate --seconds 60
        headrace simulate --shop generated --rate 1000 --seed 7 --truth truth.parquet
    """
    settings = load_settings(context)
    from streams.sources.replay import Pace

    _play(
        settings,
        Pace(rate=rate or None),
        seconds,
        truth,
        json,
        seed,
        start=start,
        end=end,
        shop=shop,
        fraud_rate=fraud_rate,
        conversion_rate=conversion_rate,
        fraud_drift=fraud_drift or None,
        taste_drift=taste_drift or None,
    )


def replay(
    context: typer.Context,
    speed: float = typer.Option(3600, metavar="X", help="Shop time over real time: 3600 is an hour a second."),
    start: str = START,
    end: str = END,
    seed: int = SEED,
    seconds: float = SECONDS,
    truth: str = TRUTH,
    json: bool = JSON_OPTION,
) -> None:
    """Publish a real shop's orders (Online Retail II) in the rhythm they came in, only faster.

    Orders, prices and texts are the shop's own; visits, ads, payment and fraud around them are simulated.
    Nights are shortened. Fetches the data the first time (`headrace data fetch online-retail`).

    Examples:

        headrace replay --seconds 60
        headrace replay --start 2011-11-01 --speed 86400
    """
    settings = load_settings(context)
    from streams.sources.replay import Pace

    _play(settings, Pace(speed=speed), seconds, truth, json, seed, start=start, end=end, shop="real")


def _play(settings: "Settings", pace: "Pace", seconds: float, truth: str, json: bool, seed: int, **config: Any) -> None:
    """Publishes a world until it ends, `seconds` are over, or Ctrl-C; then says what was sent."""
    from dataclasses import asdict
    from pathlib import Path

    from streams.clients import require_broker
    from streams.sources.publisher import Publisher
    from streams.sources.simulate import simulate as play
    from streams.sources.world import World, WorldConfig

    shop = WorldConfig(**config, keep_truth=bool(truth))
    require_broker(settings)
    with (
        open_registry(settings) as registry,
        Publisher(settings, registry, source="simulator", replayed=True) as publisher,
    ):
        world = World(shop, seed)
        print(world, file=sys.stderr)
        stop, ticker = threading.Event(), Ticker("events")
        timer = threading.Timer(seconds, stop.set)
        timer.daemon = True
        if seconds:
            timer.start()
        truth_file = Path(truth) if truth else None
        counts = play(world, publisher, pace, truth=truth_file, stop=stop, on_event=ticker.tick)
        timer.cancel()
        ticker.end()
    if json:
        print_json(asdict(counts))
    else:
        print(counts)
    if counts.stopped and not stop.is_set():
        raise typer.Exit(INTERRUPTED)
