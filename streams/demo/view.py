"""The demo's terminal view: rates, latencies, the newest scores in words, alerts, dead letters, releases.
It reads what any operator could read: the score topics and the worker's metrics page.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from schemas.confluent import ConfluentRegistry
from schemas.errors import BadRecord
from schemas.wire import Decoder
from streams.config import Settings
from streams.demo.story import Story, day, rate
from streams.demo.words import Narrator
from streams.pointers import Announcement
from streams.tail import tail
from streams.tasks import make_task

NEWEST = 4
WINDOW_S = 5.0


class Board:
    """What is shown. Fed by two threads, drawn by a third: every field is replaced or appended to, not half written."""

    def __init__(self, settings: Settings, title: str, story: Story | None = None) -> None:
        self.title, self.settings = title, settings
        self.story = story
        self.learning: deque[str] = deque(maxlen=NEWEST)
        self.tasks = tuple(settings.tasks)
        self.newest: dict[str, deque[str]] = {task: deque(maxlen=NEWEST) for task in self.tasks}
        self.alerts: deque[str] = deque(maxlen=NEWEST)
        self.scored: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.frauds: Counter[str] = Counter()
        self.releases: dict[str, str] = {}
        self.latency: dict[str, tuple[float, float]] = {}
        self.published = 0
        self._ticks: dict[str, deque[tuple[float, int]]] = {task: deque() for task in self.tasks}

    def rate(self, task: str, now: float) -> float:
        """Scores a second over the last seconds."""
        ticks = self._ticks[task]
        ticks.append((now, self.scored[task]))
        while ticks[0][0] < now - WINDOW_S and len(ticks) > 2:
            ticks.popleft()
        span = now - ticks[0][0]
        return (self.scored[task] - ticks[0][1]) / span if span > 0 else 0.0

    @property
    def alerted(self) -> int:
        """Orders that were not simply approved."""
        return sum(self.decisions.values()) - self.decisions["approve"]

    def _latency_ms(self, task: str) -> tuple[str, str]:
        """p50 and p99, or a dash before there are any."""
        if task not in self.latency:
            return "-", "-"
        p50, p99 = self.latency[task]
        return f"{p50 * 1000:.1f}", f"{p99 * 1000:.1f}"

    def render(self) -> RenderableType:
        now = time.monotonic()
        rates = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("task", "scores", "per s", "p50 ms", "p99 ms", "release"):
            rates.add_column(column, justify="left" if column in ("task", "release") else "right")
        for task in self.tasks:
            rate, (p50, p99) = f"{self.rate(task, now):,.0f}", self._latency_ms(task)
            rates.add_row(task, f"{self.scored[task]:,}", rate, p50, p99, self.releases.get(task, ""))
        lines = [
            Text(f"{task}: {line}", no_wrap=True, overflow="ellipsis")
            for task in self.tasks
            for line in self.newest[task]
        ]
        alerts = [Text(line, style="red", no_wrap=True, overflow="ellipsis") for line in self.alerts] or [
            Text("none yet")
        ]
        learning = Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in self._learned()))
        dead = ", ".join(f"{count} {code}" for code, count in self.dead.items()) or "none"
        return Group(
            Text(self.title, style="dim"),
            Panel(rates, title=f"{self.published:,} events published", title_align="left"),
            Panel(Group(*lines), title="newest scores", title_align="left"),
            Panel(Group(*alerts), title=f"alerts ({self.alerted:,})", title_align="left"),
            Panel(learning, title="learning", title_align="left", border_style="green"),
            Text(f"dead letters: {dead} (a few bad messages are sent on purpose)   Ctrl-C ends"),
        )  # fmt: skip

    def _learned(self) -> Iterator[str]:
        if (story := self.story) is not None:
            new, other = rate(story.newest(True)), rate(story.newest(False))
            yield f"{day(story.now)} in the shop; newest frauds caught: {new} of the new kind, {other} of the others"
            yield from story.lines()
        yield from self.learning

    def summary(self) -> str:
        """A few lines for after the view is gone."""
        lines = [f"published {self.published:,} events"]
        for task in self.tasks:
            p50, p99 = self._latency_ms(task)
            name = self.releases.get(task, "?")
            lines.append(f"{task}: {self.scored[task]:,} scores, p50 {p50} ms, p99 {p99} ms, release {name}")
        decided = ", ".join(f"{self.decisions[name]:,} {name}" for name in ("approve", "review", "block"))
        found, frauds = self.frauds["caught"], self.frauds["all"]
        lines.append(f"decisions: {decided}; of {frauds:,} simulated frauds {found:,} were reviewed or blocked")
        lines.append(f"dead letters: {sum(self.dead.values()):,}")
        lines += [*(self.story.lines() if self.story else []), *self.learning]
        return "\n".join(lines)


class Follower(threading.Thread):
    """Reads scores and dead letters from Kafka onto the board until stopped."""

    def __init__(self, settings: Settings, board: Board, narrator: Narrator, fraud_kind: Callable[[str], str]) -> None:
        """fraud_kind: of an event_id, "" where it was none; the simulation knows."""
        super().__init__(name="follower", daemon=True)
        self._settings, self._board, self._narrator, self._fraud_kind = settings, board, narrator, fraud_kind
        self._state = ""
        self._stopping = threading.Event()
        self.ready = threading.Event()

    def run(self) -> None:
        settings, registry = self._settings, ConfluentRegistry(self._settings.registry())
        takers: dict[str, tuple[Decoder, Callable[[Mapping[str, Any]], None]]] = {}
        for task in settings.tasks:
            takers[settings.topics.scores(task)] = (
                Decoder(registry, make_task(task).schema),
                getattr(self, f"_{task}"),
            )
        takers[settings.topics.deadletters] = (Decoder(registry, "dead_letter"), self._dead)
        takers[settings.topics.learning] = (Decoder(registry, "learning"), self._learning)
        takers[settings.topics.releases] = (Decoder(registry, "model_release"), self._release)
        for message in tail(settings, list(takers)):
            if self._stopping.is_set():
                return
            decode, take = takers[message.topic]
            try:
                take(decode(message.value))
            except BadRecord:
                self._board.dead["unreadable score"] += 1

    def stop(self) -> None:
        self._stopping.set()

    def _fraud(self, score: Mapping[str, Any]) -> None:
        board, line = self._board, self._narrator.fraud(score)
        board.scored["fraud"] += 1
        board.newest["fraud"].append(line)
        board.decisions[score["decision"]] += 1
        kind = self._fraud_kind(score["event_id"])
        if board.story is not None:
            board.story.scored(score["event_time"], kind, score["decision"], score["release"])
        if kind:
            board.frauds["all"] += 1
            board.frauds["caught"] += score["decision"] != "approve"
        if score["decision"] != "approve":
            board.alerts.append(line)

    def _recommendations(self, score: Mapping[str, Any]) -> None:
        self._board.scored["recommendations"] += 1
        self._board.newest["recommendations"].append(self._narrator.recommendation(score))

    def _ctr(self, score: Mapping[str, Any]) -> None:
        self._board.scored["ctr"] += 1
        self._board.newest["ctr"].append(self._narrator.ctr(score))

    def _learning(self, said: Mapping[str, Any]) -> None:
        """A fine-tune of fraud that begins, and what came of the last one."""
        if said["kind"] != "status" or said["task"] != "fraud" or said["state"] == self._state:
            return
        self._state = said["state"]
        if said["state"] == "training":
            self._board.learning.append("a fine-tune of fraud has begun, in a process of its own")
            if self._board.story is not None:
                self._board.story.happened("fine-tune begins")
        elif (last := json.loads(said["detail"]).get("last", {})).get("label_to_live_s"):
            self._board.learning.append(
                f"fraud/{last['made']} scores since {last['label_to_live_s']:.0f} s after the newest label it learned"
            )

    def _release(self, said: Mapping[str, Any]) -> None:
        """What became of a candidate."""
        if (announced := Announcement.of(said)) is None:
            return
        report = json.loads(announced.gate or "{}") or {}
        why = [check["said"] for check in report.get("checks", []) if not check["passed"]] or report.get("reasons", [])
        figures = report.get("figures", {})
        if announced.state == "live" and "pr_auc_candidate" in figures:
            why = [
                f"PR-AUC {figures['pr_auc_champion']:.2f} -> {figures['pr_auc_candidate']:.2f} on what neither learned"
            ]
        self._board.learning.append(f"{announced.task}/{announced.version} {announced.state}: {' '.join(why)}")
        if self._board.story is not None and announced.state != "live":
            self._board.story.happened(f"{announced.state}: {announced.version}")

    def _dead(self, letter: Mapping[str, Any]) -> None:
        self._board.dead[letter["code"]] += 1


def read_metrics(settings: Settings, board: Board) -> None:
    """Quantiles and live releases from the worker's page; what cannot be read stays as it was."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/metrics", timeout=1) as page:
            text = page.read().decode()
    except (urllib.error.URLError, OSError):
        return
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "headrace_score_latency_recent_seconds":
                found.setdefault(sample.labels["task"], {})[sample.labels["quantile"]] = sample.value
            elif sample.name == "headrace_release_info":
                board.releases[sample.labels["task"]] = (
                    f"{sample.labels['release']} on {sample.labels['engine'].split(',')[0]}"
                )
    for task, quantiles in found.items():
        board.latency[task] = (quantiles.get("0.5", float("nan")), quantiles.get("0.99", float("nan")))
