"""The scoring tasks by name: values are import paths, as in every registry of Headrace.
A new task is one file on the contract of `streams.tasks.base` and one line here.
"""

from importlib import import_module

from schemas.errors import SettingsError
from streams.tasks.base import Task

TASKS: dict[str, str] = {
    "fraud": "streams.tasks.fraud:Fraud",
    "recommendations": "streams.tasks.recommendation:Recommendation",
    "ctr": "streams.tasks.ctr:ClickThrough",
}


def make_task(name: str) -> Task:
    """Raises SettingsError for a name that is not in TASKS."""
    if name not in TASKS:
        raise SettingsError(
            f"no task named {name!r}", expected=f"one of {', '.join(TASKS)}", todo="see docs/add-a-task.md"
        )
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)()
    return task
