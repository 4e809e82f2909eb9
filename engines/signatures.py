"""The inputs and outputs of each task's graph, from the model's sizes. Free of torch, so that the worker, the
null engine and the export share one definition; a release's manifest carries the result.
"""

from collections.abc import Callable, Mapping
from typing import Any

from engines.base import Signature, TensorSpec
from schemas.errors import EngineError

NOT_A_CANDIDATE = -1e9  # the catalogue bias of a row that must not be recommended
MISSING = -(1 << 23)  # the code of a column's missing value; all others are above it
SPARE = 12  # rows beyond the top K that are ranked again, with exact scores
PAGE_NAMED, PAGE_SCALARS = 17, 4  # of an impression: its placement and 16 attributes; counts
CONVERSION = "conversion_logit"  # of an order after a click on the ad
Sizes = Mapping[str, Any]  # the keys of HeadraceConfig

SIZES: dict[str, int] = {
    "width": 64,
    "layers": 2,
    "heads": 2,
    "hidden": 256,
    "head_width": 0,
    "history": 64,
    "kinds": 16,
    "history_scalars": 4,
    "fields": 1,
    "attribute_pairs": 96,
    "attribute_numbers": 0,
    "attribute_texts": 0,
    "categories": 1,
    "flags": 0,
    "knots": 12,
    "members": 4,
    "trees": 0,
    "leaves": 16,
    "depth": 6,
    "slate": 8,
    "slate_scalars": 3,
    "top_k": 10,
    "text_width": 384,
    "item_scalars": 2,
    "item_kinds": 2,
    "item_buckets": 0,
    "pointwise": 0,
    "own_items": 0,
    "withholds": 1,
    "conversions": 0,
    "affinities": 0,
}
"""What a model has unless it says otherwise: HeadraceConfig's defaults, for those without torch."""


def signature(sizes: Sizes) -> Signature:
    """The signature of `sizes["task"]`. Raises EngineError for a task that no model family member has."""
    task = sizes["task"]
    if task not in SIGNATURES:
        raise EngineError(
            f"no signature for task {task!r}",
            where="model config",
            expected=f"one of {', '.join(SIGNATURES)}",
        )
    inputs, outputs = SIGNATURES[task](sizes)
    return Signature((*history(sizes), *inputs), outputs)


def history(sizes: Sizes) -> tuple[TensorSpec, ...]:
    length = sizes["history"]
    return (
        TensorSpec("history_vectors", "float32", ("B", length, sizes["width"])),
        TensorSpec("history_kinds", "int32", ("B", length)),
        TensorSpec("history_scalars", "float32", ("B", length, sizes["history_scalars"])),
    )


def fraud(sizes: Sizes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    fields = TensorSpec("fields", "int32", ("B", sizes["fields"]))
    basket = TensorSpec("basket_vectors", "float32", ("B", sizes["width"]))
    attributes: tuple[TensorSpec, ...] = ()
    if sizes["attribute_numbers"] + sizes["attribute_texts"]:
        pairs = ("B", sizes["attribute_pairs"])
        attributes = (
            TensorSpec("attribute_ids", "int32", pairs),
            TensorSpec("attributes", "int32", pairs),
        )
    return (fields, *attributes, basket), (TensorSpec("logit", "float32", ("B",)),)


def recommendations(sizes: Sizes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    k, withholds = sizes["top_k"], sizes.get("withholds")
    ranked = k + SPARE if withholds else k
    items: tuple[TensorSpec, ...] = ()
    if sizes.get("own_items"):
        items = (TensorSpec("history_items", "int32", ("B", sizes["history"])),)
    if withholds:
        items = (*items, TensorSpec("withheld", "int32", ("B", sizes["history"])))
    catalog = TensorSpec("catalog", "float32", ("N", sizes["width"]), least=k + SPARE)
    bias = TensorSpec("catalog_bias", "float32", ("N",), least=k + SPARE, pad=NOT_A_CANDIDATE)
    outputs = TensorSpec("rows", "int64", ("B", ranked)), TensorSpec("scores", "float32", ("B", ranked))
    return (*items, catalog, bias), outputs


def ctr(sizes: Sizes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    width, slate = sizes["width"], sizes["slate"]
    context = TensorSpec("context_vectors", "float32", ("B", width))
    ads = TensorSpec("slate_vectors", "float32", ("B", slate, width))
    scalars = TensorSpec("slate_scalars", "float32", ("B", slate, sizes["slate_scalars"]))
    named = TensorSpec("page_values", "float32", ("B", PAGE_NAMED))
    ids = (
        TensorSpec("history_ids", "int32", ("B", sizes["history"], 2)),
        TensorSpec("slate_ids", "int32", ("B", slate, 4)),
        TensorSpec("page_ids", "int32", ("B", PAGE_NAMED)),
    )
    page = TensorSpec("page_scalars", "float32", ("B", PAGE_SCALARS))
    outputs = [TensorSpec("logit", "float32", ("B", slate))]
    if sizes.get("conversions"):
        outputs.append(TensorSpec(CONVERSION, "float32", ("B", slate)))
    return (context, ads, scalars, *ids, named, page), tuple(outputs)


SIGNATURES: dict[str, Callable[[Sizes], tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]] = {
    "fraud": fraud,
    "recommendations": recommendations,
    "ctr": ctr,
}
