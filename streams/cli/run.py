"""`headrace worker`, `headrace learner` and `headrace demo`: the commands that go on until they are stopped.
Ctrl-C and SIGTERM end both in order: what is in flight is finished and committed first."""

import typer

from streams.cli.frame import Options, load_settings


def register(app: typer.Typer) -> None:
    app.command()(worker)
    app.command()(learner)
    app.command()(demo)


def worker(
    context: typer.Context,
    tasks: str = typer.Option("", metavar="NAMES", help="Tasks, with commas; else the setting."),
    shops: str = typer.Option("", metavar="NAMES", help="Serve these tenants, with commas, a worker each."),
) -> None:
    """Score events until stopped: Ctrl-C or SIGTERM finish what is in flight, commit and leave.

    Start up to as many as there are partitions: they share them, and take over from one that ends. Health and
    metrics are on `web.host`:`web.port`: /healthz, /readyz, /metrics. A worker that hangs ends with code 70.

    With `--shops` the command keeps a worker for each shop, in a process of its own: one that ends is started again,
    and the kernel shares the processor between them by the setting `share`. What they do is on `shops_web.port`.

    Examples:

        headrace worker
        HEADRACE_WEB__PORT=6067 headrace worker --tasks fraud
        headrace worker --shops north,south
    """
    if shops:
        return _several(context, shops, tasks)
    settings = load_settings(context, service=True, **({"tasks": tasks} if tasks else {}))
    from streams.clients import require_broker
    from streams.tasks import make_task
    from streams.worker import run

    for name in settings.tasks:
        make_task(name)
    require_broker(settings)
    run(settings)


def _several(context: typer.Context, shops: str, tasks: str) -> None:
    """A parent of workers. What it reads for itself (`shops_web`, `log`) is that of the first shop that can be read."""
    from schemas.errors import SettingsError
    from streams import logs
    from streams.config import Settings
    from streams.shops.plan import names_in
    from streams.shops.process import process_of, run
    from streams.tasks import make_task

    options: Options = context.obj or Options()
    names = names_in(shops, options.tenant)
    before = [*(["--config", options.config_file] if options.config_file else []), *["--debug"] * options.debug]
    behind = ["--tasks", tasks] if tasks else []

    def read(name: str) -> Settings:
        return Settings(config_file=options.config_file, tenant=name, **({"tasks": tasks} if tasks else {}))

    def first() -> Settings:
        for name in names[:-1]:
            try:
                return read(name)
            except SettingsError:  # said when its worker would be started
                continue
        return read(names[-1])

    own = first()
    for name in own.tasks if tasks else ():
        make_task(name)
    logs.setup(own.model_copy(update={"tenant": ""}))
    start = process_of(lambda name: [*before, "--tenant", name, "worker", *behind])
    run(names, read, start, own.shops_web)


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
