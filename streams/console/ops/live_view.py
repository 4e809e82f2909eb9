"""What the live page shows, made of half an hour of figures: tiles, charts, and who answers and who does not.
Pure: a history and a moment in; the page and the stream of updates are made of the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from streams.console.ops.charts import LineChart, Series
from streams.console.ops.rates import Answer, History, total
from streams.console.ops.scales import COUNTED, duration, figure, since

SPANS = {5: 60, 15: 90, 30: 120}
"""Minutes that can be looked at -> points of a chart."""
LATELY_MS = 300_000
RARE = {5: 20, 15: 30, 30: 30}
"""The same for what is rare, counted by the minute."""
Translate = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure in large type. tone: warn or bad where it asks for attention, and `note` then says why."""

    key: str
    name: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A row of the table of processes. problem: what keeps it from being heard; else empty."""

    kind: str
    address: str
    problem: str
    state: str
    tone: str
    figures: tuple[tuple[str, str], ...] = ()
    releases: tuple[str, ...] = ()


def tiles(workers: History, tasks: Sequence[str]) -> list[Tile]:
    """The shop now. Where nobody answers every figure is a dash."""
    events, scores = total(workers.now("events").values()), total(workers.now("scores").values())
    p99 = {task: workers.now("p99").get(task) for task in tasks}
    slowest = max((value for value in p99.values() if value is not None), default=None)
    lag = total(workers.now("lag", within_ms=1).values())
    return [
        Tile("events", "Events read", figure(events, "/s")),
        Tile("scores", "Scores", figure(scores, "/s")),
        Tile("p99", "Slowest p99", figure(slowest, "ms"), "event in the broker to score acknowledged"),
        Tile("lag", "Lag", figure(lag, COUNTED), "read next, of what is there"),
        _lately(workers, "alerts", "Alerts", "raised in 5 minutes", quiet=True),
        _lately(workers, "late", "Late", "scored after the deadline, in 5 minutes"),
        _lately(workers, "fallback", "Without the model", "answered by the fallback, in 5 minutes"),
        _lately(workers, "dead", "Dead letters", "bad input set aside, in 5 minutes"),
    ]


def _lately(workers: History, what: str, name: str, note: str, *, quiet: bool = False) -> Tile:
    """What is rare, counted. A counter that was never raised is not on the page: that is none, if somebody answers."""
    silent = workers.newest is None or not workers.newest.answered
    count = None if silent else workers.count(what, LATELY_MS)
    return Tile(
        what, name, figure(count if count is None else round(count)), note, "warn" if count and not quiet else ""
    )


def charts(
    workers: History, tasks: Sequence[str], deadlines: Mapping[str, int], minutes: int, now_ms: int, t: Translate
) -> list[LineChart]:
    points = SPANS[minutes]
    width = minutes * 60_000 / points
    end = int(-(-now_ms // width) * width)
    view = _View(workers, end - minutes * 60_000, end, points, t)
    rare = replace(view, points=RARE[minutes])
    latency = [
        view.chart(
            f"latency-{task}", t("Latency, {task}", task=t(task)), [(("p50", task), "p50"), (("p99", task), "p99")],
            unit="ms", note=t("ms, of the slowest worker; deadline {ms}", ms=figure(deadlines.get(task), "ms")),
        )
        for task in tasks
    ]  # fmt: skip
    return [
        view.of_kind("events", "Events read", "a second, by topic", "Nothing has been measured yet."),
        view.of_kind("scores", "Scores", "a second, by task", "Nothing has been measured yet."),
        *latency,
        view.of_kind("lag", "Lag", "records, by topic", "No worker has said how far behind it is.", unit=COUNTED),
        rare.a_minute("late", "Late scores", "a minute, by task", "No score was late."),
        rare.a_minute("fallback", "Without the model", "a minute, by task and reason", "The model answered all."),
        rare.a_minute("alerts", "Alerts", "a minute, by decision", "No alert was raised."),
        rare.a_minute("dead", "Dead letters", "a minute, by reason", "Nothing was set aside."),
    ]


@dataclass(frozen=True, slots=True)
class _View:
    history: History
    start: int
    end: int
    points: int
    t: Translate

    def of_kind(self, what: str, title: str, note: str, empty: str, unit: str = "/s") -> LineChart:
        wanted = [((what, of), of) for of in self.history.names(what)]
        return self.chart(what, self.t(title), wanted, unit=unit, note=self.t(note), empty=self.t(empty))

    def a_minute(self, what: str, title: str, note: str, empty: str) -> LineChart:
        """In steps: each is what came in its time."""
        found = self.of_kind(what, title, note, empty, unit="/min")
        a_second = [[None if value is None else 60 * value for value in each.values] for each in found.series]
        series = [replace(each, values=row) for each, row in zip(found.series, a_second, strict=True)]
        return replace(found, series=series, step=True)

    def chart(
        self,
        key: str,
        title: str,
        wanted: Sequence[tuple[tuple[str, str], str]],
        *,
        unit: str,
        note: str,
        empty: str = "",
    ) -> LineChart:
        x, values = self.history.series([what for what, _ in wanted], self.start, self.end, self.points)
        series = [Series(self.t(name), row) for (_, name), row in zip(wanted, values, strict=True)]
        if self.history.newest is None or not self.history.newest.answered:
            empty = self.t("No worker answers, so nothing is known.")
        elif not empty:
            empty = self.t("Nothing has been measured yet.")
        return LineChart(key, title, x, series, unit=unit, note=note, empty=empty)


def processes(workers: History, learners: History, now_ms: int) -> list[Process]:
    return [
        *(_process("worker", workers, address, answer, now_ms) for address, answer in workers.answers.items()),
        *(_process("learner", learners, address, answer, now_ms) for address, answer in learners.answers.items()),
    ]


def _process(kind: str, history: History, address: str, answer: Answer, now_ms: int) -> Process:
    if answer.problem:
        heard = history.heard.get(address)
        last = f"last heard {since(heard, now_ms)} ago" if heard else "not heard since the console began"
        return Process(kind, address, answer.problem, f"Does not answer: {answer.problem}; {last}.", "bad")
    ready = answer.values.get("headrace_ready", {}).get((), 1.0)
    parked = sum(answer.values.get("headrace_parked", {}).values())
    state, tone = ("Ready", "good") if ready else ("Answers, and is not ready", "warn")
    if parked:
        state, tone = f"Waits on {parked:.0f} partitions", "warn"
    releases = tuple(
        f"{task}/{release} on {engine}" for task, release, engine in answer.values.get("headrace_release_info", {})
    )
    return Process(kind, address, "", state, tone, tuple(_said(answer, now_ms)), releases)


def _said(answer: Answer, now_ms: int) -> list[tuple[str, str]]:
    def one(name: str) -> float | None:
        return answer.values.get(name, {}).get(())

    begun, memory, lag = one("process_start_time_seconds"), one("process_resident_memory_bytes"), None
    if "headrace_lag" in answer.values:
        lag = sum(answer.values["headrace_lag"].values())
    up = None if begun is None else max(0.0, now_ms / 1000 - begun)
    said = [("up", duration(up)), ("memory", figure(None if memory is None else memory / 1e6, "MB"))]
    if lag is not None:
        partitions = len(answer.values["headrace_lag"])
        said.append(("lag", f"{figure(lag, COUNTED)} on {partitions} partitions"))
    if (behind := one("headrace_watermark_lag_seconds")) is not None:
        said.append(("label join behind", duration(behind)))
    return said


def headline(workers: History, t: Translate) -> str:
    """Who is heard, in a sentence; it is read aloud when it changes."""
    newest = workers.newest
    if newest is None:
        return str(t("The workers are being asked for the first time."))
    if not newest.asked:
        return str(t("No worker is named in the settings: set console.workers."))
    silent = newest.asked - newest.answered
    if not newest.answered:
        return str(t("No worker answers: what is shown ends where they were last heard."))
    if silent:
        words = "{n} of {all} workers {do} not answer: figures are of the others."
        return str(t(words, n=silent, all=newest.asked, do="does" if silent == 1 else "do"))
    if newest.asked == 1:
        return str(t("The worker answers."))
    return str(t("All {n} workers answer.", n=newest.asked))
