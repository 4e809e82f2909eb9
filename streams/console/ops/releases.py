"""The release pages: each task's timeline, one release with its gate report, and what a person does to the pointer.
Before anything moves a page says what will happen; what was seen there must still be so when it is done.
"""

from collections.abc import Callable, Sequence

from aiohttp import web

from schemas.errors import HeadraceError
from streams.access.gate import form, requires
from streams.console.ops import release_view
from streams.console.ops.frame import change, chosen_task, explained, ops, problem_of, read, seen, task_of, translator
from streams.console.ops.release_view import Release, TaskReleases
from streams.console.ops.row_charts import lanes
from streams.console.ops.shelf import RELEASES
from streams.console.page import render
from streams.pointers import Pointer

DAY_MS = 86_400_000
WHY_CHARS = 500
DONE = {
    "promote": "It is live: workers take it over one after another.",
    "rollback": "The release before is live again.",
    "pin": "It is pinned: only a person moves it.",
    "unpin": "The learner may move it again.",
}
ACTS = ("promote", "rollback", "pin", "unpin")


async def shown_of(request: web.Request, task: str) -> tuple[TaskReleases, str]:
    """The releases of a task, and what is wrong with the store: empty where it could be read."""
    here, problem = ops(request), ""
    stored: Sequence[str] = ()
    try:
        stored = await read(request, lambda: here.moves.versions(task), here.settings.release_store)
    except HeadraceError as error:
        problem = str(error)
    return release_view.of_task(task, here.shelf.releases.releases(), stored, here.clock()), problem


@requires("see")
@explained
async def releases(request: web.Request) -> web.Response:
    here, task, t = ops(request), chosen_task(request), translator(request)
    shown, store_problem = await shown_of(request, task)
    found = release_view.timeline(shown)
    now_ms = here.clock()
    begun = [begin for lane in found for begin, _ in lane.spans] + [at for lane in found for at, _ in lane.moments]
    start = min(begun, default=now_ms - DAY_MS)
    picture = lanes(
        "timeline", t("What was live when"), found, start - max(60_000, (now_ms - start) * 0.02), now_ms,
        note=t("the newest {n} releases; a dot is where one was refused or taken back", n=release_view.LANES),
        empty=t("Nothing was ever made live or refused of this task."),
    )  # fmt: skip
    return render(
        request, "ops/releases.html", page="releases", task=task, tasks=here.settings.tasks, shown=shown,
        timeline=picture, store_problem=store_problem, done=DONE.get(request.query.get("done", ""), ""),
        **problem_of(request, RELEASES),
    )  # fmt: skip


async def found_release(request: web.Request) -> tuple[TaskReleases, Release]:
    task = task_of(request, request.match_info["task"])
    shown, _ = await shown_of(request, task)
    row = next((row for row in shown.rows if row.version == request.match_info["version"]), None)
    if row is None:
        raise web.HTTPNotFound
    return shown, row


@requires("see")
@explained
async def release(request: web.Request) -> web.Response:
    shown, row = await found_release(request)
    manifest, problem = row.manifest, ""
    try:
        manifest = await manifest_of(request, row)
    except HeadraceError as error:
        problem = str(error)
    metrics = manifest.get("metrics")
    report = metrics.get("gate") if isinstance(metrics, dict) else None
    told = report if isinstance(report, dict) else {}
    checks = row.checks or tuple(release_view.checks_of(told))
    unjudged = row.unjudged if row.checks else release_view.unjudged_of(told)
    against = request.query.get("against") or (shown.pointer.version if shown.pointer is not None else "")
    other = next((one for one in shown.rows if one.version == against and one.version != row.version), None)
    return render(
        request, "ops/release.html", page="releases", shown=shown, row=row, checks=checks, unjudged=unjudged,
        manifest_problem=problem, flat=sorted(release_view.flat(without_gate(manifest)).items()), other=other,
        differences=await _differences(request, other, manifest) if other is not None else (),
        **problem_of(request, RELEASES),
    )  # fmt: skip


async def manifest_of(request: web.Request, row: Release) -> dict[str, object]:
    """As it was announced; else from the store, where every file is verified first."""
    moves = ops(request).moves
    if row.manifest:
        return dict(row.manifest)
    return await read(request, lambda: moves.manifest(row.task, row.version), ops(request).settings.release_store)


def without_gate(manifest: "dict[str, object] | object") -> dict[str, object]:
    found = dict(manifest) if isinstance(manifest, dict) else {}
    if isinstance(metrics := found.get("metrics"), dict):
        found["metrics"] = {name: value for name, value in metrics.items() if name != "gate"}
    return found


async def _differences(
    request: web.Request, other: Release, manifest: "dict[str, object] | object"
) -> list[tuple[str, str, str]]:
    try:
        before = await manifest_of(request, other)
    except HeadraceError:
        return []
    return release_view.differences(without_gate(before), without_gate(manifest))


# -- what a person does ------------------------------------------------------------------------------------------


@requires("release")
@explained
async def confirm(request: web.Request) -> web.Response:
    """GET /releases/{task}/{act}: says what will happen, and asks."""
    act = request.match_info["act"]
    if act not in ACTS:
        raise web.HTTPNotFound
    return await _confirm(request, act, request.query.get("version", ""), "", pin=False)


async def _confirm(
    request: web.Request, act: str, version: str, why: str, *, pin: bool, failed: HeadraceError | None = None,
    why_error: str = "",
) -> web.Response:  # fmt: skip
    task = task_of(request, request.match_info["task"])
    shown, _ = await shown_of(request, task)
    if act == "promote" and version not in {row.version for row in shown.rows}:
        raise web.HTTPNotFound
    status = 200 if failed is None and not why_error else 503 if failed is not None and failed.retriable else 400
    return render(
        request, "ops/release_confirm.html", page="releases", status=status, act=act, task=task, shown=shown,
        version=version, why=why, pin=pin, failed=failed, why_error=why_error,
        row=next((row for row in shown.rows if row.version == version), None),
    )  # fmt: skip


@requires("release")
@explained
async def act(request: web.Request) -> web.StreamResponse:
    """POST /releases/{task}/{act}: fields version, expected, why, and pin where one is promoted."""
    act, task = request.match_info["act"], task_of(request, request.match_info["task"])
    if act not in ACTS:
        raise web.HTTPNotFound
    fields = await form(request)
    version, expected = fields.get("version", ""), fields.get("expected", "")
    pin, why = fields.get("pin") == "1", " ".join(fields.get("why", "").split())
    if not why or len(why) > WHY_CHARS:
        said = "Say why: the audit log keeps it." if not why else f"At most {WHY_CHARS} characters."
        return await _confirm(request, act, version, why, pin=pin, why_error=said)
    here = ops(request)
    doing: dict[str, Callable[[], Pointer]] = {
        "promote": lambda: here.moves.promote(task, version, pinned=pin, expected=expected),
        "rollback": lambda: here.moves.roll_back(task, expected=expected),
        "pin": lambda: here.moves.pin(task, pinned=True, expected=expected),
        "unpin": lambda: here.moves.pin(task, pinned=False, expected=expected),
    }
    subject = f"release {task}/{version if act == 'promote' else expected}"

    def moved() -> Pointer:
        pointer = doing[act]()
        here.shelf.releases.know(pointer)
        return pointer

    try:
        await change(request, f"release.{act}", subject, {"why": why, "pinned": pin}, moved)
    except HeadraceError as error:
        return await _confirm(request, act, version, why, pin=pin, failed=error)
    raise seen(f"/releases?task={task}&done={act}")
