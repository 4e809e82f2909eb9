"""Pretraining on sequences: what a window shows, that it learns, and that a kill does not disturb it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.model import HeadraceConfig, HeadraceModel
from finetune.baskets import BasketCourse, Prior, fit_baskets, recommended, windows
from finetune.metrics import hit_at
from finetune.pretrain import Course, Pretraining
from finetune.ranking import next_ranks
from finetune.sequences import Sequences
from schemas.errors import SettingsError, TrainingError
from streams.catalog import NOT_A_CANDIDATE, Catalogue

ITEMS, HISTORY = 14, 8
QUICK = Course(cpu_s=3, batch=16, rate=1e-2, negatives=0, dropout=0, item_dropout=0, compiled=False, autocast=False)


@pytest.fixture(scope="module")
def catalog() -> Catalogue:
    made, draw = Catalogue(), np.random.default_rng(0)
    for row in range(1, ITEMS + 1):
        vector = draw.standard_normal(384).astype("<f4")
        made.apply_vector(
            {"kind": "item", "id": f"i{row}", "row": row, "vector": (vector / np.linalg.norm(vector)).tobytes()}
        )
    return made


def rounds(users: int = 40, seed: int = 0) -> Sequences:
    """Everyone goes through the items in turn, from a place of their own."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(3, 2 * HISTORY, users)
    item = np.concatenate([(draw.integers(ITEMS) + np.arange(size)) % ITEMS + 1 for size in sizes]).astype(np.int32)
    time = np.concatenate([np.arange(size) * 60_000 for size in sizes]).astype(np.int64)
    ones = np.ones(len(item), np.float32)
    return Sequences(np.concatenate([[0], np.cumsum(sizes)]), item, ones.astype(np.uint8), time, ones, ones)


def model(**sizes: int) -> HeadraceModel:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "width": 16,
        "heads": 2,
        "hidden": 32,
        "history": HISTORY,
        "item_buckets": 64,
        "pointwise": 1,
    }
    return HeadraceModel(HeadraceConfig(task="recommendations", **{**small, **sizes}))


def bias() -> np.ndarray:
    made = np.zeros(ITEMS + 1, np.float32)
    made[0] = NOT_A_CANDIDATE
    return made


def test_a_window_holds_the_newest_events_before_its_end_and_the_one_after_each() -> None:
    sequences = rounds()
    users = np.arange(len(sequences))
    window = sequences.before(users, sequences.events - 1, HISTORY)
    for user in users:
        own = sequences.item[sequences.start[user] : sequences.start[user + 1]]
        real = window.kinds[user] > 0
        assert window.items[user][real].tolist() == own[:-1][-HISTORY:].tolist()
        assert window.next_items[user][real].tolist() == own[1:][-HISTORY:].tolist()
        assert not window.next_items[user][~real].any()
        assert window.scalars[user][real][1:, 0] == pytest.approx(0.1 * np.log1p(60))


def test_what_comes_next_is_learned_and_found_among_all(catalog: Catalogue) -> None:
    sequences = rounds()
    untrained = next_ranks(model().eval(), catalog, bias(), sequences, sequences.events - 1, new_only=False)
    ample = replace(QUICK, cpu_s=10)  # what other threads of this process do counts, too
    trained = Pretraining(model(), catalog, bias(), sequences, ample).run()
    ranks = next_ranks(trained, catalog, bias(), sequences, sequences.events - 1, new_only=False)
    assert hit_at(untrained, 1) < 0.4
    assert hit_at(ranks, 1) > 0.9


def test_steps_after_a_restart_are_those_of_a_training_that_never_stopped(catalog: Catalogue, tmp_path: Path) -> None:
    course = replace(QUICK, cpu_s=1e9)  # the rate depends on time spent: far from its end it does not change

    def trained(folder: Path | None, first: int, last: int) -> Pretraining:
        training = Pretraining(model(), catalog, bias(), rounds(), course, folder)
        for number in range(first, last):
            training.step(number)
        return training

    once = trained(None, 0, 6)
    begun = trained(tmp_path, 0, 3)
    begun.standing = replace(begun.standing, steps=3)
    begun.save()
    resumed = trained(tmp_path, 3, 6)
    assert resumed.standing.steps == 3
    for name, tensor in once.averaged().named_parameters():
        torch.testing.assert_close(tensor, resumed.averaged().get_parameter(name))


def test_another_course_does_not_go_on_from_a_checkpoint(catalog: Catalogue, tmp_path: Path) -> None:
    begun = Pretraining(model(), catalog, bias(), rounds(), QUICK, tmp_path)
    begun.standing = replace(begun.standing, steps=3)
    begun.save()
    assert Pretraining(model(), catalog, bias(), rounds(), QUICK, tmp_path).standing.steps == 3
    assert Pretraining(model(), catalog, bias(), rounds(), replace(QUICK, rate=0.5), tmp_path).standing.steps == 0


def test_what_cannot_be_learned_from_is_refused(catalog: Catalogue) -> None:
    sequences = rounds()
    lonely = Sequences(
        np.arange(4),
        sequences.item[:3],
        sequences.kind[:3],
        np.zeros(3, np.int64),
        sequences.value[:3],
        sequences.quantity[:3],
    )
    with pytest.raises(TrainingError, match="two events"):
        Pretraining(model(), catalog, bias(), lonely, QUICK)
    with pytest.raises(TrainingError, match="order of time"):
        replace(sequences, time=-np.arange(len(sequences.item), dtype=np.int64))
    with pytest.raises(SettingsError, match="rate"):
        Course(cpu_s=1, rate=2)


class Shoppers:
    """Everyone orders one item of their own again and again, among others by chance."""

    def __init__(self, catalog: Catalogue, users: int = 30, orders: int = 5) -> None:
        draw = np.random.default_rng(0)
        self.catalog, self._baskets = catalog, []
        item: list[int] = []
        kind, time, opening, customer, when = ([] for _ in range(5))
        start = [0]
        for user in range(users):
            for number in range(orders):
                now = number * 7 * 86_400_000 + user * 1000
                opening.append(len(item) - start[-1])
                basket = np.unique([user % ITEMS + 1, draw.integers(1, ITEMS + 1)]).astype(np.int32)
                item += [0, *basket]
                kind += [1] + [2] * len(basket)
                time += [now] * (1 + len(basket))
                self._baskets.append(basket)
                customer.append(user)
                when.append(now)
            start.append(len(item))
        ones = np.ones(len(item), np.float32)
        self.sequences = Sequences(
            np.array(start), np.array(item, np.int32), np.array(kind, np.uint8), np.array(time), ones, ones
        )
        self.time, self.customer, self.opening = np.array(when), np.array(customer), np.array(opening)

    def basket(self, order: int) -> np.ndarray:
        return self._baskets[order]


def test_every_order_is_learned_from_once_at_its_own_opening(catalog: Catalogue) -> None:
    shoppers = Shoppers(catalog)
    which = np.arange(len(shoppers.time))
    parts = windows(shoppers, which, HISTORY)
    assert sorted(order for part in parts for order in part.orders) == which.tolist()
    for part in parts:
        window = shoppers.sequences.before(np.array([part.customer]), np.array([part.end]), HISTORY)
        assert all(window.kinds[0, place] == 1 for place in part.at)


def test_baskets_learn_what_a_customer_buys_again(catalog: Catalogue) -> None:
    shoppers = Shoppers(catalog)
    last = np.arange(4, len(shoppers.time), 5)
    known = np.setdiff1d(np.arange(len(shoppers.time)), last)
    flat = lambda time: np.zeros((len(time), ITEMS + 1, 1), np.float32)  # noqa: E731
    made, prior = model(own_items=1, top_k=3, pointwise=0, hidden=32), Prior(1)
    fit_baskets(
        made, shoppers, known, flat, prior, BasketCourse(passes=30, batch=16, rate=1e-2, item_dropout=0, dropout=0)
    )
    ranked = recommended(made, shoppers, last, flat, prior)
    own = shoppers.customer[last] % ITEMS + 1
    assert (ranked == own[:, None]).any(axis=1).mean() > 0.9
