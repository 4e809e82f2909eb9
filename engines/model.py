"""The model family: one causal transformer over a user's events with a head per task, as a `PreTrainedModel`.
It works on vectors that are looked up outside (its item tower makes them), so a new item needs no new graph.

Shape suffixes: B batch, L history length, D width.
"""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from engines.blocks import Block, HistoryEncoder, ItemTower
from engines.heads import HEADS, RecommendationHead
from engines.pointwise import Pointwise
from engines.recommendation_head import Raised
from engines.signatures import SIZES
from schemas.errors import EngineError, ReleaseError

disable_progress_bar()  # type: ignore[no-untyped-call]  # these models load in milliseconds
set_verbosity_error()  # type: ignore[no-untyped-call]  # what goes wrong is raised below


Layer = Block | Pointwise


class HeadraceConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]  # transformers' hook is untyped
    """Sizes of one model. `layers` counts the read-out block, in which the task's own queries attend to the
    history. `head_width` 0: the heads share the width; where some were pruned, those that are left keep theirs.

    At L=64 a causal layer costs about 40 microseconds of CPU an event in bfloat16, the read-out a third of
    one.
    """

    model_type = "headrace"

    task: str = "fraud"
    width: int = SIZES["width"]
    layers: int = SIZES["layers"]
    heads: int = SIZES["heads"]
    hidden: int = SIZES["hidden"]
    head_width: int = SIZES["head_width"]
    history: int = SIZES["history"]
    kinds: int = SIZES["kinds"]
    history_scalars: int = SIZES["history_scalars"]
    fields: int = SIZES["fields"]
    attribute_pairs: int = SIZES["attribute_pairs"]
    attribute_numbers: int = SIZES["attribute_numbers"]
    attribute_texts: int = SIZES["attribute_texts"]
    categories: int = SIZES["categories"]
    flags: int = SIZES["flags"]
    knots: int = SIZES["knots"]
    members: int = SIZES["members"]
    trees: int = SIZES["trees"]
    leaves: int = SIZES["leaves"]
    depth: int = SIZES["depth"]
    slate: int = SIZES["slate"]
    slate_scalars: int = SIZES["slate_scalars"]
    top_k: int = SIZES["top_k"]
    text_width: int = SIZES["text_width"]
    item_scalars: int = SIZES["item_scalars"]
    item_kinds: int = SIZES["item_kinds"]
    item_buckets: int = SIZES["item_buckets"]
    pointwise: int = SIZES["pointwise"]
    own_items: int = SIZES["own_items"]
    withholds: int = SIZES["withholds"]
    conversions: int = SIZES["conversions"]
    affinities: int = SIZES["affinities"]
    dropout: float = 0.0
    initializer_range: float = 0.05


class HeadraceModel(PreTrainedModel):  # type: ignore[no-untyped-call]  # the same hook
    """`forward` takes the task's engine inputs by name and returns its outputs, in training as in serving."""

    config_class = HeadraceConfig
    config: HeadraceConfig

    def __init__(self, config: HeadraceConfig) -> None:
        super().__init__(config)
        check(config)
        self.item_tower = ItemTower(
            config.width, text=config.text_width, scalars=config.item_scalars, kinds=config.item_kinds,
            buckets=config.item_buckets,
        )  # fmt: skip
        blocks = [block(config) for _ in range(config.layers - 1)]
        self.history = HistoryEncoder(blocks, config.width, kinds=config.kinds, scalars=config.history_scalars)
        self.read = block(config)
        self.head = HEADS[config.task](config)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers has no types for it

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        states_BLD, mask_B11L = self.encode(inputs)
        return cast(dict[str, Tensor], self.head(self.read, states_BLD, mask_B11L, inputs))

    def encode(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """States of the history (B, L, D) and the mask to read them with."""
        vectors, kinds, scalars = (inputs[f"history_{name}"] for name in ("vectors", "kinds", "scalars"))
        return cast(tuple[Tensor, Tensor], self.history(vectors, kinds, scalars))

    def users(self, **inputs: Tensor) -> Tensor:
        """User vectors after every event (B, L, D), each equal to what serving would compute at that event.

        Recommendations only: `model.head.scores(users, catalog, bias)` is what a softmax is trained on.
        """
        if not isinstance(self.head, RecommendationHead):
            raise EngineError(f"a {self.config.task} model has no user vectors", expected="a recommendations model")
        states_BLD, mask_B11L = self.encode(inputs)
        return self.head.vectors(self.read(states_BLD, states_BLD, mask_B11L, causal=True))

    def users_at(self, at_B: Tensor, at_L: Tensor, **inputs: Tensor) -> tuple[Tensor, Raised | None]:
        """As `users`, of P positions only (P, D); and by how much each one's own items are raised, if they are."""
        if not isinstance(self.head, RecommendationHead):
            raise EngineError(f"a {self.config.task} model has no user vectors", expected="a recommendations model")
        states_BLD, mask_B11L = self.encode(inputs)
        asked_PD = self.read(states_BLD, states_BLD, mask_B11L, causal=True)[at_B, at_L]
        raised = None
        if self.head.own is not None:
            scalars, items = inputs["history_scalars"][at_B], inputs["history_items"][at_B].to(torch.int64)
            raised = self.head.own(states_BLD[at_B], asked_PD, scalars, items, at_L)
        return self.head.vectors(asked_PD), raised


def block(config: HeadraceConfig) -> Layer:
    """The layer that the config names: `pointwise` is engines.pointwise's, which has no `hidden`."""
    if config.pointwise:
        return Pointwise(config.width, config.heads, length=config.history, dropout=config.dropout)
    return Block(
        config.width, config.heads, config.hidden, length=config.history, dropout=config.dropout,
        head_width=config.head_width,
    )  # fmt: skip


def check(config: HeadraceConfig) -> None:
    if config.task not in HEADS:
        raise EngineError(
            f"no head for task {config.task!r}", where="model config", expected=f"one of {', '.join(HEADS)}"
        )
    if config.layers < 1 or (not config.head_width and config.width % config.heads):
        raise EngineError(
            f"layers={config.layers}, width={config.width}, heads={config.heads}",
            where="model config",
            expected="at least one layer, and a width that the heads divide",
        )


def load_model(folder: Path) -> HeadraceModel:
    """The model of a release folder, in evaluation mode. Raises ReleaseError if weights and config differ."""
    how: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    try:
        loaded: Any = HeadraceModel.from_pretrained(folder, **how)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ReleaseError(f"the weights cannot be loaded: {error}", where=str(folder)) from error
    model, info = loaded
    lost = {*info["missing_keys"], *info["unexpected_keys"], *(key for key, *_ in info["mismatched_keys"])}
    if lost:
        raise ReleaseError(f"weights and config differ in {', '.join(sorted(lost)[:3])}", where=str(folder))
    return cast(HeadraceModel, model.eval())


__all__ = ["HeadraceConfig", "HeadraceModel", "load_model"]
