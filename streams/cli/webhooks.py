"""`headrace webhooks`: fraud alerts to the shop's own services, by HTTP; what was not taken, and another try.
The service is a process of its own, so an endpoint that hangs delays no score.
"""

import time
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.audited import write_down
from streams.cli.frame import FAILED, JSON_OPTION, load_settings, open_registry, print_json, print_table

if TYPE_CHECKING:
    from streams.webhooks.failures import Failure

app = typer.Typer(invoke_without_command=True, help="Post fraud alerts to the shop's own services.")

Endpoint = Annotated[str, typer.Option(metavar="NAME", help="Only of this endpoint.")]


@app.callback()
def webhooks(context: typer.Context) -> None:
    """Post fraud alerts to the endpoints of the settings, until stopped: signed, each at least once.

    Each endpoint has a consumer group of its own, so none waits for another. What it does not take is tried again,
    with growing pauses, for `webhooks.retry_for_s`; then it is on `webhooks.failed`. Start two for failover: they
    share the partitions. Health and metrics are on `webhooks_web.host`:`webhooks_web.port`.

    Examples:

        headrace webhooks test shop
        headrace webhooks
        headrace webhooks failed
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(context, service=True)
    from streams.clients import require_broker
    from streams.webhooks.service import Webhooks

    require_broker(settings)
    with open_registry(settings) as registry:
        Webhooks(settings, registry).run()


@app.command()
def failed(
    context: typer.Context,
    endpoint: Endpoint = "",
    posted: Annotated[bool, typer.Option("--posted", help="Also those that were posted by a replay.")] = False,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="The first N; 0: all.")] = 0,
    json: bool = JSON_OPTION,
) -> None:
    """List alerts that an endpoint did not take: id, when, endpoint, order, attempts, and its last answer.

    Examples:

        headrace webhooks failed
        headrace webhooks failed --endpoint shop --json
    """
    settings = load_settings(context)
    from schemas.wire import Decoder
    from streams.clients import require_broker
    from streams.webhooks.failures import CONTRACT, Failures

    require_broker(settings)
    with open_registry(settings) as registry:
        found = Failures(settings, Decoder(registry, CONTRACT)).find(endpoint=endpoint, posted=posted)
        shown = list(islice(found, limit or None))
    if json:
        print_json([_row(failure) for failure in shown])
    else:
        columns = ("id", "failed at", "endpoint", "order", "decision", "attempts", "last answer")
        print_table(columns, [_brief(failure) for failure in shown])


@app.command()
def replay(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="These; else by the options.")] = None,
    endpoint: Endpoint = "",
    everything: Annotated[bool, typer.Option("--all", help="All that were not posted yet.")] = False,
    json: bool = JSON_OPTION,
) -> None:
    """Post failed alerts again, once each, to where their endpoint is now. What is taken is not listed any more.

    A receiver may have seen a newer decision on the same order since: `raised_at` says which is newer.

    Examples:

        headrace webhooks replay 0:17 2:4
        headrace webhooks replay --endpoint shop
    """
    if not (ids or endpoint or everything):
        raise typer.BadParameter("say which: ids, --endpoint, or --all")
    settings = load_settings(context)
    from schemas.wire import Decoder
    from streams.clients import require_broker
    from streams.webhooks.body import CONTRACT as ALERT
    from streams.webhooks.failures import CONTRACT, Failures
    from streams.webhooks.replay import replay as post_again

    require_broker(settings)
    with open_registry(settings) as registry:
        where = settings.topics.webhooks_failed
        write_down(settings, registry, "webhooks.replay", where, ids=ids or [], endpoint=endpoint, all=everything)
        failures = Failures(settings, Decoder(registry, CONTRACT))
        chosen = failures.get(frozenset(ids)) if ids else failures.find(endpoint=endpoint)
        done = post_again(settings, Decoder(registry, ALERT), chosen, failures.mark)
    if json:
        print_json({"posted": done.posted, "stay": dict(done.stay)})
    else:
        print(f"{done.posted} posted, {len(done.stay)} stay")
        for failure, why in done.stay[:100]:
            print(f"stays: {failure}: {why}")
    if done.stay:
        raise typer.Exit(FAILED)


@app.command("test")
def try_(
    context: typer.Context,
    endpoint: str = typer.Argument(metavar="ENDPOINT", help="Its name in the settings."),
    json: bool = JSON_OPTION,
) -> None:
    """Post an alert that was made up, order `headrace-test`, and say what the endpoint answers. Needs no broker.

    Example:

        headrace webhooks test shop
    """
    settings = load_settings(context)
    from streams.webhooks.replay import post_test

    answer = post_test(settings, endpoint, time.time_ns() // 1_000_000)
    taken = answer.meaning == "delivered"
    if json:
        print_json({"taken": taken, "status": answer.status, "reason": answer.reason, "seconds": answer.seconds})
    else:
        print(f"{endpoint}: {'taken' if taken else 'not taken'}, {answer.reason}, {answer.seconds * 1000:.0f} ms")
        if answer.body and not taken:
            print(answer.body)
    if not taken:
        raise typer.Exit(FAILED)


def _row(failure: "Failure") -> dict[str, Any]:
    from schemas.values import to_json
    from streams.webhooks.failures import CONTRACT

    return {"id": failure.id, "posted": failure.posted, **to_json(CONTRACT, failure.record)}


def _brief(failure: "Failure") -> tuple[object, ...]:
    record = failure.record
    when = datetime.fromtimestamp(record["failed_at"] / 1000, UTC).isoformat(" ", "seconds")[:19]
    reason = record["reason"] + (", posted since" if failure.posted else "")
    return failure.id, when, record["endpoint"], record["order_id"], record["decision"], record["attempts"], reason
