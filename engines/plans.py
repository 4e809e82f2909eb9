"""TensorRT plans: built from a typed graph, and kept in a folder by what they are good for and nothing else.
A plan fits one GPU, driver and TensorRT version; any other is refused by name, and whoever asked builds it anew.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engines.base import Signature
from engines.typed import TypedGraph
from schemas.errors import EngineError

MOST_ROWS = 1 << 18  # of a catalogue, in one plan
USUAL_ROWS = 4096
REMEDY = "remove the file: it is built anew"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan was built for. structure: of the graph without its weights, which are refitted."""

    device: str
    driver: str
    tensorrt: str
    structure: str
    precision: str
    buckets: tuple[int, ...]

    @property
    def file(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.plan"


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialised engine, and the digest of the weights that were built into it."""

    data: bytes
    weights: str


class Plans:
    """A folder of plans. Several processes may share it: a file appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: PlanKey) -> Plan | None:
        """None if there is none. Raises EngineError for one that is damaged, or was built for something else."""
        path = self.folder / key.file
        try:
            head, _, data = path.read_bytes().partition(b"\n")
            said = json.loads(head)
            found = {field.name: said["key"][field.name] for field in fields(PlanKey)}
            digest, weights = said["sha256"], str(said["weights"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"the plan cannot be read: {error!r}", where=str(path), todo=REMEDY) from error
        for name, value in asdict(key).items():
            if found[name] != (list(value) if isinstance(value, tuple) else value):
                raise EngineError(
                    f"the plan is for {name} {found[name]}", where=str(path), expected=str(value), todo=REMEDY
                )
        if hashlib.sha256(data).hexdigest() != digest:
            raise EngineError("the plan was changed or cut short", where=str(path), todo=REMEDY)
        return Plan(data, weights)

    def put(self, key: PlanKey, plan: Plan) -> None:
        """Raises EngineError where the folder cannot be written."""
        head = {"key": asdict(key), "sha256": hashlib.sha256(plan.data).hexdigest(), "weights": plan.weights}
        partial = self.folder / f".{key.file}.{uuid.uuid4().hex[:8]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(json.dumps(head, sort_keys=True).encode() + b"\n" + plan.data)
            os.replace(partial, self.folder / key.file)
        except OSError as error:
            with suppress(OSError):  # it may lie where nothing can
                partial.unlink()
            raise EngineError(f"the plan cannot be kept: {error}", where=str(self.folder)) from error


def build(trt: Any, logger: Any, graph: TypedGraph, signature: Signature, buckets: Sequence[int], **how: Any) -> Plan:
    """A plan with one optimisation profile a bucket, in the order of the buckets. Takes seconds to minutes.

    trt: TensorRT's module, or TensorRT-RTX's. how: as of `configured`. Raises EngineError with the parser's words.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.model):
        said = "; ".join(parser.get_error(index).desc() for index in range(min(parser.num_errors, 3)))
        raise EngineError(
            f"TensorRT cannot read the graph: {said}", where="TensorRT", expected="a graph of this release"
        )
    config = configured(trt, builder.create_builder_config(), **how)
    for bucket in buckets:
        config.add_optimization_profile(profile(builder, signature, bucket))
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise EngineError("TensorRT cannot build the graph", where="TensorRT", todo="see the log for its own words")
    return Plan(bytes(data), graph.weights)


def configured(trt: Any, config: Any, *, refit: bool = True, capabilities: Sequence[Any] = ()) -> Any:
    """refit: False where there is no driver. capabilities: of TensorRT-RTX alone, for cards that are elsewhere."""
    config.clear_flag(trt.BuilderFlag.TF32)  # else f32 products have 10 bits, and no certificate of f32 passes
    config.set_flag(trt.BuilderFlag.STRICT_NANS)  # a missing field is NaN
    if refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(capability, index)
    return config


def profile(builder: Any, signature: Signature, bucket: int) -> Any:
    made = builder.create_optimization_profile()
    for spec in signature.inputs:
        least, usual, most = (bucket,) * 3 if spec.batched else (max(spec.least, 1), USUAL_ROWS, MOST_ROWS)
        made.set_shape(spec.name, spec.shape(least), spec.shape(usual), spec.shape(most))
    return made
