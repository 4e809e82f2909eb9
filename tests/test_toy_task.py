"""A task is added by one file and one line: the toy task of docs/add-a-task.md passes what the other three pass.
The contract's checks are those of test_tasks.py, taken from there, so a new check holds for it too.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streams import tasks
from streams.batch import CLICKS, ORDERS
from streams.config import Settings
from streams.contracts import topic_contract
from streams.events import event_batch
from streams.features import fill_sequence
from streams.state import UserState
from streams.tasks import make_task
from streams.tasks.base import Context, Serving
from streams.topics import topic_specs
from tests import test_tasks as contract
from tests.records import NOON_MS, click, order
from tests.toy_task import BOUGHT, NextPurchase

NAME = "next_purchase"
CHECKS = [
    check
    for name, check in inspect.getmembers(contract, inspect.isfunction)
    if name.startswith("test_") and "task" in inspect.signature(check).parameters
]


@pytest.fixture(autouse=True)
def _in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, NAME, "tests.toy_task:NextPurchase")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("test_"))
def test_it_passes_the_contract(check: Callable[..., None]) -> None:
    task = make_task(NAME)
    events = [contract.EVENTS[task.topic](event_id=f"e{n}", event_time=NOON_MS + n) for n in range(3)]
    given: dict[str, Any] = {"task": task, "events": events}
    check(**{name: given[name] for name in inspect.signature(check).parameters})


def test_the_contract_has_checks_to_pass() -> None:
    assert len(CHECKS) >= 5


def test_its_topics_need_no_settings_of_their_own() -> None:
    settings = Settings(tasks=f"fraud,{NAME}")
    assert {"scores.next_purchase", "served.next_purchase"} <= {spec.name for spec in topic_specs(settings)}
    assert topic_contract(settings, "scores.next_purchase").contract == "recommendation_score"
    assert settings.deadline_ms(NAME) == 1000


def test_what_was_just_bought_is_not_offered_again() -> None:
    task, catalog = NextPurchase(), contract.catalogue()
    serving = Serving(catalog, {}, {})
    bought = order(event_id="o1", event_time=NOON_MS - 60_000)
    item = bought["items"][0]["item_id"]
    rows = _rows(task, [bought, click(event_id="c1", event_time=NOON_MS)], catalog)
    assert rows["bought"][0, 0] == catalog.items[item]
    outputs = contract.outputs_of(task, rows)
    assert item in [catalog.ids[row] for row in outputs["rows"][0]]
    result = task.results(outputs, [click()], rows, serving)[0]
    assert item not in result.candidates
    assert len(result.candidates) == 10


def test_a_purchase_of_last_week_may_be_offered_again() -> None:
    task, catalog = NextPurchase(), contract.catalogue()
    bought = order(event_id="o1", event_time=NOON_MS - 7 * 86_400_000)
    rows = _rows(task, [bought, click(event_id="c1", event_time=NOON_MS)], catalog)
    assert rows["bought"].tolist() == [[0] * BOUGHT]


def _rows(task: NextPurchase, records: list[Any], catalog: Any) -> Any:
    """The feature row of the last record, a click, after the orders before it."""
    state, index = UserState(slots=8), np.array([len(records) - 1])
    topic = [ORDERS] * (len(records) - 1) + [CLICKS]
    batch = event_batch(records, topic, [0] * len(records), list(range(len(records))), catalog)
    absorbed = state.absorb(batch)
    past = state.gather(absorbed, index)
    rows = np.zeros(1, task.features)
    fill_sequence(rows, past, batch, index)
    context = Context(
        batch.time[index], past, absorbed.totals[index], absorbed.first_time[index], absorbed.known[index],
        np.zeros((1, 5, 2), np.int32), catalog,
    )  # fmt: skip
    task.fill(rows, [records[-1]], context)
    return rows
