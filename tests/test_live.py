"""What a worker serves with: a release must read the features that this version makes."""

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from engines import open_engine
from engines.null import null_release, null_tower
from engines.slot import Loaded
from schemas.confluent import ConfluentRegistry
from schemas.errors import ReleaseError, SettingsError
from streams.catalog import NOT_A_CANDIDATE, TEXT_DIMS, Catalogue
from streams.config import Settings
from streams.live import CatalogueFeed, check_pool, check_rows
from streams.local import LocalRegistry
from streams.policies import PolicyFeed
from streams.policy_lists import Entry, ListWriter
from streams.tasks import TASKS, make_task
from streams.tasks.fraud import FIELDS
from streams.tasks.selection import PLAIN, Selection
from tests.records import NOON_MS


def loaded(task: str, **changed: Any) -> Loaded:
    """`changed`: of the input's specification, by input."""
    source = null_release(task, fields=len(FIELDS))
    inputs = tuple(changed.get(spec.name, spec) for spec in source.manifest.signature.inputs)
    signature = replace(source.manifest.signature, inputs=inputs)
    source = replace(source, manifest=source.manifest.model_copy(update={"signature": signature}))
    engine = open_engine("null", source, precision="f32", buckets=(1,), threads=1)
    return Loaded(source, engine, null_tower())


@pytest.mark.parametrize("task", TASKS)
def test_a_release_of_this_version_reads_what_the_task_makes(task: str) -> None:
    check_rows(make_task(task), loaded(task))


@pytest.mark.parametrize("change", [{"dtype": "float16"}, {"dims": ("B", 3)}, {"name": "fields_of_yore"}])
def test_a_release_of_other_features_is_refused_with_what_both_are(change: dict[str, Any]) -> None:
    spec = next(one for one in null_release("fraud").manifest.signature.inputs if one.name == "fields")
    with pytest.raises(ReleaseError, match=r"fraud/.* is of another version .*train a release with this version"):
        check_rows(make_task("fraud"), loaded("fraud", fields=replace(spec, **change)))


@pytest.mark.parametrize("choice", [{"bought_days": 3}, {"diversity": 1.0}, {"most_a_category": 2}])
def test_a_release_from_before_items_could_be_left_out_is_refused_where_some_are_to_be(choice: dict[str, Any]) -> None:
    selection = Selection(**choice)
    check_pool(loaded("recommendations"), selection)
    check_pool(loaded("fraud"), PLAIN)
    old = of_yore()
    check_pool(old, PLAIN)
    with pytest.raises(ReleaseError, match=r"from before items could be left out.*train a release with this version"):
        check_pool(old, selection)


def of_yore() -> Loaded:
    """A release whose graph has no input for what is withheld."""
    made = loaded("recommendations")
    inputs = tuple(spec for spec in made.engine.signature.inputs if spec.name != "withheld")
    made.engine.signature = replace(made.engine.signature, inputs=inputs)
    return made


def test_an_item_that_comes_on_the_block_list_is_no_candidate_until_it_goes(
    settings: Settings, registry: LocalRegistry
) -> None:
    """Through the topics, as `headrace lists add block item:i1` puts it there."""
    settings = settings.model_copy(update={"registry_url": registry.url})
    catalog = Catalogue()
    for row in (1, 2):
        catalog.apply_item({"item_id": f"i{row}", "price": None, "available": True})
        catalog.apply_vector({"kind": "item", "id": f"i{row}", "row": row, "vector": bytes(4 * TEXT_DIMS)})
    with closing(ConfluentRegistry(settings.registry())) as schemas:
        writer = ListWriter(settings, schemas)
        feed = CatalogueFeed(settings, schemas, catalog, now_ms=lambda: NOON_MS)
        policies = PolicyFeed(settings, schemas, feed.block)
        try:
            for until, bias in ((None, NOT_A_CANDIDATE), (NOON_MS + 1, NOT_A_CANDIDATE), (NOON_MS, 0)):
                writer.put(Entry("block", "item", "i1", "recall", until, "ann", 0))
                writer.put(Entry("block", "user", "i2", "another matter", None, "ann", 0))
                policies.wait_current(30)
                assert feed.drain()
                assert catalog.candidate_bias().tolist()[1:] == [bias, 0]
            writer.take_off("block", "item", "i1")
            policies.wait_current(30)
            assert feed.drain()
            assert catalog.blocks == {}
        finally:
            policies.stop()
            feed.stop()
        with pytest.raises(SettingsError, match="an item on the allow list"):
            writer.put(Entry("allow", "item", "i1", "", None, "ann", 0))
