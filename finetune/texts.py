"""Fine-tuning of the text encoder: titles of what is bought or clicked together come near each other.
Low-rank adapters learn, and are merged into plain weights afterwards: what comes out is an encoder like the one that
went in, of another version, whose vectors must never be mixed with those of before.

Shape suffixes: U distinct items of a batch, D width.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from engines.encoder import LENGTHS, TOKENIZER
from engines.encoder_export import SentenceEncoder, load
from engines.releases import renamed
from finetune import lora
from finetune.curves import Curves
from finetune.trainer import LARGEST_GRADIENT, WARM_UP
from schemas.errors import SettingsError, TrainingError

SESSION_MS = 30 * 60_000  # clicks of a user that are no further apart are together
LARGEST = 64  # items of a group that are read, drawn at random: a wholesaler's order says little of each pair
LIFT = 2.0  # so many times more often together than by chance: near each other, whichever pair was drawn
MAX_TOKENS = 64
LAYERS = "encoder.encoder.layer"
FAR = -1e4

Told = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class TextCourse:
    """How to fine-tune the encoder. pairs: of items, a step. temperature: of the softmax over cosines."""

    steps: int = 300
    pairs: int = 64
    rate: float = 1e-3
    rank: int = 8
    temperature: float = 0.07
    weight_decay: float = 0.01
    autocast: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, fine, expected in (
            ("steps", self.steps > 0, "1 or more"),
            ("pairs", self.pairs > 1, "2 or more: the others are what a pair is told from"),
            ("rate", 0 < self.rate < 1, "a learning rate below 1"),
            ("rank", self.rank > 0, "1 or more"),
            ("temperature", self.temperature > 0, "more than 0"),
        ):
            if not fine:
                raise SettingsError(f"{name} = {getattr(self, name)!r}", where="text course", expected=expected)


class Together:
    """Groups of distinct items, as numbers from 0, that were bought or clicked together. Groups of one are left out."""

    def __init__(self, groups: Iterable[NDArray[np.int64]], items: int, seed: int = 0) -> None:
        """Raises TrainingError where no two items were ever together."""
        draw = np.random.default_rng(seed)
        distinct = [np.unique(group) for group in groups]
        self.groups = [draw.permutation(group)[:LARGEST] for group in distinct if len(group) > 1]
        if not self.groups:
            raise TrainingError(
                "no two items were bought or clicked together", where="text encoder", expected="orders of several items"
            )
        self._items = items
        self._near = self._lifted()

    def pairs(self, count: int, draw: np.random.Generator) -> NDArray[np.int64]:
        """(count, 2): groups evenly, two items of each."""
        chosen = draw.integers(len(self.groups), size=count)
        return np.stack([draw.choice(self.groups[number], 2, replace=False) for number in chosen.tolist()])

    def near(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(U, U) whether two of these items are together more often than by chance."""
        keys = items[:, None] * self._items + items[None, :]
        place = np.minimum(np.searchsorted(self._near, keys), len(self._near) - 1)
        found: NDArray[np.bool_] = self._near[place] == keys if len(self._near) else np.zeros(keys.shape, np.bool_)
        return found

    def _lifted(self) -> NDArray[np.int64]:
        """Keys a * items + b, ascending, of pairs whose lift is at least LIFT, in both directions."""
        keys = []
        for group in self.groups:
            pairs = group[:, None] * self._items + group[None, :]
            keys.append(pairs[~np.eye(len(group), dtype=np.bool_)])
        pair, together = np.unique(np.concatenate(keys), return_counts=True)
        count = np.bincount(np.concatenate(self.groups), minlength=self._items)
        chance = count[pair // self._items] * count[pair % self._items] / len(self.groups)
        lifted: NDArray[np.int64] = pair[together >= LIFT * chance]
        return lifted


def groups_of(stream: Iterable[tuple[str, Mapping[str, Any]]], number: Mapping[str, int]) -> list[NDArray[np.int64]]:
    """Orders, and clicks of a user within half an hour, of a time-ordered stream of events. number: by item id."""
    groups: list[NDArray[np.int64]] = []
    open_: dict[str, tuple[int, list[int]]] = {}
    for topic, record in stream:
        if topic == "orders":
            known = [number[line["item_id"]] for line in record["items"] if line["item_id"] in number]
            groups.append(np.array(known, np.int64))
        elif topic == "clicks" and (item := number.get(record["item_id"] or "")) is not None:
            last, looked = open_.get(record["user_id"], (0, []))
            if record["event_time"] - last > SESSION_MS and looked:
                groups.append(np.array(looked, np.int64))
                looked = []
            open_[record["user_id"]] = record["event_time"], [*looked, item]
    return groups + [np.array(looked, np.int64) for _, looked in open_.values()]


def tune_encoder(
    source: Path, texts: Sequence[str], together: Together, out: Path, course: TextCourse, told: Told | None = None,
    curves: Curves | None = None,
) -> float:  # fmt: skip
    """Writes a folder `out` like `source`, for `export_encoder`; returns the loss of the last tenth of the steps.

    texts: by item number. Raises TrainingError where the loss is not finite, EngineError for a source that is none.
    """
    torch.manual_seed(course.seed)
    model = load(source)
    learner = _Learner(model, tokens_of(source, texts), together, course)
    curves, losses = curves or Curves(), []
    curves.begin()
    with closing(curves):
        for step in range(1, course.steps + 1):
            losses.append(learner.step(step - 1))
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss of the text encoder is {losses[-1]} at step {step}", expected="a finite number",
                    todo="lower the rate",
                )  # fmt: skip
            curves.step(step, loss=losses[-1], rate=learner.rate, examples=course.pairs)
            if told is not None:
                told(step, course.steps, losses[-1])
    lora.merge(learner.adapted)
    with renamed(out) as partial:
        save(model, source, partial)
    return float(np.mean(losses[-max(1, course.steps // 10) :]))


def tokens_of(source: Path, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(source / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def save(model: SentenceEncoder, source: Path, folder: Path) -> None:
    """Weights as they are, the configuration and tokenizer of the source."""
    encoder: Any = model.encoder
    encoder.save_pretrained(folder)
    for name in ("config.json", TOKENIZER):
        shutil.copyfile(source / name, folder / name)


def encoded(model: SentenceEncoder, tokens: Sequence[Sequence[int]]) -> Tensor:
    """(N, D) vectors of length 1 of these texts, in one call."""
    longest = max(len(ids) for ids in tokens)
    length = next((each for each in LENGTHS if each >= longest), longest)
    ids, mask = torch.zeros(2, len(tokens), length, dtype=torch.int64)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    vectors: Tensor = model(ids, mask)["vectors"]
    return vectors.float()


def contrastive(vectors_UD: Tensor, together_UU: Tensor, temperature: float) -> Tensor:
    """InfoNCE with in-batch negatives (van den Oord et al. 2018), averaged over all positives of each item; none of
    them is a negative (Khosla et al. 2020, the loss that sums outside the logarithm).

    together_UU: which are positives of which. Items that have none are negatives only.
    """
    own_UU = torch.eye(len(vectors_UD), dtype=torch.bool)
    score_UU = vectors_UD @ vectors_UD.T / temperature
    others_U1 = score_UU.masked_fill(together_UU | own_UU, FAR).logsumexp(dim=1, keepdim=True)
    each_UU = (torch.logaddexp(score_UU, others_U1) - score_UU) * (together_UU & ~own_UU)
    count_U = (together_UU & ~own_UU).sum(dim=1)
    mean_U = each_UU.sum(dim=1) / count_U.clamp(min=1)
    return mean_U.sum() / (count_U > 0).sum().clamp(min=1)


class _Learner:
    """The encoder with its adapters. What a step draws depends on the seed and its number alone."""

    def __init__(self, model: SentenceEncoder, tokens: list[list[int]], together: Together, course: TextCourse) -> None:
        self._model, self._tokens, self._together, self._course = model, tokens, together, course
        self.adapted = lora.adapt(model, (LAYERS,), course.rank)
        self._learning = [each for each in model.parameters() if each.requires_grad]
        self._optimiser = torch.optim.AdamW(self._learning, lr=course.rate, weight_decay=course.weight_decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, course.rate, total_steps=max(course.steps, 2), pct_start=WARM_UP
        )
        self.rate = course.rate

    def step(self, number: int) -> float:
        pairs = self._together.pairs(self._course.pairs, np.random.default_rng([self._course.seed, number]))
        items, place = np.unique(pairs, return_inverse=True)
        place = place.reshape(pairs.shape)
        together = self._together.near(items)
        together[place[:, 0], place[:, 1]] = together[place[:, 1], place[:, 0]] = True
        with torch.autocast("cpu", torch.bfloat16, enabled=self._course.autocast):
            vectors = encoded(self._model, [self._tokens[item] for item in items.tolist()])
        loss = contrastive(vectors, torch.from_numpy(together), self._course.temperature)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        nn.utils.clip_grad_norm_(self._learning, LARGEST_GRADIENT)
        self.rate = float(self._schedule.get_last_lr()[0])
        self._optimiser.step()
        self._schedule.step()
        return loss.item()
