"""Sequences of a stream are what the state keeps: a model that was pretrained on them reads the same when it serves."""

from typing import Any

import numpy as np
import pytest

from finetune.history import catalogue_from, replay
from finetune.sequences import sequences_of
from schemas.errors import TrainingError
from streams.catalog import Catalogue
from streams.features import HISTORY_LENGTH
from streams.sources.world import World
from streams.tasks import make_task
from streams.vectors import HashingEncoder, catalogue_vectors
from tests.small_shop import SHOP


@pytest.fixture(scope="module")
def shop():
    world = World(SHOP, 5)
    items, ads = world.catalog()
    catalog = catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder()))
    return [(event.topic, event.record) for event in world.events()], catalog


def test_a_window_is_what_a_task_reads_at_that_event(shop):
    stream, catalog = shop
    task = make_task("recommendations")
    examples = replay(stream, [task], catalog).examples["recommendations"]
    sequences = sequences_of(iter(stream), catalog)
    users = list(dict.fromkeys(record["user_id"] for topic, record in stream if topic != "labels"))
    inputs: dict[str, Any] = task.inputs(examples.rows, np.zeros((len(catalog), 4), np.float32))
    compared = 0
    for number in range(0, len(examples), 7):
        user = users.index(examples.events[number]["user_id"])
        own = slice(*sequences.start[[user, user + 1]])
        at = np.flatnonzero(sequences.time[own] == examples.time[number])
        if len(at) != 1:  # two at one moment: which comes first is the state's own rule
            continue
        window = sequences.before(np.array([user]), at + 1, HISTORY_LENGTH)
        length = inputs["history_kinds"].shape[1]
        assert window.kinds[0, -length:].tolist() == inputs["history_kinds"][number].tolist()
        assert window.items[0, -1] == examples.rows["now_item"][number]
        assert window.items[0, 1:-1].tolist() == examples.rows["item"][number, 2:].tolist()
        ours: Any
        ours, theirs = window.scalars[0, 1 - length :], inputs["history_scalars"][number, 1:]
        np.testing.assert_allclose(ours[:, 1:], theirs[:, 1:], atol=1e-4)
        np.testing.assert_allclose(ours[1:, 0], theirs[1:, 0], atol=0.08)  # ages are whole seconds there
        compared += 1
    assert compared > 20


def test_a_stream_without_events_is_refused():
    with pytest.raises(TrainingError, match="no events"):
        sequences_of([("labels", {})], Catalogue())
