"""The release's graph as a strongly typed one: in bf16, matrix products take and give bfloat16 and all else stays
float32, as torch's autocast has it. Weights keep their names, so that a plan of one release is refitted to another.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import onnx
from onnx import TensorProto, helper, numpy_helper

from schemas.errors import EngineError

PRODUCTS = ("MatMul", "Gemm")
PRECISIONS = ("f32", "bf16")


@dataclass(frozen=True, slots=True)
class TypedGraph:
    """model: ONNX. structure: a digest of all but the float weights, equal for releases of one architecture; weights:
    a digest of those.
    """

    model: bytes
    structure: str
    weights: str


def typed(path: Path, precision: str) -> TypedGraph:
    """Raises EngineError for another precision, or a file that is no ONNX graph."""
    if precision not in PRECISIONS:
        raise EngineError(
            f"precision {precision!r}", where="engine.precision", expected=f"one of {', '.join(PRECISIONS)}"
        )
    try:
        model = onnx.load(path)
        if precision == "bf16":
            in_bfloat16(model.graph)
        onnx.checker.check_model(model)
    except Exception as error:
        raise EngineError(
            f"the graph cannot be read: {error}", where=str(path), expected="an ONNX graph of this release"
        ) from error
    return TypedGraph(model.SerializeToString(deterministic=True), *digests(model))


def in_bfloat16(graph: onnx.GraphProto) -> None:
    """Rewrites the graph in place: each product's inputs are cast to bfloat16 and its result back."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    uses: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node.op_type)
    floats = float_values(graph)
    nodes, cast = [], dict[str, str]()
    for node in graph.node:
        if node.op_type not in PRODUCTS or not all(name in floats for name in node.input if name):
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if not name:
                continue
            if name in weights and all(kind in PRODUCTS for kind in uses[name]):
                narrow(weights[name])
            else:
                if name not in cast:
                    cast[name] = f"{name}.bf16"
                    nodes.append(helper.make_node("Cast", [name], [cast[name]], to=TensorProto.BFLOAT16))
                node.input[index] = cast[name]
        wide = node.output[0]
        node.output[0] = f"{wide}.product"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [wide], to=TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # types of what lies between have changed


def float_values(graph: onnx.GraphProto) -> set[str]:
    """Names of float32 values, by the exporter's own notes."""
    noted = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name for value in noted if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def narrow(weight: onnx.TensorProto) -> None:
    """float32 to bfloat16 in place, rounded to nearest."""
    if weight.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(weight).astype(ml_dtypes.bfloat16)
        weight.CopyFrom(helper.make_tensor(weight.name, TensorProto.BFLOAT16, values.shape, values.tobytes(), raw=True))


def digests(model: onnx.ModelProto) -> tuple[str, str]:
    bare, weights = onnx.ModelProto(), hashlib.sha256()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.BFLOAT16):
            weights.update(tensor.name.encode() + tensor.SerializeToString(deterministic=True))
            for field in ("raw_data", "float_data", "int32_data"):
                tensor.ClearField(field)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest(), weights.hexdigest()
