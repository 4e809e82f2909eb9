"""The demo's course: data, servers and models side by side, then the worker, then later months as live events.
Every step says what it does; what is missing is said and done without.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.errors import DataUnavailable
from streams.access.accounts import Accounts
from streams.audit.pseudonyms import shell_user
from streams.config import Settings
from streams.demo import stage
from streams.demo.models import SEED, ModelPlan
from streams.demo.plot import draw
from streams.demo.story import Story
from streams.demo.view import Board, Follower, read_metrics
from streams.demo.words import Narrator
from streams.learner.control import command
from streams.offsets import bounds, places
from streams.sources import retail
from streams.sources.fetch import fetch
from streams.sources.publisher import Message, Publisher
from streams.sources.replay import Pace, replay
from streams.sources.risk import NEW_KIND
from streams.sources.telling import Timed
from streams.sources.world import World, WorldConfig, milliseconds

TRAIN_FROM, LIVE_FROM, LIVE_TO = "2011-01-01", "2011-09-01", "2011-12-09"
WARM_FROM, DRIFT_FROM = "2011-07-01", "2011-09-06"
SPEED = 18_000  # five hours of the shop's time a second: some four hundred events a second
FRAUD_RATE = 0.05  # of orders, before the new kind doubles it: enough to learn from in minutes
REVIEW_BUDGET = 0.10  # of orders: its analysts keep up with that
BROWSE, GUESTS = 0.6, 0.25  # fewer visits without an order than usual: more days of the shop in a minute
BAD_EVERY = 500  # events between two bad messages
DRAW_S = 0.5
WARM_S = 120.0
LINK_MINUTES = 60


def run(settings: Settings, seconds: float | None = None) -> None:
    """Runs until `seconds` of live view are over, the data ends, or Ctrl-C. Raises HeadraceError."""
    console = Console()
    folder = settings.data_dir / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    shop = data(console)
    config: dict[str, Any] = {
        "start": TRAIN_FROM, "end": LIVE_TO, "shop": shop, "fraud_rate": FRAUD_RATE, "fraud_drift": DRIFT_FROM,
        "browse": BROWSE, "guests": GUESTS,
    }  # fmt: skip
    plan = ModelPlan(
        config,
        TRAIN_FROM,
        LIVE_FROM,
        settings.release_store,
        str(settings.data_dir / "encoder"),
        str(folder / "vectors.npz"),
        str(folder / "reservoir"),
        REVIEW_BUDGET,
    )
    say = console.print
    try:
        with stage.servers(folder / "servers", settings.data_dir / "java", say) as (brokers, registry_url):
            say(f"Kafka on {brokers}, schema registry on {registry_url}")
            with training(console) as on_step:
                versions = stage.models(plan, folder, on_step)
            own = stage.demo_settings(settings, brokers, registry_url, folder)
            clear(own.data_dir)
            stage.inherit(Path(plan.reservoir), own)
            world = World(WorldConfig(**config), SEED)
            publisher = stage.furnish(own, world, Path(plan.vectors), versions)
            say("starting the worker")
            with stage.process(own, "worker", own.web.port, folder / "worker.log") as worker:
                warm_up(say, own, world, publisher)
                say("starting the learner; of clicks and ads it makes examples only, or the fraud would have to wait")
                for task in ("recommendations", "ctr"):
                    command(own, task, time.time_ns() // 1_000_000, paused=True, by="demo")
                with (
                    stage.process(own, "learner", own.learner_web.port, folder / "learner.log") as learner,
                    stage.process(own, "console", own.console.port, folder / "console.log") as pages,
                ):
                    say(f"the console, for whoever opens this link first: {login_link(own)}", soft_wrap=True)
                    live(console, own, world, publisher, folder, seconds, (worker, learner, pages))
    except KeyboardInterrupt:
        say("stopped")


def login_link(settings: Settings) -> str:
    """Logs in once, as who may do all."""
    with Accounts(settings) as accounts:
        now_ms = time.time_ns() // 1_000_000
        code = accounts.login_code("admin", by=shell_user(), now_ms=now_ms, minutes=LINK_MINUTES)
    return f"http://127.0.0.1:{settings.console.port}/login/once?code={code}"


def data(console: Console) -> str:
    """Fetches the real shop's data and prints the cleaning report; which shop the world is to have."""
    try:
        fetch("online-retail", say=console.print)
        _, report = retail.load()
        console.print(str(report))
        return "real"
    except DataUnavailable as error:
        console.print(
            f"[yellow]{escape(str(error))}[/yellow]\nrunning the simulated shop instead: nothing of it is real"
        )
        return "generated"


def clear(folder: Path) -> None:
    """The worker's state belongs to the log that starts anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


@contextmanager
def training(console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Progress bars for the steps that the training process reports."""
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def on_step(step: dict[str, Any]) -> None:
            what = step["what"]
            if what == "step":
                task = tasks.setdefault(step["task"], None)
                if task is None:
                    task = tasks[step["task"]] = bars.add_task(f"train {step['task']}", total=step["total"])
                bars.update(task, completed=step["done"])
            elif what == "release":
                shown = {name: round(value, 4) for name, value in step["metrics"].items() if isinstance(value, float)}
                bars.console.print(f"release {step['task']}/{step['version']} {shown or ''}")
                if step["conversions"]:
                    bars.console.print(f"orders after clicks on ads: {step['conversions']}")
            elif what == "missing":
                bars.console.print(f"[yellow]{escape(step['reason'])}[/yellow]\n{step['instead']} instead")
            else:
                bars.console.print(
                    f"{what}: {', '.join(f'{name} {value}' for name, value in step.items() if name != 'what')}"
                )

        yield on_step


def warm_up(say: stage.Say, settings: Settings, world: World, publisher: Publisher) -> None:
    """Two months of events as fast as the worker takes them, so that it knows the customers when the story begins.

    Nothing is learned of them: at that speed an order overtakes the clicks before it by hours of the shop's time.
    """
    say(f"the worker reads {WARM_FROM} to {LIVE_FROM}, to know the customers")
    sent = 0
    for event in world.history_records(WARM_FROM, LIVE_FROM):
        publisher.publish(event)
        sent += event.topic != "labels"
    publisher.flush()
    scores = [settings.topics.scores(task) for task in settings.tasks]
    deadline = time.monotonic() + WARM_S
    while (scored := sum(ends(settings, scores))) < sent and time.monotonic() < deadline:
        time.sleep(DRAW_S)
    say(f"{scored:,} of {sent:,} events scored")
    stage.forget(settings, [settings.topics.served(task) for task in settings.tasks])


def ends(settings: Settings, topics: list[str]) -> list[int]:
    """How many records each topic has had."""
    found = bounds(settings, [place for topic in topics for place in places(settings, topic)])
    return [high for _, high in found.values()]


def live(
    console: Console, settings: Settings, world: World, publisher: Publisher, folder: Path, seconds: float | None,
    parts: Sequence[stage.Part],
) -> None:  # fmt: skip
    """Replays the later months through Kafka, and shows what comes back. A part that ends is started again."""
    story = Story(NEW_KIND, milliseconds(DRIFT_FROM))
    board, narrator = Board(settings, str(world), story), Narrator(world)
    follower = Follower(settings, board, narrator, lambda event_id: fraud_kind(world, event_id))
    follower.start()
    stop, done = threading.Event(), threading.Event()

    def on_event(event: Timed) -> None:
        board.published += 1
        if event.topic != "labels":
            narrator.published(event.record["event_id"], event.record)
        if board.published % BAD_EVERY == 0:
            publisher.send(Message(settings.topics.clicks, b"vandal", b"\x00not avro"))

    def publish() -> None:
        try:
            replay(
                world.history_records(LIVE_FROM, LIVE_TO), publisher, Pace(speed=SPEED), stop=stop, on_event=on_event
            )
        finally:
            done.set()

    source = threading.Thread(target=publish, name="shop", daemon=True)
    source.start()
    until = time.monotonic() + seconds if seconds else float("inf")
    try:
        with Live(board.render(), console=console, refresh_per_second=4, transient=console.is_terminal) as view:
            while time.monotonic() < until and not done.is_set():
                time.sleep(DRAW_S)
                revive(console, parts)
                read_metrics(settings, board)
                if console.is_terminal:
                    view.update(board.render())
            view.update(board.render())
    finally:
        stop.set()
        source.join(10)
        time.sleep(1.0)  # the last scores are on their way
        read_metrics(settings, board)
        follower.stop()
        if not console.is_terminal:
            console.print()  # the view's last line has no end there
        console.print(board.summary())
        if (drawn := draw(story, folder, str(world))) is not None:
            console.print(f"the story as a picture: {drawn[0]} and {drawn[1]}", soft_wrap=True)


def revive(console: Console, parts: Sequence[stage.Part]) -> None:
    """As a service manager would: a busy machine may have kept the broker from answering in time."""
    for part in parts:
        if part.ended:
            console.print(f"[yellow]the {part.name} ended, and is started again; its log says why: {part.log}[/yellow]")
            part.start()


def fraud_kind(world: World, event_id: str) -> str:
    truth = world.truth(event_id)
    return truth.kind if truth is not None and truth.task == "fraud" and truth.outcomes[0] else ""
