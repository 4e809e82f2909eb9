"""Export: a trained model to the files of a release, with the ONNX graphs that every compiled engine is built
from. The graph is exported once, with open batch and catalogue dimensions, and checked against torch by
whoever releases it.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from engines import tables
from engines.base import MAX_BUCKET, Signature, TensorSpec
from engines.manifest import Description
from engines.model import HeadraceConfig, HeadraceModel
from engines.openvino import GRAPH
from engines.refit import TRACED_FROM, refit, traced_from
from engines.releases import Release
from engines.samples import sample
from engines.signatures import signature
from schemas.errors import EngineError

ROWS, CATALOG = 4, 64  # of the example that is traced; neither is a size of anything else
MAX_CATALOG = 1 << 24


def export(model: HeadraceModel, folder: Path, champion: Release | None = None, **said: Any) -> Description:
    """Writes config.json, model.safetensors, model.onnx and item_tower.onnx, and returns what to publish them
    with.

    champion: what the model was fine-tuned from; its graphs are taken where they fit. said: calibration, settings,
    metrics, trained of the Description. Takes 4 to 8 s where graphs are traced. Raises EngineError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
    sizes = {name: getattr(model.config, name) for name in HeadraceConfig.__annotations__}
    model.save_pretrained(folder)
    task = signature(sizes)
    if champion is None or not refit(champion, model, folder):
        said_of = {TRACED_FROM: traced_from(model)}
        write_graph(model, task, folder / GRAPH, said_of)
        write_graph(Tower(model.item_tower), tower_signature(model.config), folder / tables.GRAPH, said_of)
    model.train(training)
    return Description(signature=task, config=sizes, **said)


class Tower(nn.Module):
    """The item tower as a graph of its own, with named inputs and output."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.item_tower = tower

    def forward(self, text: Tensor, scalars: Tensor, kinds: Tensor) -> dict[str, Tensor]:
        return {"vectors": self.item_tower(text, scalars, kinds)}


def write_graph(model: nn.Module, shape: Signature, path: Path, said: Mapping[str, str] | None = None) -> None:
    """One ONNX file, weights inside. Its inputs and outputs are named and ordered as the signature says.

    Of what hangs on a weight nothing is folded: each is there by its name, for `refit`. Engines fold when they compile,
    with the same speed afterwards. said: goes into its metadata.
    """
    example = example_of(shape)
    open_dims = {spec.name: {0: dimension(spec)} for spec in shape.inputs}
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                (),
                kwargs=example,
                dynamic_shapes=open_dims,
                dynamo=True,
                optimize=False,
                external_data=False,
                verbose=False,
                input_names=[spec.name for spec in shape.inputs],
                output_names=[spec.name for spec in shape.outputs],
            )
            assert program is not None
            fold_constants(program.model, should_fold=on_no_weight)
            program.model.metadata_props.update(said or {})
            program.save(path)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise EngineError(f"the model cannot be exported: {error}", where=path.name) from error


def on_no_weight(node: ir.Node) -> bool | None:
    """Whether it may be folded, for onnxscript: None leaves that to its own rules."""
    return False if any(each is not None and each.is_initializer() for each in node.inputs) else None


def example_of(shape: Signature) -> dict[str, Tensor]:
    named = {spec.name for spec in shape.inputs}
    if "history_kinds" in named:
        arrays = sample(shape, ROWS, catalog=CATALOG)
    else:
        arrays = {spec.name: np.ones(spec.shape(ROWS), spec.dtype) for spec in shape.inputs}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def dimension(spec: TensorSpec) -> Any:
    if spec.batched:
        return torch.export.Dim("B", min=1, max=MAX_BUCKET)
    return torch.export.Dim("N", min=max(spec.least, 1), max=MAX_CATALOG)


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter warns about torchvision and the names of axes; neither concerns a graph that works."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def tower_signature(config: HeadraceConfig) -> Signature:
    text = TensorSpec("text", "float32", ("N", config.text_width))
    hashes = tables.HASHES if config.item_buckets else 0
    scalars = TensorSpec("scalars", "float32", ("N", config.item_scalars + hashes))
    kinds = TensorSpec("kinds", "int32", ("N",))
    return Signature((text, scalars, kinds), (TensorSpec("vectors", "float32", ("N", config.width)),))
