"""`headrace mapping`: a shop's own topics in Headrace's contracts: suggested, tried on samples, then followed.
The file is TOML; docs/adopt.md tells what it may say."""

import json as json_text
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.frame import FAILED, JSON_OPTION, load_settings, open_registry, print_json, print_table

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.mapping.checking import Report
    from streams.mapping.reading import Item

app = typer.Typer(no_args_is_help=True, help="Map your own topics: suggest a file, try it on samples, follow it.")

SAMPLES = typer.Option(500, "--samples", min=1, max=100_000, metavar="N", help="How many records to look at.")
FROM_FILE = typer.Option("", "--from-file", metavar="FILE", help="NDJSON or Parquet in place of the topic.")
FILE = typer.Argument(metavar="FILE", help="The mapping, TOML.")


@app.command()
def suggest(
    context: typer.Context,
    topic: str = typer.Argument("", metavar="[TOPIC]", help="The topic to look at."),
    target: str = typer.Option("order", "--to", metavar="CONTRACT", help="click, order, ad_impression, label, ..."),
    form: str = typer.Option("json", "--format", metavar="FORMAT", help="json, or avro with the registry's schemas."),
    from_file: str = FROM_FILE,
    samples: int = SAMPLES,
) -> None:
    """Propose a mapping from samples, by names, types and values. It marks with ?? what it is not sure of.

    Nothing is written but the proposal, on stdout. Read it, mend it, and try it with `headrace mapping check`.

    Examples:

        headrace mapping suggest shop.orders --to order > orders.toml
        headrace mapping suggest shop.events --to click --format avro > clicks.toml
        headrace mapping suggest --from-file old-orders.ndjson --to order
    """
    settings = load_settings(context)
    from schemas.errors import SettingsError
    from streams.mapping.document import TARGETS
    from streams.mapping.suggest import suggest as guess
    from streams.mapping.writing import as_toml

    if target not in TARGETS:
        raise SettingsError(f"there is no contract {target!r} to map to", where="--to", expected=", ".join(TARGETS))
    if bool(topic) == bool(from_file):
        raise SettingsError("one of a topic and --from-file", where="mapping suggest")
    if form not in ("json", "avro"):
        raise SettingsError(
            f"nothing is known of {form!r} without a mapping", where="--format", expected="json or avro",
            todo="for Protobuf write the file by hand: docs/adopt.md shows one",
        )  # fmt: skip
    values = _values(settings, topic, from_file, form, samples)
    name = topic or from_file.rpartition("/")[2].rpartition(".")[0]
    when, guesses = guess(target, values)
    print(as_toml(name, "avro" if form == "avro" else "json", target, when, guesses, len(values)), end="")


@app.command()
def check(
    context: typer.Context,
    file: str = FILE,
    samples: int = SAMPLES,
    from_file: str = FROM_FILE,
    json: bool = JSON_OPTION,
) -> None:
    """Try a mapping on live samples of its topic: what passes, what would be a dead letter, and why.

    The newest records of each partition are taken, nothing is published and nothing committed. The exit code is 1
    if a sample would be a dead letter, or if there are none.

    Examples:

        headrace mapping check orders.toml
        headrace mapping check orders.toml --samples 5000 --json
        headrace mapping check orders.toml --from-file samples.ndjson
    """
    settings = load_settings(context)
    from streams.mapping.checking import check as try_on
    from streams.mapping.mapper import Mapper

    with open_registry(settings) as registry:
        mapper = Mapper.of(settings, _twin(), file) if from_file else Mapper.of(settings, registry, file)
        report = try_on(mapper, _samples(settings, mapper.compiled.document.source, from_file, samples))
    if json:
        reasons = [asdict(reason) for reason in report.reasons.values()]
        print_json(asdict(report) | {"reasons": reasons, "filled": dict(report.filled)})  # a Counter is none any more
    else:
        _show(report, mapper.contract.name)
    if report.dead or not report.samples:
        raise typer.Exit(FAILED)


@app.command()
def run(
    context: typer.Context,
    file: str = FILE,
    start: str = typer.Option(
        "committed", "--start", metavar="WHERE", help="committed (else the end, at first), beginning or end."
    ),
    port: int | None = typer.Option(
        None, "--port", min=0, max=65_535, metavar="N", help="Of health and metrics, in place of the setting."
    ),
) -> None:
    """Follow the topic until stopped: each record is published in the contract, or is a dead letter, exactly once.

    It goes on from where its group stands; the first time, from what comes from now on (`headrace backfill` takes in
    what is there already, without scoring it). One process a mapping: a second one shuts the first one out. Killed at
    any moment, the next one goes on. Each event has a header `headrace-source` with the place it came from. Health and
    metrics are on `mapping_web.host`:`mapping_web.port`: /healthz, /readyz, /metrics.

    Examples:

        headrace mapping run orders.toml
        headrace mapping run orders.toml --start beginning --port 6070
    """
    settings = load_settings(context, service=True)
    from schemas.errors import SettingsError
    from streams.clients import require_broker
    from streams.mapping.process import MappingProcess

    if start not in ("committed", "beginning", "end"):
        raise SettingsError(f"{start!r} is no place", where="--start", expected="committed, beginning or end")
    if port is not None:
        settings = settings.model_copy(update={"mapping_web": settings.mapping_web.model_copy(update={"port": port})})
    require_broker(settings)
    with open_registry(settings) as registry:
        process = MappingProcess(settings, registry, file, start)  # type: ignore[arg-type]  # it is one of the three
        process.run()
    print(process.said())


def _values(settings: "Settings", topic: str, from_file: str, form: str, count: int) -> list[Any]:
    """Decoded samples; what cannot be decoded is left out."""
    from pathlib import Path

    from schemas.errors import BadRecord
    from streams.mapping.decoding import decoder
    from streams.mapping.document import Document

    document = Document(name="samples", source="samples", format=form, target="order", fields={})  # type: ignore[arg-type]  # checked
    out = []
    with open_registry(settings) as registry:
        decode = decoder(document, registry, Path())
        for item in _samples(settings, topic, from_file, count):
            if item.value is not None:
                out.append(item.value)
            elif item.raw.value is not None:
                try:
                    out.append(decode(item.raw.value))
                except BadRecord:
                    continue
    return out


def _samples(settings: "Settings", topic: str, from_file: str, count: int) -> "list[Item]":
    from streams.clients import require_broker
    from streams.mapping.sampling import of_file, of_topic

    if from_file:
        return of_file(from_file, count, 8 * settings.max_message_bytes)
    require_broker(settings)
    return of_topic(settings, topic, count)


def _twin() -> Any:
    """For samples of a file no registry is asked: nothing is published."""
    from schemas.registry import MemoryRegistry

    return MemoryRegistry()


def _show(report: "Report", topic: str) -> None:
    if not report.samples:
        print("no samples: the topic is empty")
        return
    rest = f"{report.left_out:,} left out, {report.dead:,} dead letters"
    print(f"{report.samples:,} samples: {report.good:,} to {topic}, {rest}")
    print(f"{report.users:,} users, {report.guests:,} of them guests; {report.us:.0f} µs of CPU a record")
    if report.reasons:
        reasons = sorted(report.reasons.values(), key=lambda reason: -reason.count)
        print_table(("count", "code", "field", "first"), [(r.count, r.code, r.where, r.place) for r in reasons])
        for reason in reasons:
            print(f"{reason.place}: {reason.example}")
    if report.good:
        never = f"{report.good:,} of {report.good:,}"
        rows = [(name, f"{count:,} of {report.good:,}") for name, count in sorted(report.filled.items())]
        print_table(("field", "filled"), [row for row in rows if row[1] != never] or [("all that is mapped", never)])
        print(json_text.dumps(report.example, ensure_ascii=False))
