"""Why an event was scored as it was: what hangs on it, the same score again, and a span through another release.

One shop on a real broker is scored once; all tests look at it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engines.releases import ReleaseStore
from schemas.confluent import ConfluentRegistry
from streams.batch import KINDS
from streams.catalog import ITEM
from streams.cli import app
from streams.demo.stage import environment
from streams.features import unpack
from streams.local import LocalBroker, LocalRegistry
from streams.tasks import make_task
from streams.tasks.recommendation import TOP_K
from streams.tasks.selection import Selection
from streams.tracing.catalogue import DatedCatalogue, read_catalogue
from streams.tracing.reproduce import CANNOT, DIFFERS, EQUAL, SERVED_ONLY, WHOLE, reproduce
from tests import shop, traced_shop
from tests.records import NOON_MS, order
from tests.traced_shop import BURSTS, CHOSEN, GATED, POPULAR, TASKS, Shop, example, label, send

Headrace = Callable[..., Result]
SPAN = "--from 2023-11-14T00:00Z --to 2023-11-16T00:00Z"


@pytest.fixture(scope="module")
def traced(broker: LocalBroker, registry: LocalRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("traced")
    with traced_shop.scored(broker.address, registry.url, folder, "traced") as made:
        outcomes(made)
        yield made


def outcomes(made: Shop) -> None:
    """Every third order is a fraud, told by labels; of the others, and of ads that nobody clicked, silence is told."""
    topics, records = made.settings.topics, []
    for number, each in enumerate(in_order(made, "fraud")):
        if number % 3 == 0:
            one = label("fraud", each["target_id"], 1.0)
            records.append((topics.labels, "label", each["target_id"].encode(), one))
        made_of = example(each, float(number % 3 == 0), source="chargeback" if number % 3 == 0 else "")
        records.append((topics.examples, "training_example", made_of["example_id"].encode(), made_of))
    for number, each in enumerate(in_order(made, "ctr")):
        for place, ad in enumerate(each["candidates"]):
            clicked = float((number + place) % 4 == 0)
            made_of = example(each, clicked, candidate_id=ad, source="derived" if clicked else "")
            records.append((topics.examples, "training_example", made_of["example_id"].encode(), made_of))
    for number, each in enumerate(in_order(made, "recommendations")):
        wanted = each["candidates"][number % 10]
        one = label("recommendations", each["target_id"], 1.0, candidate_id=wanted, source="derived")
        records.append((topics.labels, "label", each["target_id"].encode(), one))
    send(made.settings, records)


def in_order(made: Shop, task: str) -> list[dict[str, Any]]:
    return sorted(made.served[task], key=lambda each: (each["event_time"], each["event_id"]))


@pytest.fixture
def catalogue(traced: Shop) -> DatedCatalogue:
    with closing(ConfluentRegistry(traced.settings.registry())) as registry:
        return read_catalogue(traced.settings, registry)


@pytest.fixture
def store(traced: Shop) -> ReleaseStore:
    return ReleaseStore(traced.settings.release_store)


@pytest.fixture
def headrace(traced: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_as_it_was: None) -> Headrace:
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Result:
        return CliRunner().invoke(app, line.split(), env=environment(traced.settings), prog_name="headrace")

    return run


def everything(traced: Shop) -> list[dict[str, Any]]:
    """Tasks mixed, so that what comes back in order was put in order."""
    return sorted((each for task in TASKS for each in traced.served[task]), key=lambda each: each["event_id"])


# -- reproduce -----------------------------------------------------------------------------------------------


def test_every_score_of_every_task_comes_out_again_bit_for_bit(
    traced: Shop, store: ReleaseStore, catalogue: DatedCatalogue
) -> None:
    served = everything(traced)
    assert len(served) >= sum(BURSTS)
    assert len({each["bucket"] for each in served}) >= 4
    versions = shop.releases()[1]
    assert {each["release"] for each in served} == {
        *(f"{task}/{version}" for task, version in versions.items()),
        f"fraud/{GATED}",
        f"recommendations/{POPULAR}",
    }
    found = reproduce(traced.settings, store, catalogue, served)
    assert [each.event_id for each in found] == [each["event_id"] for each in served]
    assert [each for each in found if (each.verdict, each.checked) != (EQUAL, WHOLE)] == []
    assert {each.difference for each in found} == {0.0}
    assert {each.notes for each in found} == {()}


def test_what_a_list_was_chosen_by_is_served_and_nobody_is_shown_what_they_bought(
    traced: Shop, catalogue: DatedCatalogue
) -> None:
    lists = traced.served["recommendations"]
    assert {each["selection"] for each in lists} == {Selection(**CHOSEN).text}
    rows = unpack([each["features"] for each in lists], make_task("recommendations").features)
    bought = [row["item"][row["kind"] == KINDS["purchase"]] for row in rows]
    assert sum(map(len, bought)) > len(lists)
    for each, items in zip(lists, bought, strict=True):
        assert not {catalogue.catalog.ids[row] for row in items} & set(each["candidates"])
        assert len(each["candidates"]) == TOP_K
    assert {each["selection"] for task in ("fraud", "ctr") for each in traced.served[task]} == {""}


def test_a_score_that_was_another_one_is_found_and_by_how_much(
    traced: Shop, store: ReleaseStore, catalogue: DatedCatalogue
) -> None:
    for task in TASKS:
        served = traced.served[task][0]
        forged = {**served, "prediction": [value + 0.25 for value in served["prediction"]]}
        (found,) = reproduce(traced.settings, store, catalogue, [forged])
        assert found.verdict == DIFFERS
        assert found.difference == pytest.approx(0.25, abs=1e-6)


def test_what_the_model_did_not_say_there_and_then_cannot_be_reproduced(
    traced: Shop, store: ReleaseStore, catalogue: DatedCatalogue
) -> None:
    served = traced.served["fraud"][0]
    cases: dict[str, dict[str, Any]] = {
        "the fallback": {"fallback": "deadline"},
        "after a crash": {"bucket": 0},
        "format 9": {"features_format": 9},
        "3 bytes": {"features": b"abc"},
        "no release fraud/gone": {"release": "fraud/gone"},
        "engine 'abacus": {"engine": "abacus f32, oak"},
        "a selection": {"selection": '{"mood":1}'},
    }
    found = reproduce(traced.settings, store, catalogue, [{**served, **change} for change in cases.values()])
    for words, each in zip(cases, found, strict=True):
        assert each.verdict == CANNOT
        assert words in each.notes[0]
    (other,) = reproduce(traced.settings, store, catalogue, [{**served, "engine": served["engine"] + " other"}])
    assert "another one" in other.notes[0]


def test_a_catalogue_that_grew_and_lost_items_leaves_what_was_served_reproducible(
    traced: Shop, store: ReleaseStore
) -> None:
    """Sold-out items change which are listed; the scores of those that were listed are the same bits."""
    traced_shop.grow_catalogue(traced.settings)
    with closing(ConfluentRegistry(traced.settings.registry())) as registry:
        later = read_catalogue(traced.settings, registry)
    at = traced.served["recommendations"][0]["served_at"]
    assert (later.rows_at(at), len(later.catalog)) == (49, 59)
    found = reproduce(traced.settings, store, later, everything(traced))
    assert {each.verdict for each in found} == {EQUAL}
    lists = [each for each in found if each.release.startswith("recommendations")]
    assert {each.checked for each in lists} == {WHOLE, SERVED_ONLY}
    assert all(each.notes for each in lists if each.checked == SERVED_ONLY)
    assert {each.rows for each in found} == {49}
    # The same over the larger table: a candidate's score does not depend on how many rows there are.
    whole = reproduce(traced.settings, store, DatedCatalogue(later.catalog), traced.served["recommendations"][:20])
    assert {(each.verdict, each.rows) for each in whole} == {(EQUAL, 59)}


def test_the_command_says_equal_or_why_not(traced: Shop, headrace: Headrace) -> None:
    order = in_order(traced, "fraud")[0]
    said = headrace(f"reproduce {order['event_id']}")
    assert said.exit_code == 0, said.stderr
    assert f"{order['event_id']} ({order['release']}): equal, all" in said.stdout
    by_target = json.loads(headrace(f"reproduce {order['target_id']} --task fraud --json").stdout)
    assert (by_target["event_id"], by_target["verdict"], by_target["bucket"]) == (
        order["event_id"],
        EQUAL,
        order["bucket"],
    )
    assert by_target["again"] == by_target["served"]
    listed = headrace(f"reproduce {in_order(traced, 'recommendations')[-1]['event_id']}")
    assert listed.exit_code == 0, listed.stderr
    assert "item-" in listed.stdout
    topic = traced.settings.topics.served("fraud")
    forged = {**order, "event_id": "forged", "target_id": "forged", "prediction": [0.123]}
    silent = {**order, "event_id": "silent", "target_id": "silent", "fallback": "deadline"}
    send(traced.settings, [(topic, "served", each["target_id"].encode(), each) for each in (forged, silent)])
    for ident, words in (("forged", "differs"), ("silent", "the fallback answered (deadline)")):
        said = headrace(f"reproduce {ident}")
        assert said.exit_code == 1
        assert words in said.stdout
    said = headrace("reproduce nobody")
    assert said.exit_code == 1
    assert topic in said.stderr


def test_a_table_that_took_a_new_row_over_a_moment_late_is_found(
    traced: Shop, store: ReleaseStore, catalogue: DatedCatalogue
) -> None:
    """By the broker's times the score could not have known half of the catalogue, yet it did."""
    at = min(each["served_at"] for each in everything(traced))
    late, catalog = DatedCatalogue(catalogue.catalog), catalogue.catalog
    for row in range(1, 49):
        kind = "item" if catalog.kind[row] == ITEM else "ad"
        vector = {"kind": kind, "id": catalog.ids[row], "row": row, "vector": catalog.text[row].tobytes()}
        late.vector(vector, at - 90_000 if row < 24 else at + 30_000)
    event = next(each for each in everything(traced) if each["served_at"] == at)
    assert late.rows_at(at) == 24
    served = [each for each in everything(traced) if each["served_at"] < at + 30_000][:10]
    assert event["served_at"] == at
    for each in reproduce(traced.settings, store, late, served):
        assert each.verdict == EQUAL, each


# -- lineage -------------------------------------------------------------------------------------------------


def test_lineage_names_every_link_of_an_order(traced: Shop, headrace: Headrace) -> None:
    order = next(each for each in in_order(traced, "fraud") if each["release"] == f"fraud/{GATED}")
    target, topics = order["target_id"], traced.settings.topics
    shadow = {
        "event_id": order["event_id"], "task": "fraud", "target_id": target, "user_id": order["user_id"],
        "event_time": order["event_time"], "compared_at": order["served_at"], "live": order["release"],
        "shadow": "fraud/other", "candidates": [], "live_prediction": [0.5], "shadow_candidates": [],
        "shadow_prediction": [0.4], "live_decision": "review", "shadow_decision": "approve", "live_us": 1,
        "shadow_us": 1, "failure": None,
    }  # fmt: skip
    revised = label("fraud", target, 0.0, revision=7, source="analyst")
    send(
        traced.settings,
        [(topics.shadow, "shadow_score", target.encode(), shadow), (topics.labels, "label", target.encode(), revised)],
    )
    said = headrace(f"lineage {target} --json")
    assert said.exit_code == 0, said.stderr
    found = json.loads(said.stdout)
    assert (found["event_id"], found["task"], found["user_id"]) == (order["event_id"], "fraud", order["user_id"])
    assert (found["input"]["topic"], found["input"]["offset"]) == (topics.orders, order["cut"]["orders"])
    assert [each["topic"] for each in found["scores"]] == [topics.scores("fraud")]
    assert found["scores"][0]["probability"] == pytest.approx(order["prediction"][0])
    served = found["served"]
    assert (served["bucket"], served["row"], served["propensity"]) == (order["bucket"], order["row"], 1.0)
    assert (served["features_bytes"], served["cut"]) == (len(order["features"]), order["cut"])
    assert "features" not in served
    release = found["release"]
    assert release["release"] == f"fraud/{GATED}"
    assert release["champion"] == f"fraud/{shop.releases()[1]['fraud']}"
    assert (release["gate"]["verdict"], release["certificate"]["rows"]) == ("pass", 512)
    assert (release["trained"]["plan"], len(release["digest"])) == ("abc", 64)
    assert found["engine"] == order["engine"]
    assert [each["revision"] for each in found["labels"]][-1] == 7
    (taught,) = found["examples"]
    learned = taught["partition"] == 0  # the standing of the release has all of partition 0, and nothing of 1
    assert (f"fraud/{GATED}" in taught["trained"]) is learned
    assert f"fraud/{shop.releases()[1]['fraud']}" in taught["not_known"], "a first release knows of no offsets"
    # The worker may have asked the release before, too: it does of a sample.
    assert "fraud/other" in [each["shadow"] for each in found["shadow"]]
    assert found["gone"] == []
    words = headrace(f"lineage {order['event_id']}").stdout
    for part in (
        topics.orders,
        "features_sha256",
        "gate: pass",
        "passed: The engine agrees.",
        "fraud/other",
        "analyst",
    ):
        assert part in words


def test_lineage_finds_a_click_and_an_impression_by_their_ids(traced: Shop, headrace: Headrace) -> None:
    for task in ("recommendations", "ctr"):
        event = in_order(traced, task)[5]
        found = json.loads(headrace(f"lineage {event['event_id']} --json").stdout)
        assert (found["task"], found["input"]["event_time"][:10]) == (task, "2023-11-14")
        assert len(found["scores"]) == 1
        assert found["gone"] == []
        assert found["labels"] or found["examples"]


def test_what_is_gone_is_said_and_what_never_was_is_an_error(traced: Shop, headrace: Headrace) -> None:
    order = in_order(traced, "fraud")[0]
    topic = traced.settings.topics.served("fraud")
    cut = {"clicks": -1, "orders": 10**9, "impressions": -1}
    lost = {**order, "event_id": "lost", "target_id": "lost", "cut": cut, "release": "fraud/deleted"}
    send(traced.settings, [(topic, "served", b"lost", lost)])
    found = json.loads(headrace("lineage lost --json").stdout)
    assert (found["input"], found["scores"]) == (None, [])
    assert "no release fraud/deleted" in found["release"]["problem"]
    assert any(traced.settings.topics.orders in words for words in found["gone"])
    said = headrace("lineage nobody")
    assert said.exit_code == 1
    assert len(said.stderr.splitlines()) == 1
    assert topic in said.stderr
    assert headrace(f"lineage {order['event_id']} --since 2999-01-01").exit_code == 1
    assert headrace(f"lineage {order['event_id']} --since 2020-01-01").exit_code == 0
    assert headrace("lineage nobody --since yesterday").exit_code == 2


def test_an_event_without_its_served_record_or_without_any_score_is_traced_as_far_as_it_goes(
    traced: Shop, headrace: Headrace
) -> None:
    topics, first = traced.settings.topics, in_order(traced, "fraud")[0]
    (score,) = [each for each in shop.scores(traced.settings, "fraud") if each["event_id"] == first["event_id"]]
    alone = {**score, "event_id": "alone", "order_id": "order-alone"}
    send(traced.settings, [(topics.scores("fraud"), "fraud_score", score["user_id"].encode(), alone)])
    shop.publish(traced.settings, [("orders", order(event_id="fresh", order_id="order-fresh", user_id="user-1"))])
    found = json.loads(headrace("lineage order-alone --json").stdout)
    assert (found["event_id"], found["target_id"], found["served"]) == ("alone", "order-alone", None)
    assert found["release"]["release"] == first["release"]
    assert f"its record on {topics.served('fraud')} is gone, or not yet written" in found["gone"]
    found = json.loads(headrace("lineage fresh --json").stdout)
    assert (found["target_id"], found["input"]["topic"], found["release"]) == ("order-fresh", topics.orders, None)
    assert found["gone"][0].startswith("no score of it is on")
    assert headrace("lineage order-fresh").exit_code == 0


# -- backtest ------------------------------------------------------------------------------------------------


def test_a_release_against_itself_changes_nothing_and_counts_all(traced: Shop, headrace: Headrace) -> None:
    for task in TASKS:
        version = shop.releases()[1][task]
        said = headrace(f"backtest --release {task}/{version} {SPAN} --json")
        assert said.exit_code == 0, said.stderr
        found = json.loads(said.stdout)
        assert found["events"] >= len({each["event_id"] for each in traced.served[task]})
        assert found["labelled"] == len(traced.served[task])
        assert (found["release"], found["against"]) == (f"{task}/{version}", "what was served")
        if task == "recommendations":  # the catalogue is another one after another test
            assert found["quality"][1]["hr@10"] == 1.0
        else:
            assert found["quality"][0] == pytest.approx(found["quality"][1], abs=1e-2)
        said = headrace(f"backtest --release {task}/{version} {SPAN} --against {task}/{version}")
        assert said.exit_code == 0
        assert "no decision differs" in said.stdout


def test_a_backtest_of_orders_says_decisions_and_money(traced: Shop, headrace: Headrace) -> None:
    version = shop.releases()[1]["fraud"]
    found = json.loads(headrace(f"backtest --release fraud/{version} --against fraud/{GATED} {SPAN} --json").stdout)
    assert found["decisions"] == {}
    assert found["money"][0] == found["money"][1]
    assert set(found["quality"][0]) == {"pr_auc", "recall_at_1pct_fpr", "log_loss"}
    orders = {record["order_id"]: record for name, record in traced.sent if name == "orders"}
    frauds = in_order(traced, "fraud")[::3]
    amounts = sum(int.from_bytes(orders[each["target_id"]]["amount"], "big") / 10_000 for each in frauds)
    money = found["money"][0]
    # One of them may have been judged innocent by another test's analyst.
    assert money["stopped"]["orders"] + money["missed"]["orders"] in (len(frauds), len(frauds) - 1)
    if money["stopped"]["orders"] + money["missed"]["orders"] == len(frauds):
        assert money["stopped"]["amount"] + money["missed"]["amount"] == pytest.approx(amounts, rel=1e-4)


def test_a_policy_is_tried_on_the_orders_that_were_served(traced: Shop, headrace: Headrace, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        'name = "shop"\n[money]\ncurrency = "GBP"\n[budget]\nalerts_per_day = 3\n'
        '[[rules]]\nid = "dear"\nwhen = "order.amount > 100.0"\nthen = "review"\n'
    )
    said = headrace(f"policy backtest {file} {SPAN} --json")
    assert said.exit_code == 0, said.stderr
    found = json.loads(said.stdout)
    orders = [record for name, record in traced.sent if name == "orders"]
    dear = sum(int.from_bytes(record["amount"], "big") > 1_000_000 for record in orders)
    assert (found["orders"], found["labelled"]) == (len(orders), len(orders))  # of other tests' some have no order
    assert (found["rules"]["dear"]["fired"], found["rules"]["dear"]["decided"]) == (dear, dear)
    assert sum(found["decisions"][0].values()) == sum(found["decisions"][1].values()) == len(orders)
    assert found["decisions"][1]["review"] >= dear
    assert not found["budget"]["kept"]
    assert found["money"]["orders"] == len(orders)
    shown = headrace(f"policy backtest {file} {SPAN}")
    assert "saved over" in shown.stdout
    assert "the budget of 3 alerts a day is exceeded" in shown.stdout
    assert headrace(f"policy backtest {file} --from 2001-01-01 --to 2001-01-02").exit_code == 1


def test_a_backtest_takes_the_span_and_the_limit_that_it_is_given(traced: Shop, headrace: Headrace) -> None:
    version = shop.releases()[1]["ctr"]
    few = json.loads(headrace(f"backtest --release ctr/{version} {SPAN} --limit 7 --json").stdout)
    assert few["events"] == 7
    assert set(few["quality"][0]) == {"normalised_entropy", "roc_auc", "calibration"}
    ids = [each for each in traced.served["ctr"] if each["event_time"] < NOON_MS + 60_000]
    found = json.loads(headrace(f"backtest --release ctr {SPAN[:24]} --to 2023-11-14T22:14:20Z --json").stdout)
    assert found["events"] == len(ids)
    said = headrace(f"backtest --release ctr/{version} --from 2001-01-01 --to 2001-01-02")
    assert said.exit_code == 1
    assert "nothing was served in this span" in said.stderr
    assert headrace(f"backtest --release ctr/{version} --against fraud/{GATED} {SPAN}").exit_code == 2
    assert headrace("backtest --release ctr --from noon --to 2001-01-02").exit_code == 2
