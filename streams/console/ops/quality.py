"""The pages of quality and of learning: how good each release is, what has drifted, how labels become a live release.
And what a person asks of the learner: a pause, an end of the pause, a fine-tune now.
"""

import asyncio
from dataclasses import replace

from aiohttp import web
from markupsafe import Markup

from schemas.errors import HeadraceError
from streams.access.gate import form, identity, requires
from streams.console.ops import learning_view, quality_view, release_view
from streams.console.ops.charts import line_chart
from streams.console.ops.frame import change, chosen_task, explained, ops, problem_of, seen, task_of, translator
from streams.console.ops.row_charts import bars, intervals
from streams.console.ops.shelf import LEARNING, RELEASES
from streams.console.page import render
from streams.learner.control import Command, Speaker
from streams.tasks import make_task

DOES = {"pause": "No fine-tune begins until the pause is ended.", "resume": "The pause is ended.",
        "now": "A fine-tune is asked for; it still has to pass the gate."}  # fmt: skip


def learning(request: web.Request) -> list[learning_view.TaskLearning]:
    here = ops(request)
    control, tasks = here.shelf.learning, here.settings.tasks
    return learning_view.all_tasks(tasks, control.statuses(), {task: control.command(task) for task in tasks})


@requires("see")
@explained
async def quality(request: web.Request) -> web.Response:
    here, task = ops(request), chosen_task(request)
    now_ms, learners = here.clock(), here.scraper.learners
    shown = release_view.of_task(task, here.shelf.releases.releases(), (), now_ms)
    live = shown.pointer.version if shown.pointer is not None else None
    found = quality_view.releases(learners, task, live)
    about = next(one for one in learning(request) if one.task == task)
    judged = next((row for row in shown.rows if row.checks), None)
    watched = next((row for row in shown.rows if row.evidence), None)
    gains = [_gain(request, shown, metric) for metric in release_view.metrics_of(shown)]
    return render(
        request, "ops/quality.html", page="quality", ranks=make_task(task).loss == "softmax",
        task=task, tasks=here.settings.tasks, found=found, about=about,
        charts=_charts(request, task, found, about), gains=gains,
        drifts=learning_view.drifts(
            task, here.scraper.workers, judged.checks if judged is not None else (),
            watched.evidence if watched is not None else {},
        ),
        learners=learners.newest, **problem_of(request, RELEASES),
    )  # fmt: skip


def _gain(request: web.Request, shown: release_view.TaskReleases, metric: str) -> Markup:
    t, name = translator(request), release_view.METRICS.get(metric, metric)
    return intervals(
        f"gain-{metric}", t("Gain in {metric} over the release before", metric=t(name)),
        release_view.gains(shown, metric), note=t("by the gate, 95 % bounds; right of 0 is better"), at=0.0,
    )  # fmt: skip


def _charts(
    request: web.Request,
    task: str,
    found: list[quality_view.ReleaseQuality],
    about: learning_view.TaskLearning,
) -> dict[str, object]:
    here, t = ops(request), translator(request)
    learners = here.scraper.learners
    parts = about.last.parts if about.last is not None else ()
    return {
        "auc": line_chart(quality_view.auc_chart(learners, task, here.clock(), t)),
        "auc_now": intervals(
            "auc-now", t("Area under the ROC curve, now"), quality_view.auc_rows(found, t),
            note=t("measured with 95 % bounds where labels are counted, else estimated"),
            empty=t("No label has matured yet."),
        ),
        "calibration": intervals(
            "calibration", t("Calibration"), quality_view.calibration_rows(found),
            note=t("predictions over positives; 1 is right"), at=1.0, empty=t("No positive label has matured yet."),
        ),
        "parts": bars("parts", t("The last fine-tune, part by part"), parts, "s", note=t("the longest first"),
                      empty=t("No fine-tune has ended since the learner began.")),
        "label_to_live": bars(
            "label-to-live", t("Label to live"), learning_view.label_to_live(learning(request), learners), "s",
            note=t("from the newest label learned to the first score of who learned it"),
            empty=t("No release of the learner's has scored yet."),
        ),
    }  # fmt: skip


@requires("see")
@explained
async def learn(request: web.Request) -> web.Response:
    return _learn(request)


def _learn(request: web.Request, problem: HeadraceError | None = None) -> web.Response:
    done = request.query.get("done", "")
    return render(
        request, "ops/learn.html", page="quality", status=503 if problem is not None else 200, rows=learning(request),
        done=DOES.get(done, ""), failed=problem, stale_ms=learning_view.STALE_MS, **problem_of(request, LEARNING),
    )  # fmt: skip


@requires("learn")
@explained
async def ask(request: web.Request) -> web.StreamResponse:
    """POST /learn/{task}, field `do`."""
    task, asked = task_of(request, request.match_info["task"]), (await form(request)).get("do", "")
    if asked not in DOES:
        raise web.HTTPBadRequest(text="do: one of pause, resume, now")
    here, who = ops(request), identity(request).name

    def done() -> Command:
        here.shelf.learning.wait_current(5.0)
        now_ms = here.clock()
        before = here.shelf.learning.command(task)
        wanted = {
            "pause": replace(before, paused=True), "resume": replace(before, paused=False),
            "now": replace(before, asked_at=now_ms),
        }[asked]  # fmt: skip
        wanted = replace(wanted, by=here.audit.pseudonyms.of(who))
        Speaker(here.settings, here.registry).ask(wanted, now_ms)
        return wanted

    try:
        await change(request, f"learn.{asked}", f"task {task}", {}, done)
    except HeadraceError as error:
        return _learn(request, error)
    await heard(request, task, asked)
    raise seen(f"/learn?done={asked}")


async def heard(request: web.Request, task: str, asked: str, patience_s: float = 2.0) -> None:
    """Until our own reader has it, so that the page that follows does not show what was before."""
    control, until = ops(request).shelf.learning, asyncio.get_running_loop().time() + patience_s

    def known() -> bool:
        command = control.command(task)
        return command.asked_at > 0 if asked == "now" else command.paused == (asked == "pause")

    while not known() and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.05)
