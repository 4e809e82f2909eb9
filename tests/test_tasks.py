"""One contract for every task in the registry: what the loop relies on, checked on each."""

import numpy as np
import pytest

from engines.base import Gather
from streams import tasks
from streams.batch import CLICKS, IMPRESSIONS, ORDERS
from streams.catalog import Catalogue
from streams.events import EVENT_TYPES, event_batch
from streams.features import SEQUENCE, SEQUENCE_FIELDS, fill_sequence, unpack, with_sequences
from streams.lookups import Lookups
from streams.state import UserState
from streams.tasks import make_task
from streams.tasks.base import Context, Serving, Task
from tests.records import NOON_MS, click, impression, money, order

EVENTS = {CLICKS: click, ORDERS: order, IMPRESSIONS: impression}
WIDTH = 8


def catalogue() -> Catalogue:
    catalog = Catalogue()
    for row, (kind, ident) in enumerate(
        [("item", f"item-{n}") for n in range(30)] + [("ad", f"ad-{n}") for n in range(3)]
    ):
        vector = np.full(384, row / 100, "<f4").tobytes()
        if kind == "item":
            catalog.apply_item({"item_id": ident, "price": money(row), "available": True})
        catalog.apply_vector({"kind": kind, "id": ident, "row": row + 1, "vector": vector})
    return catalog


def filled(task: Task, events, catalog, history=()):
    """Feature rows of events, after a history of clicks."""
    state = UserState(slots=64)
    before = [click(event_id=f"h{n}", event_time=NOON_MS - 1000 * (n + 1), item_id=f"item-{n}") for n in history]
    records = [*before, *events]
    topic = [CLICKS] * len(before) + [task.topic] * len(events)
    batch = event_batch(records, topic, [0] * len(records), list(range(len(records))), catalog)
    absorbed = state.absorb(batch)
    index = np.arange(len(before), len(records))
    past = state.gather(absorbed, index)
    rows = np.zeros(len(events), task.features)
    fill_sequence(rows, past, batch, index)
    context = Context(
        batch.time[index], past, absorbed.totals[index], absorbed.first_time[index], absorbed.known[index],
        np.zeros((len(events), 5, 2), np.int32), catalog,
    )  # fmt: skip
    task.fill(rows, events, context)
    return rows


def outputs_of(task: Task, rows):
    if task.topic == CLICKS:
        return {
            "rows": np.tile(np.arange(1, 21), (len(rows), 1)),
            "scores": np.tile(np.linspace(2, 0, 20, dtype=np.float32), (len(rows), 1)),
        }
    shape = (len(rows), 8) if task.topic == IMPRESSIONS else (len(rows),)
    return {"logit": np.full(shape, 1.5, np.float32)}


@pytest.fixture(params=sorted(tasks.TASKS))
def task(request) -> Task:
    return make_task(request.param)


@pytest.fixture
def events(task):
    return [EVENTS[task.topic](event_id=f"e{n}", event_time=NOON_MS + n) for n in range(3)]


def test_its_rows_begin_with_the_shared_sequence_and_fit_into_served(task):
    assert task.features.names[: len(SEQUENCE_FIELDS)] == tuple(name for name, *_ in SEQUENCE_FIELDS)
    assert task.features.itemsize <= 2048


def test_its_schema_is_a_contract_and_its_topic_an_input(task):
    from schemas import catalog

    assert task.schema in catalog.names()
    assert task.topic in {kind.topic for kind in EVENT_TYPES}


def test_its_target_is_named_by_the_event(task, events):
    assert task.target(events[0])


def test_engine_inputs_come_from_the_rows_alone(task, events):
    catalog = catalogue()
    rows = filled(task, events, catalog, history=range(5))
    table = np.random.default_rng(0).standard_normal((len(catalog), WIDTH)).astype(np.float32)
    again = unpack([row.tobytes() for row in rows], task.features)
    for name, array in task.inputs(rows, table).items():
        np.testing.assert_array_equal(array, task.inputs(again, table)[name])
        assert np.isfinite(array).all()


def test_a_row_newer_than_the_table_reads_as_unknown(task, events):
    rows = filled(task, events, catalogue(), history=range(5))
    table = np.zeros((2, WIDTH), np.float32)
    assert task.inputs(rows, table)["history_vectors"].shape == (3, 64, WIDTH)


def test_look_ups_left_to_the_engine_are_those_of_the_table(task, events):
    catalog = catalogue()
    rows = filled(task, events, catalog, history=range(30))
    table = np.random.default_rng(0).standard_normal((len(catalog) - 9, WIDTH)).astype(np.float32)
    given = task.inputs(rows, Lookups(table))
    for name, array in task.inputs(rows, table).items():
        if isinstance(given[name], Gather):
            assert (given[name].shape, given[name].dtype) == (array.shape, array.dtype)
            made = np.full_like(array, np.nan)
            given[name].into(made)
        else:
            made = given[name]
        np.testing.assert_array_equal(made, array, err_msg=name)
    assert isinstance(given["history_vectors"], Gather)


def test_its_rows_begin_with_what_all_tasks_share(task, events):
    names = [name for name, *_ in SEQUENCE_FIELDS]
    whole = filled(task, events, catalogue(), history=range(5))
    shared = np.zeros(len(events), SEQUENCE)
    for name in names:
        shared[name] = whole[name]
    rows = with_sequences(shared, task.features)
    for name in names:
        np.testing.assert_array_equal(rows[name], whole[name])
    for name in set(task.features.names or ()) - set(names):
        assert not rows[name].any()


def test_results_and_fallbacks_complete_the_score_and_can_be_said_again(task, events):
    serving = Serving(catalogue(), {"a": 1.0, "b": 0.0}, {"mean": 0.1, "popular": ["item-1"]})
    rows = filled(task, events, serving.catalog)
    for results in (task.results(outputs_of(task, rows), events, rows, serving), task.fallback(events, rows, serving)):
        assert len(results) == len(events)
        for event, result in zip(events, results, strict=True):
            said = task.said({**event, **result.fields})
            assert said.candidates == result.candidates
            assert said.prediction == pytest.approx(result.prediction)
            assert (said.decision, said.propensity) == (result.decision, result.propensity)


def test_the_event_itself_is_the_last_token_and_the_oldest_gives_way(task, events):
    catalog = catalogue()
    rows = filled(task, events, catalog, history=range(70))
    kinds = task.inputs(rows, np.zeros((len(catalog), WIDTH), np.float32))["history_kinds"]
    assert kinds.shape == (3, 64)
    assert (kinds[:, -1] == rows["now_kind"]).all()
    assert (kinds > 0).all()


def test_an_unknown_task_is_refused_with_the_names_there_are():
    from schemas.errors import SettingsError

    with pytest.raises(SettingsError, match="fraud, recommendations, ctr"):
        make_task("frodd")


def test_a_first_order_has_no_usual_amount_and_a_burst_is_counted():
    task, catalog = make_task("fraud"), catalogue()
    orders = [
        order(event_id=f"o{n}", order_id=f"o{n}", event_time=NOON_MS + 60_000 * n, amount=money(10)) for n in range(4)
    ]
    rows = filled(task, orders, catalog)
    from streams.tasks.fraud import COLUMN

    fields = rows["fields"]
    assert fields[0, COLUMN["usual_amount"]] == 0
    assert fields[0, COLUMN["is_first_event"]] == 1
    assert np.expm1(fields[:, COLUMN["orders_1h"]]).round().tolist() == [0, 1, 2, 3]
    assert fields[:, COLUMN["card_known"]].tolist() == [0, 1, 1, 1]


def test_an_entity_that_was_not_given_is_neither_new_nor_known():
    from streams.tasks.fraud import COLUMN

    rows = filled(make_task("fraud"), [order(ip=None)], catalogue())
    assert rows["fields"][0, COLUMN["ip_known"]] == -1
