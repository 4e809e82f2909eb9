"""What an alert says of what its order shares: numbers of users and frauds, as the worker knew them at the time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas import catalog, registry, wire
from streams.alerts import entities, linked
from streams.events import ENTITY_FIELDS
from tests.console_shop import alert
from tests.records import order


def test_only_what_others_share_or_fraud_has_touched_is_a_link() -> None:
    event = order()
    shared = np.zeros((len(ENTITY_FIELDS), 2), np.int32)
    shared[ENTITY_FIELDS.index("card")] = 1, 0  # nobody but the order's own user
    shared[ENTITY_FIELDS.index("device")] = 3, 0
    shared[ENTITY_FIELDS.index("email")] = 1, 1
    named = dict(one.split(":", 1) for one in entities(event))
    assert linked(event, shared) == [
        {"entity": f"device:{named['device']}", "users": 3, "frauds": 0},
        {"entity": f"email:{named['email']}", "users": 1, "frauds": 1},
    ]


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 64)), min_size=5, max_size=5))
def test_what_an_order_does_not_name_is_linked_with_nothing(counts: list[tuple[int, int]]) -> None:
    event = order(device_id=None, ip=None)
    found = linked(event, np.array(counts, np.int32))
    assert {one["entity"] for one in found} <= set(entities(event))
    assert not any(one["entity"].startswith(("device:", "ip:")) for one in found)
    assert all(one["users"] > 1 or one["frauds"] for one in found)


def test_links_are_in_the_contract_and_an_older_reader_passes_over_them() -> None:
    known = [{"entity": "card:1", "users": 7, "frauds": 2}]
    memory = registry.MemoryRegistry()
    value = wire.Encoder(memory, "alerts.fraud", "fraud_alert")(alert("a", linked=known))
    assert wire.Decoder(memory, "fraud_alert")(value)["linked"] == known
    assert [one["default"] for one in catalog.load("fraud_alert")["fields"] if one["name"] == "linked"] == [[]]
