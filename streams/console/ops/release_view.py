"""What the release pages show: of each task the releases, newest first, with when they were live, why, and the gate.
Pure: what models.releases said and what the store holds in, rows for the templates out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.console.ops.release_book import Releases
from streams.console.ops.row_charts import Lane, Row
from streams.pointers import Announcement, Pointer

LANES = 8
TONES = {"live": "good", "refused": "bad", "rolled back": "bad", "worse": "bad", "retired": "warn", "candidate": "info"}


@dataclass(frozen=True, slots=True)
class Check:
    """One question of the gate: value against bound, both as compared."""

    name: str
    value: float | None
    bound: float | None
    passed: bool
    said: str


@dataclass(frozen=True, slots=True)
class Release:
    """A release. state: what it is to the shop now. spans: when it was live (UTC ms); the last may go on."""

    task: str
    version: str
    state: str
    tone: str
    at: int | None
    why: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    unjudged: tuple[tuple[str, str], ...] = ()
    figures: Mapping[str, float | None] = field(default_factory=dict)
    evidence: Mapping[str, float | None] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    spans: tuple[tuple[int, int], ...] = ()
    live: bool = False
    pinned: bool = False

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    @property
    def verdict(self) -> str:
        """Of the gate: passed, refused, or empty where it has not said anything."""
        if not self.checks:
            return ""
        return "refused" if self.failed else "passed"


@dataclass(frozen=True, slots=True)
class Move:
    """One step of the pointer."""

    at: int
    version: str
    before: str | None
    epoch: int
    pinned: bool
    words: str


@dataclass(frozen=True, slots=True)
class TaskReleases:
    task: str
    pointer: Pointer | None
    rows: tuple[Release, ...]
    moves: tuple[Move, ...]
    newest_in_store: str = ""

    @property
    def live(self) -> Release | None:
        return next((row for row in self.rows if row.live), None)


def of_task(task: str, releases: Releases, stored: Sequence[str], now_ms: int) -> TaskReleases:
    """stored: versions in the store, oldest first. Without a pointer a worker takes the newest of them."""
    pointer, moves = releases.live(task), releases.moves.get(task, ())
    said = {version: one for (of, version), one in releases.said.items() if of == task}
    pointed = {move.version for move in moves} | {move.previous for move in moves if move.previous}
    versions = {*said, *stored, *pointed}
    spans = live_spans(moves, now_ms)
    rows = [_row(task, version, said.get(version, ()), pointer, spans.get(version, ())) for version in versions]
    order = {version: number for number, version in enumerate(stored)}
    rows.sort(key=lambda row: (row.live, _newness(row), order.get(row.version, -1), row.version), reverse=True)
    return TaskReleases(task, pointer, tuple(rows), tuple(reversed(told(moves))), stored[-1] if stored else "")


def _newness(row: Release) -> int:
    begun = [begin for begin, _ in row.spans]
    return max([row.at or 0, *begun])


def _row(
    task: str, version: str, said: Sequence[Announcement], pointer: Pointer | None, spans: tuple[tuple[int, int], ...]
) -> Release:
    """said: all that is known of it. The state is what was said last; the gate's report may be older than that."""
    live = pointer is not None and pointer.version == version
    last = said[-1] if said else None
    state = "live" if live else last.state if last is not None else "in the store"
    if not live and (state == "live" or (state == "in the store" and spans)):
        state = "was live"
    reports = [parsed(one.gate) for one in said]
    judged: Mapping[str, Any] = next((report for report in reversed(reports) if report.get("checks")), {})
    checks = tuple(checks_of(judged))
    return Release(
        task, version, state, TONES.get(state, "quiet"), last.announced_at if last is not None else None,
        () if live else _why(reports[-1] if reports else {}), checks, unjudged_of(judged),
        numbers(judged.get("figures")), numbers(reports[-1].get("evidence") if reports else None),
        next((parsed(one.manifest) for one in reversed(said) if one.manifest), {}), spans, live,
        live and pointer is not None and pointer.pinned,
    )  # fmt: skip


def _why(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a gate's report what it refused for; else the reasons that are given."""
    if report.get("checks"):
        return tuple(check.said for check in checks_of(report) if not check.passed)
    reasons = report.get("reasons")
    return tuple(map(str, reasons)) if isinstance(reasons, list) else ()


def parsed(text: str) -> dict[str, Any]:
    """JSON that somebody wrote on a topic: an object, or nothing."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def numbers(found: object) -> dict[str, float | None]:
    if not isinstance(found, dict):
        return {}
    return {str(name): number(value) for name, value in found.items()}


def number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def checks_of(report: Mapping[str, Any]) -> Iterator[Check]:
    found = report.get("checks")
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict):
            yield Check(
                str(each.get("name", "")), number(each.get("value")), number(each.get("bound")),
                each.get("passed") is True, str(each.get("said", "")),
            )  # fmt: skip


def unjudged_of(report: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Of a gate's report the checks that were not run, and why."""
    found = report.get("not_judged")
    return tuple((str(name), str(why)) for name, why in found.items()) if isinstance(found, dict) else ()


def live_spans(moves: Sequence[Pointer], now_ms: int) -> dict[str, tuple[tuple[int, int], ...]]:
    """When each version was live, as far as the moves are still known."""
    found: dict[str, list[tuple[int, int]]] = {}
    ends = [*(move.announced_at for move in moves), now_ms][1:]
    for move, end in zip(moves, ends, strict=True):
        spans = found.setdefault(move.version, [])
        if spans and spans[-1][1] == move.announced_at:
            spans[-1] = spans[-1][0], end  # pinned, and live before as well
        else:
            spans.append((move.announced_at, end))
    return {version: tuple(spans) for version, spans in found.items()}


def told(moves: Sequence[Pointer]) -> list[Move]:
    """What each move was, from the one before it."""
    said: list[Move] = []
    before: Pointer | None = None
    for move in moves:
        said.append(
            Move(move.announced_at, move.version, before.version if before else move.previous, move.epoch, move.pinned,
                 _words(before, move))
        )  # fmt: skip
        before = move
    return said


def _words(before: Pointer | None, move: Pointer) -> str:
    if before is None and move.previous is None:
        return "made live as the first" + (", pinned" if move.pinned else "")
    if before is None or before.version != move.version:
        back = before is not None and before.previous == move.version
        return f"{'went back' if back else 'moved'}{', pinned' if move.pinned else ''}"
    return "pinned" if move.pinned and not before.pinned else "unpinned" if before.pinned else "said again"


def timeline(shown: TaskReleases) -> list[Lane]:
    """The newest releases that were live, and moments at which others were refused or taken back."""
    lanes = [
        Lane(
            row.version,
            row.spans,
            () if row.at is None or row.state in ("live", "was live") else ((row.at, row.state),),
        )
        for row in shown.rows
        if row.spans or (row.at is not None and row.state != "in the store")
    ]
    return lanes[:LANES]


METRICS = {"pr_auc": "PR-AUC", "recall": "Recall at 1 % false positives", "ndcg": "NDCG@10",
           "normalised_entropy": "Normalised entropy"}  # fmt: skip


def gains(shown: TaskReleases, metric: str) -> list[Row]:
    """What the gate measured each release to gain on its champion, within its bounds; the newest first."""
    found = []
    for row in shown.rows:
        value = row.figures.get(f"{metric}_difference")
        if value is None:
            continue
        tone = "bad" if row.verdict == "refused" else "good"
        low, high = row.figures.get(f"{metric}_low"), row.figures.get(f"{metric}_high")
        found.append(Row(row.version, value, low, high, tone, row.state))
    return found[:LANES]


def metrics_of(shown: TaskReleases) -> list[str]:
    """Which metrics the gate compared, as the figures are named."""
    ending, order = "_difference", list(METRICS)
    names = {name.removesuffix(ending) for row in shown.rows for name in row.figures if name.endswith(ending)}
    return sorted(names, key=lambda name: (order.index(name) if name in METRICS else len(order), name))


def flat(value: object, path: str = "") -> dict[str, str]:
    """Nested values by dotted path, as `headrace releases diff` has them: {"config.width": "64"}."""
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, part in value.items():
            found |= flat(part, f"{path}.{key}" if path else str(key))
        return found
    return {path: f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, before, after) of what two manifests differ in."""
    before, after = flat(dict(old)), flat(dict(new))
    names = sorted({*before, *after})
    return [(name, before.get(name, ""), after.get(name, "")) for name in names if before.get(name) != after.get(name)]
