"""Made-up inputs that look like served ones: histories of all lengths (empty ones too), padded on the left.
Used to check exports and engines against the oracle and to measure them; a seed gives equal arrays each time.
"""

from collections.abc import Callable

import numpy as np

from engines.base import Array, Signature, TensorSpec
from engines.signatures import MISSING, NOT_A_CANDIDATE

KINDS = 11  # event kinds in use, padding (0) included


def sample(
    signature: Signature, rows: int, *, catalog: int = 64, seed: int = 0, full: bool = False
) -> dict[str, Array]:
    """Inputs of a batch. catalog: rows of the "N" inputs, row 0 unknown; full: no history is short."""
    draw = np.random.default_rng(seed)
    arrays = {spec.name: random(draw, spec, rows if spec.batched else catalog) for spec in signature.inputs}
    lengths = draw.integers(0, arrays["history_kinds"].shape[1] + 1, rows)
    pad_histories(arrays, np.full(rows, arrays["history_kinds"].shape[1]) if full else lengths)
    for name, fix in FIXES.items():
        if name in arrays:
            fix(arrays[name])
    return arrays


def random(draw: np.random.Generator, spec: TensorSpec, rows: int) -> Array:
    if np.issubdtype(np.dtype(spec.dtype), np.integer):
        return draw.integers(1, KINDS, spec.shape(rows)).astype(spec.dtype)
    return draw.standard_normal(spec.shape(rows)).astype(spec.dtype)


def pad_histories(arrays: dict[str, Array], lengths: Array) -> None:
    length = arrays["history_kinds"].shape[1]
    padding = np.arange(length)[None, :] < length - lengths[:, None]
    arrays["history_scalars"][..., -1] = 1
    for name in ("history_vectors", "history_kinds", "history_scalars", "history_items"):
        if name in arrays:
            arrays[name][padding] = 0


def some_missing(fields: Array) -> None:
    fields[::3, ::4] = MISSING


def short_slates(slate_scalars: Array) -> None:
    slate_scalars[..., -1] = 1
    slate_scalars[::2, -2:] = 0


def unknown_row(catalog: Array) -> None:
    catalog[0] = 0


def blocked_rows(bias: Array) -> None:
    bias[0] = NOT_A_CANDIDATE


def some_withheld(withheld: Array) -> None:
    withheld[::2] = 0


def spread_categories(ids: Array) -> None:
    """Numbers of categories are hashes of 16 bits: an engine that reckons with them as floats shows that here."""
    ids[..., CATEGORY_OF[ids.shape[-1]]] *= 6553


CATEGORY_OF = {2: 1, 4: 2}
"""Where history_ids (…, 2) and slate_ids (…, 4) have it."""

FIXES: dict[str, Callable[[Array], None]] = {
    "fields": some_missing,
    "slate_scalars": short_slates,
    "history_ids": spread_categories,
    "slate_ids": spread_categories,
    "catalog": unknown_row,
    "withheld": some_withheld,
    "catalog_bias": blocked_rows,
}
