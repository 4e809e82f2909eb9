"""`headrace worker`, `headrace learner` and `headrace demo`: the commands that go on until they are stopped.
Ctrl-C and SIGTERM end both in order: what is in flight is finished and committed first."""

import typer

from streams.cli.frame import load_settings


def register(app: typer.Typer) -> None:
    app.command()(worker)
    app.command()(learner)
    app.command()(demo)


def worker(
    context: typer.Context,
    tasks: str = typer.Option("", metavar="NAMES", help="Tasks, with commas; else the setting."),
) -> None:
    """Score events until stopped: Ctrl-C or SIGTERM finish what is in flight, commit and leave.

    Start up to as many as there are partitions: they share them, and take over from one that ends. Health and
    metrics are on `web.host`:`web.port`: /healthz, /readyz, /metrics. A worker that hangs ends with code 70.

    Examples:

        headrace worker
        HEADRACE_WEB__PORT=6067 headrace worker --tasks fraud
    """
    settings = load_settings(context, service=True, **({"tasks": tasks} if tasks else {}))
    from streams.clients import require_broker
    from streams.tasks import make_task
    from streams.worker import run

    for name in settings.tasks:
        make_task(name)
    require_broker(settings)
    run(settings)


def learner(context: typer.Context) -> None:
    """Learn, until stopped: join labels to what was served, fine-tune, judge, make live, and take back what does worse.

    Clicks and orders that answer an ad or a recommendation become labels on `events.labels`; labels meet their
    `served` record in event time and become `training.examples`, exactly once. What nobody can use goes to
    `deadletters`. From new examples, `learning.*` say when, a process of its own fine-tunes the live release; the gate
    compares both on the newest labels that neither has learned, and what passes is made live on `models.releases`.
    Workers swap without a pause, go on asking the release before it, and if live labels say so it is live again.

    There is one learner a shop: a second one shuts the first one out. Killed at any moment, the next one goes on.
    Metrics are on `learner_web.host`:`learner_web.port`; `headrace learn status` says what it does.

    Example:

        headrace learner
    """
    settings = load_settings(context, service=True)
    from streams.clients import require_broker
    from streams.collecting import seldom
    from streams.learner.service import Learner

    require_broker(settings)
    seldom()
    Learner(settings).run()


def demo(
    context: typer.Context,
    seconds: float = typer.Option(0, min=0, metavar="S", help="End after S seconds; 0: on Ctrl-C."),
) -> None:
    """Show everything on this machine: broker, real data, first models, a worker, and a live view.

    The first run fetches and trains what it needs; the next one is live in seconds.
    What is simulated is said.

    Example:

        headrace demo --seconds 60
    """
    settings = load_settings(context)
    from streams.demo import run

    run(settings, seconds=seconds or None)
