"""A fine-tuned model's graphs, made from its champion's: the same nodes with other numbers, in hundredths of a second.
An export traces the model for seconds, to arrive at the same nodes. Whoever releases it checks the graph as any other.
"""

import hashlib
import json
import logging
import sys
from pathlib import Path

import onnx
from onnx import numpy_helper

from engines import tables
from engines.model import HeadraceConfig, HeadraceModel
from engines.openvino import GRAPH
from engines.releases import Release

log = logging.getLogger(__name__)

GRAPHS = (GRAPH, tables.GRAPH)
TRACED_FROM = "headrace.traced_from"


def refit(champion: Release, model: HeadraceModel, folder: Path) -> bool:
    """Writes the GRAPHS into the folder. False, and nothing is written, where the champion's are not of this model:
    traced from other code, of another size, or folded so that weights are not there by their names.
    """
    graphs = {name: onnx.load_model(champion.file(name)) for name in GRAPHS}
    for name, graph in graphs.items():
        if why := _put(model, graph):
            log.info("%s is traced anew: %s", name, why)
            return False
    for name, graph in graphs.items():
        onnx.save_model(graph, folder / name)
    return True


def traced_from(model: HeadraceModel) -> str:
    """sha256 of the model's sizes and of the sources of its own parts: what other code traced means something else."""
    own = __name__.partition(".")[0]
    sizes = {name: getattr(model.config, name) for name in HeadraceConfig.__annotations__}
    modules = {type(part).__module__ for part in model.modules()}
    sources = [Path(str(sys.modules[name].__file__)) for name in sorted(modules) if name.partition(".")[0] == own]
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _put(model: HeadraceModel, graph: onnx.ModelProto) -> str:
    """The model's numbers into the graph; why not, where they do not fit."""
    said = {each.key: each.value for each in graph.metadata_props}
    if said.get(TRACED_FROM) != traced_from(model):
        return "it was traced from other code, or of other sizes"
    weights = model.state_dict()
    for held in graph.graph.initializer:
        if held.name not in weights:
            continue  # folded, of constants alone
        array = weights[held.name].detach().numpy()
        before = onnx.helper.tensor_dtype_to_np_dtype(held.data_type)
        if tuple(held.dims) != array.shape or before != array.dtype:
            return f"{held.name} is {before} {tuple(held.dims)}, the model's is {array.dtype} {array.shape}"
        held.CopyFrom(numpy_helper.from_array(array, held.name))
    return ""
