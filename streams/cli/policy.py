"""`headrace policy check|facts|list|show|diff|backtest|apply|clear`: who is approved, reviewed and blocked, and why.
A policy is a TOML file that is reviewed as any other; what is applied is on the topic `policies`, for all workers."""

import difflib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from schemas.errors import DataUnavailable, PolicyError
from streams.cli.audited import write_down
from streams.cli.frame import JSON_OPTION, Ticker, load_settings, open_registry, print_json, print_table
from streams.cli.tracing import instant, reachable

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.policy.trial import Trial
    from streams.policy_topic import Applied

app = typer.Typer(no_args_is_help=True, help="Who is approved, reviewed and blocked: rules, lists and money.")
FILE = typer.Argument(metavar="FILE", help="A policy in TOML; docs/decisions.md shows one.")
NONE_DECIDES = "no policy decides: the live release's own thresholds do"


@app.command()
def check(context: typer.Context, file: str = FILE, json: bool = JSON_OPTION) -> None:
    """Check a policy whole: its fields, and each rule against what an order has. Exit code 2 where it cannot be used.

    Example:

        headrace policy check policy.toml
    """
    load_settings(context)
    from streams.policy.decide import Policy
    from streams.policy.lists import Lists

    policy = Policy.parse(_text(file), Lists(), file)
    document = policy.document
    said = {
        "version": policy.version,
        "rules": len(document.rules),
        "decides_by": "money" if document.money else "thresholds",
    }
    if json:
        print_json(said)
    else:
        print(f"{policy.version} can be used: {said['rules']} rules, then {said['decides_by']}")


@app.command()
def facts(json: bool = JSON_OPTION) -> None:
    """List what a rule may read of an order, with its type.

    Example:

        headrace policy facts
    """
    from streams.policy.facts import FACTS

    if json:
        print_json([{"name": name, "type": fact.type, "meaning": fact.meaning} for name, fact in FACTS.items()])
    else:
        print_table(("fact", "type", ""), [(name, fact.type, fact.meaning) for name, fact in FACTS.items()])


@app.command(name="list")
def list_(context: typer.Context, json: bool = JSON_OPTION) -> None:
    """List what was ever applied, the newest last, and what is live and shadowed.

    Example:

        headrace policy list
    """
    settings = reachable(context)
    from dataclasses import asdict

    from streams.policy_topic import STANDINGS, read

    with open_registry(settings) as registry:
        found = read(settings, registry)
    if json:
        print_json({name: asdict(each) for name, each in found.items()})
        return
    standing = {found[name].version: name for name in STANDINGS if name in found and found[name].document}
    kept = [each for name, each in found.items() if name not in STANDINGS]
    rows = [(each.version, standing.get(each.version, ""), _time(each.applied_at), each.by, each.note) for each in kept]
    print_table(("version", "standing", "applied (UTC)", "by", "note"), rows)
    if "live" not in standing.values():
        print(NONE_DECIDES)


@app.command()
def show(context: typer.Context, name: str = typer.Argument("live", metavar="live|shadow|VERSION")) -> None:
    """Print the document of a policy that was applied.

    Example:

        headrace policy show live > policy.toml
    """
    print(_document(reachable(context), name), end="")


@app.command()
def diff(
    context: typer.Context,
    file: str = typer.Argument(metavar="NEW", help="A file, or live, shadow, VERSION."),
    against: str = typer.Option("live", "--against", metavar="OLD", help="A file, or live, shadow, VERSION."),
) -> None:
    """Show how two policies differ, line by line. Exit code 0 whether they do or not.

    Examples:

        headrace policy diff policy.toml
        headrace policy diff policy.toml --against yesterday.toml
    """
    old, new = (_either(context, name) for name in (against, file))
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), against, file, lineterm="")
    print("\n".join(lines) or "no difference")


@app.command()
def apply(
    context: typer.Context,
    file: str = FILE,
    shadow: bool = typer.Option(False, "--shadow", help="Let it only say what it would decide."),
    note: str = typer.Option("", "--note", metavar="TEXT", help="Why; kept beside it."),
) -> None:
    """Check a policy and make it live: workers decide by it from their next micro-batch on.

    With --shadow it decides nothing: `headrace_policy_shadow_total` counts what it would have decided. One that goes
    live without having been a shadow is said to, and how it differs from the live one; it is not refused.

    Examples:

        headrace policy apply policy.toml --shadow
        headrace policy apply policy.toml --note "review less below 20 EUR"
    """
    settings = reachable(context)
    from streams import policy_topic
    from streams.policy.decide import Policy
    from streams.policy.lists import Lists

    text = _text(file)
    version = Policy.parse(text, Lists(), file).version
    with open_registry(settings) as registry:
        known = policy_topic.read(settings, registry)
        if not shadow:
            _untried(known, version, text)
        by = write_down(settings, registry, "policy.apply", f"fraud/{_standing(shadow)}", version=version, note=note)
        applied = policy_topic.apply(settings, registry, text, shadow=shadow, by=by, note=note)
    print(f"{applied.version} is {'the shadow' if shadow else 'live'}")


def _untried(known: "Mapping[str, Applied]", version: str, text: str) -> None:
    """Says on stderr what a careful person would want to know before this is live."""
    live = known["live"].document if "live" in known else ""
    lines = list(difflib.unified_diff(live.splitlines(), text.splitlines(), "live", version, lineterm=""))
    if live and lines:
        print("\n".join(lines), file=sys.stderr)
    if version not in known:
        print(
            f"{version} was never a shadow: `--shadow` counts what it would decide, `headrace policy backtest` what it"
            " would have",
            file=sys.stderr,
        )


@app.command()
def clear(context: typer.Context, shadow: bool = typer.Option(False, "--shadow", help="Only end the shadow.")) -> None:
    """End the live policy: from then on the live release's own thresholds decide.

    Example:

        headrace policy clear --shadow
    """
    settings = reachable(context)
    from streams import policy_topic

    with open_registry(settings) as registry:
        by = write_down(settings, registry, "policy.clear", f"fraud/{_standing(shadow)}")
        policy_topic.apply(settings, registry, "", shadow=shadow, by=by)
    print("no policy is shadowed" if shadow else NONE_DECIDES)


@app.command()
def backtest(
    context: typer.Context,
    file: str = typer.Argument(metavar="NEW", help="A file, or live, shadow, VERSION."),
    start: str = typer.Option(..., "--from", metavar="TIME", help="ISO 8601, of the orders; included."),
    end: str = typer.Option(..., "--to", metavar="TIME", help="ISO 8601, of the orders; excluded."),
    json: bool = JSON_OPTION,
) -> None:
    """Decide a span of orders again, and compare with what was decided: alerts a day, each rule, frauds, money.

    Orders come from `events.orders`, scores and features as they were served, labels as they are now; lists are those
    of now, ended at each order's time. Where the budget of alerts is exceeded it says the `review_price` that keeps it.

    Example:

        headrace policy backtest policy.toml --from 2026-01-01T00:00Z --to 2026-02-01T00:00Z
    """
    span = instant(start, "--from"), instant(end, "--to")
    text, settings = _either(context, file), reachable(context)
    from streams.tracing.trials import tried

    ticker = Ticker("chunks")
    with open_registry(settings) as registry:
        trial, missing = tried(settings, registry, text, file, span, ticker.tick)
    ticker.end()
    said = _reported(trial, settings) | {"without_order": missing}
    if json:
        print_json(said)
    else:
        _print(said)


def _reported(trial: "Trial", settings: "Settings") -> dict[str, Any]:
    said = trial.report()
    if not said["orders"]:
        raise DataUnavailable(
            "no order was served in this span, or none of them is still on its topic",
            where=settings.topics.served("fraud"),
            expected="event times from --from up to --to",
        )
    return said


def _print(said: Mapping[str, Any]) -> None:
    print(f"{said['orders']:,} orders of {said['days']:,} days, {said['labelled']:,} labelled")
    rows: list[tuple[Any, ...]] = [
        (name, *(f"{side[name]:,}" for side in said["decisions"])) for name in said["decisions"][0]
    ]
    rows += [(f"alerts a day, {name}", *(side[name] for side in said["alerts_per_day"])) for name in ("mean", "most")]
    rows += [(WORDS[name], *(side[name] for side in said["outcomes"])) for name in WORDS]
    if money := said.get("money"):
        rows.append((f"cost, {money['currency']}", *(f"{cost:,.2f}" for cost in money["cost"])))
    print_table(("", "decided", said["policy"]), rows)
    if money:
        print(f"{money['saved']:,.2f} {money['currency']} saved over {money['orders']:,} labelled orders")
    if rules := said["rules"]:
        print_table(
            ("rule", "fired", "decided", "frauds", "good", "alerts a day", *(["saved"] if said.get("money") else [])),
            [(name, *each.values()) for name, each in rules.items()],
        )
    for name, count in said["rule_failures"].items():
        print(f"rule {name} could not judge {count:,} orders")
    if budget := said.get("budget"):
        print(_budget(budget))
    for change, count in said["changed"].items():
        print(f"{change}: {count:,}")


WORDS = {
    "caught": "frauds caught",
    "missed": "frauds missed",
    "false_positives": "good orders flagged",
    "precision": "precision",
    "recall": "recall",
}


def _budget(budget: Mapping[str, Any]) -> str:
    most = f"the budget of {budget['alerts_per_day']:,} alerts a day"
    if budget["kept"]:
        return f"{most} is kept"
    if budget.get("review_price") is None:
        return f"{most} is exceeded, and no review_price keeps it: raise thresholds, or drop rules"
    return f"{most} is exceeded; with review_price = {budget['review_price']:g} it is kept"


def _either(context: typer.Context, name: str) -> str:
    """A document, from a file or from the topic."""
    if Path(name).is_file() or "/" in name or name.endswith(".toml"):
        return _text(name)
    return _document(reachable(context), name)


def _document(settings: "Settings", name: str) -> str:
    from streams.policy_topic import chosen, read

    with open_registry(settings) as registry:
        return chosen(read(settings, registry), name, settings.topics.policies).document


def _text(file: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"cannot be read: {error}", where=file, expected="a TOML file") from error


def _standing(shadow: bool) -> str:
    return "shadow" if shadow else "live"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
