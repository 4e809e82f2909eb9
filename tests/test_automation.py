"""What looks automated: which signs say so, that people show none of them, and what becomes of the example."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from finetune.history import Recording, catalogue_from, replay
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.batch import KINDS
from streams.config import Settings
from streams.features import HISTORY_LENGTH, pack
from streams.joining.joiner import Joiner
from streams.labels.automated import Discount
from streams.labels.joined import Joined
from streams.labels.store import LabelStore
from streams.sources.bots import KINDS as BOTS
from streams.sources.world import World, WorldConfig
from streams.tasks import make_task
from streams.tasks.automation import AUTOMATED, Signs, look, signs, signs_of
from streams.vectors import HashingEncoder, catalogue_vectors
from tests.records import NOON_MS

NONE: Signs = {"pace": 0.0, "rhythm": 0.0, "no pages": 0.0, "haste": 0.0}
History = list[tuple[str, float]]  # kind, and seconds before now; the oldest first


def columns(history: History) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    kind = np.zeros(HISTORY_LENGTH, np.uint8)
    age = np.zeros(HISTORY_LENGTH, np.uint32)
    for place, (name, seconds) in enumerate(history[-HISTORY_LENGTH:], HISTORY_LENGTH - len(history[-HISTORY_LENGTH:])):
        kind[place], age[place] = KINDS[name], int(seconds)
    return kind, age


def of(history: History) -> Signs:
    return signs(*columns(history))


def every(seconds: float, count: int, *steps: tuple[str, float]) -> History:
    """The steps, each so long after the round began, round after round."""
    found = [(name, (count - number) * seconds - after) for number in range(count) for name, after in steps]
    return sorted(found, key=lambda each: -each[1])


def test_nothing_known_says_nothing() -> None:
    assert of([]) == NONE
    assert look(NONE).reasons == ()
    assert not look(NONE).automated


def test_a_click_a_second_is_too_much_for_a_person() -> None:
    fast = of(every(0.7, 60, ("view", 0.0)))
    assert fast["pace"] == 1.0
    assert look(fast).automated
    assert look(fast).reasons[0] == "pace 1.00"
    assert of(every(2.5, 60, ("view", 0.0)))["pace"] == 0.0


def test_gaps_that_are_all_alike_are_a_machines_whatever_lies_between_them() -> None:
    clockwork = of(every(20, 15, ("view", 0.0), ("impression", 0.3), ("click", 2.0)))
    assert clockwork["rhythm"] == pytest.approx(0.9)
    assert look(clockwork).automated
    assert "rhythm 0.90" in look(clockwork).reasons
    few = of(every(20, 9, ("view", 0.0), ("click", 2.0)))
    assert few["rhythm"] == 0.0, "nine gaps are too few to tell"


def test_whole_seconds_are_not_taken_for_a_rhythm_where_gaps_are_short() -> None:
    """Two clicks a second or two apart look alike once they are rounded."""
    assert of(every(2.0, 30, ("view", 0.0)))["rhythm"] == 0.0


def test_clicks_in_haste_without_pages_are_automated_and_either_alone_is_not() -> None:
    both = of(every(5, 20, ("impression", 0.0), ("click", 0.4)))
    assert (both["no pages"], both["haste"]) == (0.7, 0.7)
    assert look({**NONE, "no pages": 0.7, "haste": 0.7}).automated
    slow = of([(name, at * 1.7) for name, at in irregular("impression", "click")])
    assert slow["no pages"] == 0.7
    assert not look({**NONE, "no pages": 0.7}).automated
    assert not look({**NONE, "haste": 0.7}).automated


def irregular(*kinds: str) -> History:
    """Twenty of each in turn, with gaps of a person."""
    draws = np.random.default_rng(1)
    age, found = 4_000.0, []
    for _ in range(20):
        for kind in kinds:
            age -= 3 + draws.exponential(30)
            found.append((kind, max(age, 0.0)))
    return found


def test_a_page_now_and_then_is_a_persons() -> None:
    assert of([*every(300, 6, ("view", 0.0), ("click", 100.0))])["no pages"] == 0.0


def test_one_quick_click_counts_with_other_signs_and_not_alone() -> None:
    assert not look(NONE, click_ms=40).automated
    doubtful = {**NONE, "no pages": 0.7}
    assert not look(doubtful, click_ms=2_000).automated
    quick = look(doubtful, click_ms=200)
    assert quick.automated
    assert quick.reasons == ("no pages 0.70", "haste 0.60")
    assert not look(doubtful, click_ms=-500).automated, "a click before its impression is of another clock"


def test_what_is_older_than_a_day_is_forgiven() -> None:
    long_ago = [(kind, age + 90_000) for kind, age in every(0.7, 60, ("view", 0.0))]
    assert of(long_ago) == NONE


entries_of_a_history = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32 - 1)), max_size=80)


@given(entries_of_a_history, st.integers(-(10**6), 10**6))
def test_any_history_gives_a_score_from_0_to_1_and_reasons_if_and_only_if_it_is_automated(
    entries: list[tuple[str, int]], click_ms: int
) -> None:
    found = of(sorted(entries, key=lambda each: -each[1]))
    assert found.keys() == NONE.keys()
    assert all(0 <= value <= 1 for value in found.values())
    seen = look(found, click_ms)
    assert 0 <= seen.score <= 1
    assert bool(seen.reasons) == seen.automated == (seen.score >= AUTOMATED)


@given(st.dictionaries(st.sampled_from(sorted(NONE)), st.floats(0, 1)), st.sampled_from(sorted(NONE)), st.floats(0, 1))
def test_a_stronger_sign_never_lowers_the_score(given_signs: Signs, name: str, more: float) -> None:
    before = {**NONE, **given_signs}
    after = {**before, name: max(before[name], more)}
    assert look(after).score >= look(before).score - 1e-12


# -- a simulated shop


@pytest.fixture(scope="module")
def shop() -> tuple[World, Recording]:
    config = WorldConfig(start="2011-09-01", end="2011-09-08", shop="generated", orders_a_day=30, bots=9)
    world = World(config, seed=4)
    items, ads = world.catalog()
    catalog = catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder()))
    return world, replay(((event.topic, event.record) for event in world.events()), [make_task("ctr")], catalog)


def test_people_show_no_sign_and_bots_of_two_kinds_are_told(shop: tuple[World, Recording]) -> None:
    world, recording = shop
    kinds = {bot.user: bot.kind for bot in world.bots}
    told: dict[str, list[bool]] = {kind: [] for kind in ("person", *BOTS)}
    examples = recording.examples["ctr"]
    for event, found in zip(examples.events, signs_of(examples.rows), strict=True):
        told[kinds.get(event["user_id"], "person")].append(look(found).automated)
    assert len(told["person"]) > 500
    assert not any(told["person"])
    assert min(np.mean(told["hammer"]), np.mean(told["clockwork"])) > 0.7


def test_bots_come_beside_the_people_and_change_nothing_that_people_do(shop: tuple[World, Recording]) -> None:
    world, _ = shop
    bots = {bot.user for bot in world.bots}
    with_bots = [event for event in world.events() if event.record.get("user_id") not in bots]
    config = WorldConfig(start="2011-09-01", end="2011-09-08", shop="generated", orders_a_day=30)
    assert with_bots == list(World(config, seed=4).events())
    every_event = list(world.events())
    assert [event.time for event in every_event] == sorted(event.time for event in every_event)
    theirs = [event for event in every_event if event.record.get("user_id") in bots]
    assert {kind for bot in world.bots if (kind := bot.kind)} == set(BOTS)
    assert len({event.record["event_id"] for event in theirs}) == len(theirs)
    shown = {event.record["event_id"]: event for event in theirs if event.topic == "impressions"}
    answers = [event for event in theirs if event.topic == "clicks" and event.record["impression_id"]]
    for answer in answers:
        answered = shown[answer.record["impression_id"]]
        assert answered.time < answer.time
        assert answer.record["ad_id"] in {ad["ad_id"] for ad in answered.record["slate"]}
    assert len(answers) > 100


# -- examples


TASK = make_task("ctr")


def served(history: History, **fields: Any) -> dict[str, Any]:
    rows = np.zeros(1, TASK.features)
    rows["kind"][0], rows["age"][0] = columns(history)
    return {
        "user_id": "user-1", "release": "ctr/r1", "features_format": 1, "features": pack(rows)[0],
        "candidates": ["ad-1", "ad-2"], "prediction": [0.25, 0.5],
    } | fields  # fmt: skip


def joined(**fields: Any) -> Joined:
    known: dict[str, Any] = {
        "example_id": "e", "task": "ctr", "target_id": "i-1", "candidate_id": "ad-2", "name": "click", "label": 1.0,
        "weight": 2.0, "matured_at": NOON_MS + 9, "revision": 0, "event_time": NOON_MS, "source": "derived",
        "label_hash": 7, "observed_at": NOON_MS + 5_000, "partition": 0, "offset": 3,
    } | fields  # fmt: skip
    return Joined(**known)


BOT = every(5, 20, ("impression", 0.0), ("click", 0.4))
DISCOUNT = Discount([TASK, make_task("fraud"), make_task("recommendations")], 0.1)


def test_the_example_of_an_automated_click_is_marked_and_weighs_less_and_is_of_its_contract() -> None:
    example = DISCOUNT.example(joined(), served(BOT), {})
    assert example["weight"] == pytest.approx(0.2)
    assert example["automation"] == ["rhythm 0.90", "no pages 0.70", "haste 0.70"]
    assert (example["label"], example["prediction"]) == (1.0, 0.5)
    registry = MemoryRegistry()
    kept = Encoder(registry, "training.examples", "training_example")(example)
    assert Decoder(registry, "training_example")(kept) == example


def test_so_does_the_silence_beside_it_or_bots_would_teach_that_ads_are_not_clicked() -> None:
    silence = joined(label=0.0, source="", label_hash=0)
    assert DISCOUNT.example(silence, served(BOT), {})["weight"] == pytest.approx(0.2)


def test_a_persons_example_is_left_as_it_is() -> None:
    person = irregular("view", "click", "impression")
    assert DISCOUNT.example(joined(), served(person), {}) == joined().example(served(person))


def test_only_what_the_rule_says_is_discounted() -> None:
    for other in (joined(name="conversion"), joined(task="fraud", name="fraud"), joined(task="recommendations")):
        assert DISCOUNT.example(other, served(BOT), {})["weight"] == 2.0


def test_what_cannot_be_read_is_not_judged() -> None:
    for strange in (served(BOT, features_format=9), served(BOT, features=b"short")):
        assert DISCOUNT.example(joined(), strange, {})["automation"] == []


def test_a_weight_of_1_marks_and_discounts_nothing() -> None:
    example = Discount([TASK], 1.0).example(joined(), served(BOT), {})
    assert (example["weight"], bool(example["automation"])) == (2.0, True)


def test_a_quick_click_is_judged_by_its_own_time_and_silence_by_none() -> None:
    doubtful = served(every(40, 20, ("impression", 0.0), ("click", 15.0), ("click", 22.0)))
    known: dict[int, Signs] = {}
    found = DISCOUNT.example(joined(), doubtful, known)
    assert known.keys() == {3}
    known[3] = {**NONE, "no pages": 0.7}
    quick = DISCOUNT.example(joined(observed_at=NOON_MS + 100), doubtful, known)
    silent = DISCOUNT.example(joined(observed_at=NOON_MS + 100, source="", label=0.0), doubtful, known)
    assert found.keys() == quick.keys()
    assert (quick["weight"], silent["weight"]) == (pytest.approx(0.2), 2.0)


def test_the_label_join_says_it_of_each_example_and_counts_it(settings: Settings, tmp_path: Path) -> None:
    registry, tasks = MemoryRegistry(), [make_task(name) for name in settings.tasks]
    with closing(LabelStore(tmp_path / "join")) as store:
        joiner = Joiner(settings, registry, tasks, 0, store)
        records = {3: served(BOT), 4: served(irregular("view", "click", "impression"))}
        made = [joined(), joined(example_id="f", offset=4), joined(example_id="g", label=0.0, source="")]
        sent = list(joiner._examples(made, {"ctr": records}))
        counts = joiner.counts()
    decode = Decoder(registry, "training_example")
    said = [decode(each.value) for each in sent]
    share = settings.learning.automated_weight
    assert [each["weight"] for each in said] == [2 * share, 2.0, 2 * share]
    assert [bool(each["automation"]) for each in said] == [True, False, True]
    assert (counts["ctr"].discounted, counts["fraud"].discounted) == (2, 0)
