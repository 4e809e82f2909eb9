"""What scoring sends: by columns or one by one, the same records in the same order of each topic."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scoring import PARTITIONS, Feed, make_scorer
from schemas.errors import BadRecord
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder
from streams import outputs
from streams.partitioning import partition_for
from streams.scoring import Scorer
from streams.sources.load import START_MS, uniform_load
from streams.tasks import make_task
from streams.tasks.base import Result, Serving
from streams.tasks.exploration import Exploration
from streams.work import Job, Outgoing, Work

ByTopic = dict[str, list[Outgoing]]
NOW_MS = START_MS + 10_000


class Shop(NamedTuple):
    """A scorer, and events of it that are scored and not yet said, by their number."""

    scorer: Scorer
    registry: MemoryRegistry
    works: dict[int, Work]

    def work(self, count: int = 40) -> Work:
        """To be changed as you like."""
        work = self.works[count]
        jobs = [replace(job, results=[*job.results], said=[*job.said], buckets=[*job.buckets]) for job in work.jobs]
        return replace(work, jobs=jobs)


@pytest.fixture(scope="module")
def shop() -> Shop:
    scorer, registry = make_scorer([64])
    return Shop(scorer, registry, {count: scored(scorer, registry, count) for count in (1, 5, 40)})


@pytest.fixture
def work(shop: Shop) -> Work:
    return shop.work()


def scored(scorer: Scorer, registry: MemoryRegistry, count: int) -> Work:
    [batch] = Feed(registry).batches(uniform_load(count, 20, count, (0.4, 0.3, 0.3)), count)
    work = scorer.prepare([(topic, part, scorer.decode(topic, part)) for topic, part in batch], NOW_MS)
    scorer.infer(work)
    return work


def said(scorer: Scorer, work: Work, few: int) -> tuple[ByTopic, ByTopic]:
    """Both waves, by columns where a job has `few` events or more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "FEW", few)
        first, second = scorer.outputs.waves(work)
    return by_topic(first), by_topic(second)


def by_topic(sent: list[Outgoing]) -> ByTopic:
    found: ByTopic = defaultdict(list)
    for record in sent:
        found[record.topic].append(record)
    return found


ALL, NONE = 0, 1_000_000


def changed(draw: Callable[[st.SearchStrategy[Any]], Any], job: Job) -> None:
    """The job as it may be: late events, fallbacks, other results, long waits."""
    size = len(job.events)
    flags = st.lists(st.booleans(), min_size=size, max_size=size) | st.just([False] * size)
    job.late, job.fallback = np.array(draw(flags)), np.array(draw(flags))
    job.buckets = [draw(st.tuples(st.sampled_from([0, 8, 64]), st.integers(0, 200))) for _ in job.events]
    job.infer_us = draw(st.integers(0, 2**31 - 1))
    job.selection = draw(st.sampled_from(["", '{"bought_days":30.0}']))
    for number, result in enumerate(job.results):
        assert result is not None
        job.results[number] = draw(st.sampled_from([result, plain(result), shorter(result), result]))


def plain(result: Result) -> Result:
    """With lists of dicts, as a task of one's own may have them."""
    fields = {name: list(value) if name in ("items", "ads") else value for name, value in result.fields.items()}
    return result._replace(fields=fields, candidates=list(result.candidates))


def shorter(result: Result) -> Result:
    """With no items, and another decision."""
    empty: dict[str, Any] = {name: [] for name in ("items", "ads", "reasons") if name in result.fields}
    fields = result.fields | empty
    return Result(fields, [], [0.5], "review", 0.015625)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_records_by_columns_are_the_records_one_by_one(shop: Shop, data: st.DataObject) -> None:
    scorer, work = shop.scorer, shop.work(data.draw(st.sampled_from([*shop.works])))
    work.started_ms += data.draw(st.sampled_from([0, 0, 10_000_000, -1_000_000]))
    for job in work.jobs:
        changed(data.draw, job)
    assert said(scorer, work, ALL) == said(scorer, work, NONE)


def test_each_event_has_a_score_where_it_lies_and_what_it_was_computed_from(shop: Shop, work: Work) -> None:
    scorer, registry = shop.scorer, shop.registry
    first, second = said(scorer, work, ALL)
    for job in work.jobs:
        task = job.task
        scores, served = first[scorer.names.scores[task.name]], second[scorer.names.served[task.name]]
        assert len(scores) == len(served) == len(job.events)
        decode, tell = Decoder(registry, task.schema), Decoder(registry, "served")
        for event, score, about in zip(job.events, scores, served, strict=True):
            key = event["user_id"].encode()
            assert (score.key, score.partition) == (key, partition_for(key, PARTITIONS))
            assert (about.key, about.partition) == (task.target(event).encode(), None)
            one, other = decode(score.value), tell(about.value)
            for name in ("event_id", "user_id", "event_time", "release", "engine", "late", "fallback", "cut"):
                assert one[name] == other[name]
            assert task.said(one) == Result(
                {**task.said(one).fields},
                other["candidates"],
                other["prediction"],
                other["decision"],
                other["propensity"],
                other["otherwise"],
            )


def test_scores_that_were_said_are_not_said_again_and_served_says_what_they_say(shop: Shop, work: Work) -> None:
    scorer, registry = shop.scorer, shop.registry
    [job] = [job for job in work.jobs if job.task.name == "recommendations"]
    score = {
        "event_id": job.events[1]["event_id"], "user_id": "u", "event_time": 1, "scored_at": 5, "release": "old",
        "engine": "e", "late": True, "fallback": None, "timings": {"queue_us": 1, "infer_us": 2},
        "cut": {"clicks": 1, "orders": -1, "impressions": 5}, "items": [{"item_id": "a", "score": 0.5}],
    }  # fmt: skip
    before, _ = said(scorer, work, ALL)
    job.said[1], job.results[1] = score, job.task.said(score)
    first, second = said(scorer, work, ALL)
    topic = scorer.names.scores[job.task.name]
    assert first[topic] == [one for number, one in enumerate(before[topic]) if number != 1]
    served = Decoder(registry, "served")(second[scorer.names.served[job.task.name]][1].value)
    assert (served["release"], served["served_at"], served["candidates"], served["cut"]) == (
        "old", 5, ["a"], score["cut"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: {**fields, "release": "of its own"},
        lambda fields: {**fields, "event_id": "of its own"},
        lambda fields: {name: value for name, value in fields.items() if name != "reasons"},
    ],
    ids=["release", "event_id", "a default left out"],
)
@pytest.mark.parametrize("which", [slice(None), slice(1)], ids=["all", "one"])
def test_results_may_take_the_place_of_common_fields_and_leave_out_defaults(
    shop: Shop, work: Work, change: Any, which: slice
) -> None:
    [job] = [job for job in work.jobs if job.task.name == "fraud"]
    for number in range(len(job.results))[which]:
        result = job.results[number]
        assert result is not None
        job.results[number] = result._replace(fields=change(result.fields))
    assert said(shop.scorer, work, ALL) == said(shop.scorer, work, NONE)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"items": [{"item_id": "a", "score": "much"}]}, "items[].score"),
        ({"items": [], "colour": "red"}, "recommendation_score"),
        ({}, "items"),
    ],
)
@pytest.mark.parametrize("few", [ALL, NONE])
def test_a_result_that_is_not_of_the_contract_is_refused_with_its_field(
    shop: Shop, work: Work, fields: dict[str, Any], where: str, few: int
) -> None:
    [job] = [job for job in work.jobs if job.task.name == "recommendations"]
    job.results[2] = Result(fields, [], [])
    with pytest.raises(BadRecord) as caught:
        said(shop.scorer, work, few)
    assert (caught.value.code, caught.value.where) == ("wrong_type", where)


def test_an_order_that_is_held_for_review_raises_an_alert(shop: Shop, work: Work) -> None:
    scorer, registry = shop.scorer, shop.registry
    [job] = [job for job in work.jobs if job.task.name == "fraud"]
    result = job.results[0]
    assert result is not None
    job.results[0] = result._replace(decision="review")
    [alert] = scorer.outputs.alerts(work)
    record = Decoder(registry, "fraud_alert")(alert.value)
    assert (record["order_id"], record["event_id"]) == (job.events[0]["order_id"], job.events[0]["event_id"])
    assert alert.key == job.events[0]["order_id"].encode()
    assert (alert.topic, record["amount"], record["currency"]) == (
        scorer.names.alerts, job.events[0]["amount"], job.events[0]["currency"],
    )  # fmt: skip
    raw = work.raw[job.index[0]]
    assert (record["order_partition"], record["order_offset"]) == (raw.partition, raw.offset)
    assert record["features"] == job.rows[:1].tobytes()
    assert record["sentences"]["en"].startswith("Held for review: fraud probability")


@pytest.mark.parametrize("few", [ALL, NONE])
def test_served_has_the_chance_of_what_was_let_through_for_learning(shop: Shop, work: Work, few: int) -> None:
    scorer, registry = shop.scorer, shop.registry
    [job] = [job for job in work.jobs if job.task.name == "fraud"]
    serving = Serving(scorer.catalog, {}, {"review": 0.5, "block": 0.9})
    drawing = make_task("fraud")
    drawing.explore(Exploration(0.02))
    names = [{**event, "event_id": f"e{number}"} for number, event in enumerate(job.events * 200)]
    results = drawing.results(
        {"logit": np.full(len(names), 2.5, np.float32)}, names, job.rows[[0] * len(names)], serving
    )
    chosen = [next(result for result in results if result.decision == each) for each in ("review", "block")]
    job.results[:2] = chosen
    _, second = said(scorer, work, few)
    served = [Decoder(registry, "served")(each.value) for each in second[scorer.names.served["fraud"]]]
    assert [each["propensity"] for each in served] == [
        *(result.propensity for result in chosen), *[1.0] * (len(job.events) - 2),
    ]  # fmt: skip
    assert [each["otherwise"] for each in served[:3]] == ["block", "review", None]
    assert 0.005 <= served[0]["propensity"] <= 0.02 < 0.98 <= served[1]["propensity"] < 1
