"""Where the item that came next stands among all others: full ranking, of a model on held-out sequences.
Nothing is sampled: a rank among a hundred drawn items says little of one among all (Krichene and Rendle 2020).
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from engines.model import HeadraceModel
from finetune.pretrain import Whole, tensors
from finetune.sequences import Sequences
from streams.catalog import Catalogue

ROWS = 256


def next_ranks(
    model: HeadraceModel, catalog: Catalogue, bias: NDArray[np.float32], sequences: Sequences,
    ends: NDArray[np.int64], *, new_only: bool,
) -> NDArray[np.int64]:  # fmt: skip
    """(U,) how many candidates score above event `ends[u]` of user u, which sees the first `ends[u]` events only.

    new_only: items of that history are no candidates, as where nothing is watched twice.
    """
    with torch.inference_mode():
        table = Whole(model, catalog)()
        prior = torch.from_numpy(bias)
        parts = [
            _ranks(model, table, prior, sequences, np.arange(start, min(start + ROWS, len(ends))), ends, new_only)
            for start in range(0, len(ends), ROWS)
        ]
    return np.concatenate(parts)


def _ranks(
    model: HeadraceModel, table: torch.Tensor, bias: torch.Tensor, sequences: Sequences,
    users: NDArray[np.intp], ends: NDArray[np.int64], new_only: bool,
) -> NDArray[np.int64]:  # fmt: skip
    window = sequences.before(users, ends[users], model.config.history)
    items, kinds, scalars = tensors(window)
    given = {"history_vectors": F.embedding(items, table), "history_kinds": kinds, "history_scalars": scalars}
    last = torch.full((len(users),), items.shape[1] - 1)
    vectors, _ = model.users_at(torch.arange(len(users)), last, **given)
    scores = vectors @ table.T + bias
    goal = torch.from_numpy(sequences.item[sequences.start[users] + ends[users]].astype(np.int64))
    right = scores.gather(1, goal[:, None])
    if new_only:
        for row, user in enumerate(users):
            first = sequences.start[user]
            scores[row, torch.from_numpy(sequences.item[first : first + ends[user]].astype(np.int64))] = -torch.inf
    return np.asarray((scores > right).sum(dim=1).numpy(), np.int64)
