"""`headrace backfill`: history in, without a score. `headrace train` makes the first releases of it.
Both may be killed and called again."""

import sys
import time
from typing import TYPE_CHECKING

import typer

from streams.cli.frame import FAILED, JSON_OPTION, load_settings, open_registry, print_json

if TYPE_CHECKING:
    from streams.mapping.service import Follower


def register(app: typer.Typer) -> None:
    app.command()(backfill)


def backfill(
    context: typer.Context,
    source: str = typer.Argument(metavar="SOURCE", help="An NDJSON or Parquet file, or an old topic."),
    mapping: str = typer.Option("", "--mapping", metavar="FILE", help="How its records become events."),
    to: str = typer.Option("", "--to", metavar="TOPIC", help="Without a mapping: the topic whose contract they have."),
    rate: float = typer.Option(0, "--rate", min=0, metavar="N", help="At most so many a second; 0: any."),
    bad: str = typer.Option("", "--bad", metavar="FILE", help="Append a file's bad rows here, to be mended."),
    json: bool = JSON_OPTION,
) -> None:
    """Take history in: events that move the state of their users, and are not scored, alerted on or labelled.

    They are published to the event topics with the header `headrace-history`, in transactions that also hold how far
    the source was read. So each is absorbed once: killed at any moment, the same command goes on where it was, and
    called again after the end it does nothing. (Kafka keeps the place for a week, if it is not told otherwise.)
    Of a topic it takes what is there when it starts; `headrace mapping run` then goes on behind it.

    On their partitions live events wait behind history, so it waits itself while the workers are more than
    `backfill_lag` records behind; where none is running it does not. Bad records of a topic become dead letters; bad
    rows of a file are counted, and make the exit code 1.

    Examples:

        headrace backfill orders-2025.parquet --to events.orders
        headrace backfill orders.ndjson --mapping orders.toml --bad orders.bad.ndjson
        headrace backfill shop.orders --mapping orders.toml --rate 5000
    """
    settings = load_settings(context)
    from streams.backfill.files import BadRows
    from streams.backfill.pacing import Pace
    from streams.backfill.plans import plan
    from streams.backfill.workers import Workers
    from streams.clients import require_broker
    from streams.mapping.service import Follower, until_signalled

    require_broker(settings)
    rows = BadRows(bad) if bad else None
    meter = Meter()
    with open_registry(settings) as registry:
        planned = plan(settings, registry, source, mapping=mapping, to=to, bad=rows)
        follower = Follower(settings, registry, planned)
        pace = Pace(settings.backfill_lag if planned.topic in settings.topics.inputs else 0, Workers(settings))
        until_signalled(follower, lambda: follower.run(until_end=True, progress=meter, rate=rate, hold=pace))
    meter.end()
    if rows is not None:
        rows.close()
    _print_end(source, planned.topic, follower, json)
    if follower.carried.bad:
        raise typer.Exit(FAILED)


def _print_end(source: str, topic: str, follower: "Follower", json: bool) -> None:
    carried, (done, all_) = follower.carried, follower.done
    if json:
        bad_counts = dict(carried.bad)
        print_json(
            {
                "topic": topic, "read": done, "of": all_, "absorbed": carried.published,
                "left_out": carried.left_out, "bad": bad_counts, "examples": carried.examples,
            }
        )  # fmt: skip
    else:
        for example in carried.examples.values():
            print(f"not used: {example}", file=sys.stderr)
        state = "stopped" if follower.stopped else "done"
        codes = ", ".join(f"{count:,} {code}" for code, count in carried.bad.most_common()) or "none"
        now = f"{carried.published:,} published now, {carried.left_out:,} left out, bad: {codes}"
        print(f"{source} to {topic}, {state}: {done:,} of {all_:,} read; {now}")


class Meter:
    """How far it has come and what time is left: a line that changes on a terminal, one each ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._begun, self._first = time.monotonic(), -1
        self._said = self._begun

    def __call__(self, done: int, all_: int, waits: str = "") -> None:
        now = time.monotonic()
        if self._first < 0:
            self._begun, self._first = now, done
        if now - self._said < (0.5 if self._terminal else 10):
            return
        self._said = now
        rate = (done - self._first) / max(now - self._begun, 1e-9)
        left = f"waits: {waits}" if waits else f"{_duration((all_ - done) / rate)} left" if rate else "waiting"
        line = f"{done:,} of {all_:,} ({done / max(1, all_):.0%}), {rate:,.0f}/s, {left}"
        print(
            f"\r\033[K{line}" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
