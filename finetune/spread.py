"""One training over several processes, by torchrun: each has its share of every batch, and gradients are added up.
It is not faster data reading: every process holds all examples. Each step is that of one process with the whole batch,
but for the order in which numbers are added; dropout alone is drawn otherwise.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import SettingsError, TrainingError

LEAST_WEIGHT = 1.0  # a batch in which nothing has a label gives a loss of 0, not one that is no number


@dataclass(frozen=True, slots=True)
class Spread:
    """Process `rank` of `size`. Processes begin with equal weights and optimisers, and so they stay equal."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that publishes."""
        return self.rank == 0

    def share(self, batch: NDArray[np.intp]) -> NDArray[np.intp]:
        """This process's part of a batch. Raises SettingsError where a batch has fewer examples than processes."""
        if len(batch) < self.size:
            raise SettingsError(
                f"a batch of {len(batch)} for {self.size} processes", where="torchrun",
                expected="at least one example each", todo="start fewer processes, or take larger batches",
            )  # fmt: skip
        return batch[self.rank :: self.size]

    def descend(self, total: Tensor, weight: Tensor, learning: Sequence[torch.nn.Parameter]) -> float:
        """Gradients of the whole batch's mean loss, in every process; returns that loss.

        total, weight: this share's loss, summed, and the sum of its weights.
        """
        if self.size == 1:
            mean = total / weight.clamp(min=LEAST_WEIGHT)
            mean.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            return mean.item()
        sums = torch.stack([total.detach().double(), weight.detach().double()])
        dist.all_reduce(sums)
        whole = float(sums[1].clamp(min=LEAST_WEIGHT))
        (total / whole).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        self._add_up(learning)
        return float(sums[0]) / whole

    def _add_up(self, learning: Sequence[torch.nn.Parameter]) -> None:
        """A parameter that no process has a gradient of keeps none, as with one process."""
        given = torch.tensor([each.grad is not None for each in learning], dtype=torch.float32)
        parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in learning]
        flat = torch.cat([given, *(part.reshape(-1) for part in parts)])
        dist.all_reduce(flat)
        at = len(learning)
        for each, anywhere in zip(learning, flat[:at].tolist(), strict=True):
            each.grad = flat[at : at + each.numel()].view_as(each).clone() if anywhere else None
            at += each.numel()

    def agree(self, what: str, *parts: Any) -> None:
        """Raises TrainingError in every process where they do not hold the same arrays."""
        if self.size == 1:
            return
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        number = torch.tensor(int.from_bytes(digest.digest()[:7], "big"))
        least, most = number.clone(), number.clone()
        dist.all_reduce(least, dist.ReduceOp.MIN)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        if least != most:
            raise TrainingError(
                f"the processes do not hold the same {what}", where="torchrun",
                expected="one stream, read to the same end", todo="end it before now, with --to, in each of them",
            )  # fmt: skip


ALONE = Spread()


@contextmanager
def spread() -> Iterator[Spread]:
    """What torchrun says of this process: WORLD_SIZE and RANK in the environment. Without it, ALONE."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    dist.init_process_group("gloo")
    try:
        yield Spread(dist.get_rank(), dist.get_world_size())
        dist.barrier()
    finally:
        dist.destroy_process_group()
