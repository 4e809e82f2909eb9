"""`headrace lineage`, `reproduce` and `backtest`: why a score was what it was, and what another release would say.
They only read: no group is joined, no pointer moved, and nothing is produced."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from schemas.errors import DataUnavailable, SettingsError
from streams.cli.frame import (
    FAILED,
    JSON_OPTION,
    Ticker,
    load_settings,
    open_registry,
    print_json,
    print_table,
    print_whole,
)

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.tracing.reproduce import Reproduced

EVENT = typer.Argument(metavar="EVENT_ID", help="The event's id, or its target's: an order_id.")
TASK = typer.Option("", "--task", metavar="TASK", help="Look at this task only; else all of the settings.")


def register(app: typer.Typer) -> None:
    app.command()(lineage)
    app.command()(reproduce)
    app.command()(backtest)


def lineage(
    context: typer.Context,
    event_id: str = EVENT,
    task: str = TASK,
    since: str = typer.Option("", "--since", metavar="TIME", help="ISO 8601: read what the broker got since then."),
    json: bool = JSON_OPTION,
) -> None:
    """Show all that hangs on one scored event: input, scores, what was served, release, labels, examples, shadows.

    Of the release: digest, what it was trained on, the champion that it came from, its certificate and the gate's
    verdict. Of each example: which releases have learned from it. What retention has deleted is said to be gone.

    Examples:

        headrace lineage order-17
        headrace lineage 0b5c2f --task ctr --since 2026-01-31T12:00Z --json
    """
    settings, start = reachable(context), instant(since, "--since") if since else 0
    from streams.cli.releases import open_store
    from streams.tracing.account import account
    from streams.tracing.lineage import trace

    with open_registry(settings) as registry:
        said = account(trace(settings, registry, event_id, task=task, since=start), open_store(settings))
    if json:
        print_json(said)
    else:
        _print_tree(said)


def reproduce(
    context: typer.Context,
    event_id: str = EVENT,
    task: str = TASK,
    json: bool = JSON_OPTION,
) -> None:
    """Compute a score again from what was served, and compare it bit for bit: exit code 1 if it differs.

    Same features, release, engine, bucket and row. It needs this processor to be of the kind that served, and the
    release in the store. Which items could be recommended then is not recorded: where the list comes out another
    one, the scores of the items that were served are compared alone, and that is said. What the fallback answered,
    or what was said again after a crash, cannot be computed again: exit code 1, and it is said.

    Example:

        headrace reproduce order-17
    """
    settings = reachable(context)
    from streams.cli.releases import open_store
    from streams.tasks import make_task
    from streams.tracing.catalogue import read_catalogue
    from streams.tracing.lineage import find_served, task_names, unknown
    from streams.tracing.reproduce import EQUAL
    from streams.tracing.reproduce import reproduce as again

    tasks = [make_task(name) for name in task_names(settings, task)]
    with open_registry(settings) as registry:
        if (found := find_served(settings, registry, event_id, tasks)) is None:
            raise unknown(settings, event_id, tasks, 0)
        catalogue = read_catalogue(settings, registry)
    (said,) = again(settings, open_store(settings), catalogue, [found[1].record])
    if json:
        from dataclasses import asdict

        print_json(asdict(said))
    else:
        _print_reproduced(said)
    if said.verdict != EQUAL:
        raise typer.Exit(FAILED)


def backtest(
    context: typer.Context,
    release: str = typer.Option(..., "--release", metavar="TASK[/VERSION]", help="Without a version: the newest."),
    start: str = typer.Option(..., "--from", metavar="TIME", help="ISO 8601, of the events; included."),
    end: str = typer.Option(..., "--to", metavar="TIME", help="ISO 8601, of the events; excluded."),
    against: str = typer.Option("", "--against", metavar="TASK/VERSION", help="Else what was served."),
    limit: int = typer.Option(0, "--limit", min=0, metavar="N", help="Events at most; 0: all."),
    json: bool = JSON_OPTION,
) -> None:
    """Score a span of served events with a release, and compare quality, decisions and money with what was served.

    Features are taken as they were served; labels are the newest of `training.examples` and `events.labels`. Of fraud
    it says what the frauds would have cost that pass, and the orders of honest customers that would be held up.

    Recommendations are judged by the items that were served: only these have labels, so what was served has the
    advantage; compare two releases with --against.

    Example:

        headrace backtest --release fraud --from 2026-01-01T00:00Z --to 2026-02-01T00:00Z
    """
    span = instant(start, "--from"), instant(end, "--to")
    name, _, version = release.partition("/")
    other, _, other_version = against.partition("/")
    if against and other != name:
        raise SettingsError(f"{against} is of another task", where="--against", expected=f"{name}/VERSION")
    settings = reachable(context)
    from streams.tasks import make_task

    make_task(name)
    said = _backtested(settings, name, version, other_version if against else None, span, limit)
    if json:
        print_json(said)
    else:
        _print_backtest(said)


def instant(text: str, option: str) -> int:
    """UTC ms of an ISO 8601 time; without a zone it is UTC. SettingsError for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{text!r} is no time", where=option, expected="ISO 8601: 2026-01-31T12:00Z") from error
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def reachable(context: typer.Context) -> "Settings":
    settings = load_settings(context)
    from streams.clients import require_broker

    require_broker(settings)
    return settings


def _backtested(
    settings: "Settings", task: str, version: str, against: str | None, span: tuple[int, int], limit: int
) -> dict[str, Any]:
    from streams.cli.backtesting import Backtest
    from streams.cli.releases import open_store
    from streams.tracing.candidate import Candidate, said
    from streams.tracing.catalogue import read_catalogue
    from streams.tracing.span import read_labels, served_in

    store, ticker, unreadable, fallbacks = open_store(settings), Ticker("chunks"), 0, 0
    with open_registry(settings) as registry, ExitStack() as engines:
        catalog = read_catalogue(settings, registry).catalog
        new = engines.enter_context(closing(Candidate(settings, store, catalog, task, version)))
        old = None
        if against is not None:
            old = engines.enter_context(closing(Candidate(settings, store, catalog, task, against)))
        test = Backtest(new.task, read_labels(settings, registry, new.task, *span))
        for chunk in served_in(settings, registry, new.task, *span, limit):
            served = [record for record in chunk if new.readable(record)]
            unreadable += len(chunk) - len(served)
            fallbacks += sum(record["fallback"] is not None for record in served)
            if served:
                test.add(served, (new.score(served), old.score(served) if old else [said(each) for each in served]))
            ticker.tick()
    ticker.end()
    if not test.events:
        raise DataUnavailable(
            "nothing was served in this span",
            where=settings.topics.served(task),
            expected="event times from --from up to --to",
            todo="`headrace tail` shows what is there; what is older than the topic's retention is gone",
        )
    names = {"release": new.name, "against": old.name if old else "what was served"}
    return {**names, **test.report(), "fallbacks": fallbacks, "unreadable": unreadable}


def _print_tree(said: Mapping[str, Any]) -> None:
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(f"{said['task']} {said['event_id']}, target {said['target_id']}, user {said['user_id']}"))
    for name in ("input", "scores", "served", "release", "engine", "labels", "examples", "shadow", "gone"):
        value = said[name]
        if isinstance(value, list):
            branch = root.add(Text(f"{name}: {len(value) or 'none'}"))
            for part in value:
                _grow(branch.add(Text(_place(part))), part) if isinstance(part, Mapping) else branch.add(
                    Text(str(part))
                )
        elif isinstance(value, Mapping):
            _grow(root.add(Text(f"{name}: {_place(value)}")), value)
        else:
            root.add(Text(f"{name}: {value or 'not known'}"))
    print_whole(root)


PLACE = ("topic", "partition", "offset", "timestamp_ms")


def _place(value: Mapping[str, Any]) -> str:
    """Where a record lies and when the broker got it; a release's name."""
    if "topic" not in value:
        return str(value.get("release", ""))
    time = datetime.fromtimestamp(value["timestamp_ms"] / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{value['topic']}[{value['partition']}] at {value['offset']}, {time}"


def _grow(branch: Any, value: Mapping[str, Any]) -> None:
    from rich.text import Text

    for name, part in value.items():
        if name in PLACE or part in (None, [], {}):
            continue
        if name == "gate" and isinstance(part, Mapping) and "verdict" in part:
            grown = branch.add(Text(f"gate: {part['verdict']}"))
            for check in part.get("checks", []):
                grown.add(Text(f"{'passed' if check.get('passed') else 'failed'}: {check.get('said', '')}"))
            continue
        branch.add(Text(f"{name}: {_words(part)}"))


def _words(value: Any) -> str:
    """Nested values on one line: `cut=(clicks=4 orders=-1)`."""
    if isinstance(value, Mapping):
        return " ".join(
            f"{name}=({_words(part)})" if isinstance(part, Mapping) else f"{name}={_words(part)}"
            for name, part in value.items()
        )
    if isinstance(value, list):
        return ", ".join(_words(part) for part in value)
    return str(value)


def _print_reproduced(said: "Reproduced") -> None:
    from streams.tracing.reproduce import CANNOT

    print(f"{said.event_id} ({said.release}): {said.verdict}" + (f", {said.checked}" if said.checked else ""))
    for note in said.notes:
        print(f"  {note}")
    if said.verdict == CANNOT:
        return
    rows: list[tuple[Any, ...]] = [
        ("decision", said.served["decision"], said.again["decision"]),
        *_pairs(said.served, said.again),
        ("engine", said.served_engine, said.engine),
    ]
    print_table(("", "served", "again"), [row for row in rows if row[1] is not None or row[2] is not None])
    print(f"bucket {said.bucket}, row {said.row}, {said.rows} catalogue rows, largest difference {said.difference}")


def _pairs(served: Mapping[str, Any], again: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
    """A line for each candidate of both."""
    if not served["candidates"] and not again["candidates"]:
        return [("prediction", *(" ".join(map(repr, each["prediction"])) for each in (served, again)))]
    scores = [dict(zip(each["candidates"], each["prediction"], strict=True)) for each in (served, again)]
    return [(name, scores[0].get(name), scores[1].get(name)) for name in dict.fromkeys([*scores[0], *scores[1]])]


def _print_backtest(said: Mapping[str, Any]) -> None:
    counts = f"{said['events']:,} events, {said['labelled']:,} labelled ({said['labels']:,} labels)"
    extra = [f"{said[name]:,} {word}" for name, word in WORDS.items() if said[name]]
    print(", ".join([counts, *extra]))
    both = [figures or {} for figures in said["quality"]]
    rows: list[tuple[Any, ...]] = [
        (name, *(f"{figures[name]:.4f}" if name in figures else "" for figures in both)) for name in both[0]
    ]
    for name in said.get("money", [{}])[0]:
        rows.append((MONEY[name], *(f"{side[name]['amount']:,.2f} ({side[name]['orders']})" for side in said["money"])))
    print_table(("", said["release"], said["against"]), rows or [("no labels", "", "")])
    for change, count in said["decisions"].items():
        print(f"{change}: {count:,}")
    if not said["decisions"] and not said["first_changed"]:
        print("no decision differs")


WORDS = {"fallbacks": "answered by the fallback", "unreadable": "not readable", "first_changed": "with another first"}
MONEY = {"stopped": "frauds stopped", "missed": "frauds missed", "held_up": "honest orders held up"}
