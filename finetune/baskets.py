"""Learning whole baskets: at an order's opening, all items of the order are the target at once.
Several orders of a customer are learned in one causal pass; what is bought again is raised by the head's own items.

Shape suffixes: P openings, B histories, L history length, N catalogue rows, G groups of popularity.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.model import HeadraceModel
from finetune.pretrain import Whole, tensors
from finetune.sequences import Sequences
from finetune.trainer import LARGEST_GRADIENT, set_dropout
from schemas.errors import TrainingError
from streams.catalog import NOT_A_CANDIDATE, Catalogue

Rows = NDArray[np.int32]
Popular = Callable[[NDArray[np.int64]], NDArray[np.float32]]


class Orders(Protocol):
    """What is learned from: bench.baskets.Baskets has it."""

    @property
    def sequences(self) -> Sequences: ...
    @property
    def catalog(self) -> Catalogue: ...
    @property
    def time(self) -> NDArray[np.int64]: ...
    @property
    def customer(self) -> NDArray[np.intp]: ...
    @property
    def opening(self) -> NDArray[np.int64]: ...

    def basket(self, order: int) -> Rows: ...


@dataclass(frozen=True, slots=True)
class BasketCourse:
    """How to learn. passes: over the orders. recent: days in which an order's weight falls to 1/e."""

    passes: float = 3.0
    batch: int = 32
    rate: float = 2e-3
    weight_decay: float = 0.01
    dropout: float = 0.2
    item_dropout: float = 0.2
    recent: float = 300.0
    average: float = 0.99
    seed: int = 0


class Part(NamedTuple):
    """Some openings in one customer's window: the first `end` events, `at` within its L tokens, and the orders."""

    customer: int
    end: int
    at: list[int]
    orders: list[int]


class Prior(nn.Module):
    """What the catalogue's bias is made from: a learned weight of each kind of popularity."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((kinds,), 0.2))

    def forward(self, popularity: Tensor) -> Tensor:
        """(..., N, G) to (..., N)."""
        mixed: Tensor = popularity @ self.weight
        return mixed


def fit_baskets(
    model: HeadraceModel, orders: Orders, which: NDArray[np.intp], popularity: Popular,
    prior: Prior, course: BasketCourse, told: Callable[[int, int, float], None] | None = None,
) -> float:  # fmt: skip
    """Trains both in place on the orders of numbers `which`; returns CPU seconds.

    popularity: of times (P,) to (P, N, G). Raises TrainingError where there is nothing to learn, or it diverges.
    """
    if not len(which):
        raise TrainingError("no orders to learn baskets from", expected="at least one")
    started = time.process_time()
    torch.manual_seed(course.seed)
    draw = np.random.default_rng(course.seed)
    parts = windows(orders, which, model.config.history)
    learner = _Learner(model, orders, popularity, prior, course, int(orders.time[which].max()))
    steps = max(1, round(course.passes * len(parts) / course.batch))
    order: list[int] = []
    for step in range(steps):
        while len(order) < course.batch:
            order += draw.permutation(len(parts)).tolist()
        chosen, order = order[: course.batch], order[course.batch :]
        loss = learner.step([parts[number] for number in chosen], step, steps)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss of baskets is {loss} at step {step + 1}", expected="a finite number")
        if told is not None:
            told(step + 1, steps, loss)
    learner.finish()
    return time.process_time() - started


def windows(orders: Orders, which: NDArray[np.intp], length: int) -> list[Part]:
    """Each order once: the newest stands at its window's end, the others where half of it is before them."""
    by_customer: dict[int, list[int]] = {}
    for order in which.tolist():
        by_customer.setdefault(int(orders.customer[order]), []).append(order)
    parts = []
    for customer, own in by_customer.items():
        own = own[::-1]
        while own:
            end = int(orders.opening[own[0]]) + 1
            first = max(end - length, 0)
            fits = [o for o in own if first == 0 or orders.opening[o] + 1 - first >= length // 2 or o == own[0]]
            at = [length - end + int(orders.opening[order]) for order in fits]
            parts.append(Part(customer, end, at, fits))
            own = own[len(fits) :]
    return parts


class _Learner:
    """Model, prior and optimiser of one training."""

    def __init__(
        self, model: HeadraceModel, orders: Orders, popularity: Popular, prior: Prior,
        course: BasketCourse, newest: int,
    ) -> None:  # fmt: skip
        self._model, self._orders, self._popularity, self._prior = model, orders, popularity, prior
        self._course, self._newest = course, newest
        self._table = Whole(model, orders.catalog)
        self._learning: list[Tensor] = [*model.parameters(), *prior.parameters()]
        self._average = [each.detach().clone() for each in self._learning]
        self._optimiser = torch.optim.AdamW(
            self._learning, lr=course.rate, weight_decay=course.weight_decay, fused=True
        )
        set_dropout(model, course.dropout)
        model.train()

    def step(self, parts: list[Part], number: int, steps: int) -> float:
        rise = min(1.0, (number + 1) / 100)
        for group in self._optimiser.param_groups:
            group["lr"] = self._course.rate * rise * (0.01 + 0.495 * (1 + math.cos(math.pi * number / steps)))
        self._optimiser.zero_grad(set_to_none=True)
        loss = self.loss(parts)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        nn.utils.clip_grad_norm_(self._learning, LARGEST_GRADIENT)
        self._optimiser.step()
        follow = 1 - min(self._course.average, (number + 1) / (number + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._learning, follow)
        return float(loss.item())

    def loss(self, parts: list[Part]) -> Tensor:
        """Cross-entropy of each basket's items, evenly, against all items; newer orders weigh more."""
        numbers = np.array([order for part in parts for order in part.orders])
        times = self._orders.time[numbers]
        at_B = torch.from_numpy(np.repeat(np.arange(len(parts)), [len(part.at) for part in parts]))
        at_L = torch.tensor([place for part in parts for place in part.at])
        scores_PN = self.scores(parts, at_B, at_L) + self._prior(torch.from_numpy(self._popularity(times)))
        scores_PN[:, 0] = -1e4
        baskets = [self._orders.basket(int(order)) for order in numbers]
        row = torch.from_numpy(np.repeat(np.arange(len(baskets)), [len(basket) for basket in baskets]))
        share = torch.from_numpy(np.concatenate([np.full(len(b), 1 / len(b), np.float32) for b in baskets]))
        item = torch.from_numpy(np.concatenate(baskets).astype(np.int64))
        each = -torch.log_softmax(scores_PN, dim=-1)[row, item] * share
        age = (self._newest - times) / 86_400_000 / self._course.recent
        weight = torch.from_numpy(np.exp(-age).astype(np.float32))
        return (each * weight[row]).sum() / weight.sum()

    def scores(self, parts: list[Part], at_B: Tensor, at_L: Tensor) -> Tensor:
        """(P, N) of the user's state and own items, without popularity."""
        customers = np.array([part.customer for part in parts])
        ends = np.array([part.end for part in parts])
        window = self._orders.sequences.before(customers, ends, self._model.config.history)
        items, kinds, scalars = tensors(window)
        table = self._table()
        vectors = F.dropout(F.embedding(items, table), self._course.item_dropout, self._model.training)
        given = {"history_vectors": vectors, "history_kinds": kinds, "history_scalars": scalars}
        users, raised = self._model.users_at(at_B, at_L, history_items=items, **given)
        scores: Tensor = users @ table.T
        return scores if raised is None else scores.scatter_add(1, raised.items, raised.by)

    def finish(self) -> None:
        """The averaged weights, in evaluation mode."""
        with torch.no_grad():
            for each, averaged in zip(self._learning, self._average, strict=True):
                each.copy_(averaged)
        set_dropout(self._model, 0.0)
        self._model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types


def recommended(
    model: HeadraceModel, orders: Orders, which: NDArray[np.intp], popularity: Popular,
    prior: Prior, only: NDArray[np.bool_] | None = None,
) -> Rows:  # fmt: skip
    """(R, K) the rows that the served graph answers at each order's opening, with that day's bias.

    only (N,): the rows that may be answered; all items if not given.
    """
    out = np.zeros((len(which), model.config.top_k), np.int32)
    length = model.config.history
    days = orders.time[which] // 86_400_000
    with torch.inference_mode():
        table = Whole(model, orders.catalog)()
        for day in np.unique(days):
            rows = np.flatnonzero(days == day)
            numbers = which[rows]
            bias = prior(torch.from_numpy(popularity(orders.time[numbers[:1]])))[0]
            bias[0] = float(NOT_A_CANDIDATE)
            if only is not None:
                bias[torch.from_numpy(~only)] = float(NOT_A_CANDIDATE)
            window = orders.sequences.before(orders.customer[numbers], orders.opening[numbers] + 1, length)
            items, kinds, scalars = tensors(window)
            given = {"history_vectors": F.embedding(items, table), "history_kinds": kinds, "history_scalars": scalars}
            answer = model(**given, history_items=items, catalog=table, catalog_bias=bias)
            out[rows] = answer["rows"].numpy()
    return out
